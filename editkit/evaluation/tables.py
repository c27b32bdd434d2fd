"""An evaluation as CSV, for spreadsheets and data frames (RFC 4180: commas, CRLF, one header).

Numbers have a decimal point and no exponent; missing numbers are empty. A share has five columns:
its value, under the share's own name, and ``_low``, ``_high`` (95% interval), ``_hits``,
``_count``; a mean is the same without ``_hits``.

Spreadsheets treat a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, and prompts
and answers are untrusted. So such a text is prefixed with a single quote, and so is one that
already has such quotes. To restore a text, remove one quote if it is followed by another quote or
one of these characters, as ``plain`` does. Columns of numbers are never prefixed.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable
from decimal import Decimal

from editkit.evaluation.readings import perplexity_ratio
from editkit.evaluation.records import CaseResult, Mean, Point, Report, Share

__all__ = [
    "CASE_COLUMNS",
    "POINT_COLUMNS",
    "cases_csv",
    "plain",
    "points_csv",
]

_SHARES = ("edit_success", "reliability", "generalization", "locality", "neighbours", "false_fires")
_FORCED = tuple(f"{name}_forced" for name in _SHARES[1:5])
_BLOCKS = ("right", "right_free", "fired_same", "delivered_free", "fired_other")
_ENDS = ("", "_low", "_high", "_count")


def _columns(names: Iterable[str], ends: Iterable[str]) -> tuple[str, ...]:
    return tuple(name + end for name in names for end in ends)


POINT_COLUMNS = (
    "method",
    "edits",
    "judged",
    *_columns(_SHARES, (*_ENDS, "_hits")),
    *_columns(_FORCED, _ENDS),
    "perplexity",
    "base_perplexity",
    "perplexity_ratio",
    *_columns(("accuracy", "base_accuracy"), _ENDS),
    *_columns(("answers", "base_answers"), (*_ENDS, "_hits")),
    "keys",
    "keys_per_edit",
    "seconds_per_edit",
    *_columns(_BLOCKS, (*_ENDS, "_hits")),
)
"""The header of ``points_csv``; new columns are only added at its end."""

CASE_COLUMNS = (
    "method",
    "edits",
    "case",
    "asked",
    "prompt",
    "wanted",
    "answer",
    "right",
    "forced",
    "fired",
    "fired_prompt",
    "nearest",
    "distance",
    "radius",
    "nearest_prompt",
    "kind",
    "language",
    "delivered",
)
"""The header of ``cases_csv``: the fields of a ``CaseResult``; ``right`` is true or false."""

# Spreadsheets skip white space before a formula, accept full-width signs, and split a cell that
# begins with a tab or a line ending.
_FORMULA = re.compile("'*(?:\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


def points_csv(report: Report) -> str:
    """Returns the points of an evaluation, one per row, with the header ``POINT_COLUMNS``.

    Write it to a file that is opened with ``newline=""``.
    """
    return _csv(POINT_COLUMNS, (_point(one) for one in report.points))


def cases_csv(cases: Iterable[CaseResult]) -> str:
    """Returns the result of each prompt, one per row, with the header ``CASE_COLUMNS``.

    Write it to a file that is opened with ``newline=""``.
    """
    return _csv(CASE_COLUMNS, ([getattr(one, name) for name in CASE_COLUMNS] for one in cases))


def plain(cell: str) -> str:
    """Returns the text of a cell, without the quote against formulas."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def _point(point: Point) -> list[object]:
    kept = point.retention
    cells: list[object] = [point.method, point.edits, point.judged]
    for name in _SHARES:
        cells += _share(getattr(point, name))
    for name in _FORCED:
        cells += _mean(getattr(point, name))
    cells += [kept and kept.perplexity, kept and kept.base_perplexity, perplexity_ratio(kept)]
    for mean in (kept.accuracy, kept.base_accuracy) if kept else (None, None):
        cells += _mean(mean)
    for share in (kept.answers, kept.base_answers) if kept else (None, None):
        cells += _share(share)
    cells += [point.keys, point.keys_per_edit, point.seconds_per_edit]
    for name in _BLOCKS:
        cells += _share(getattr(point, name))
    return cells


def _mean(found: Mean | Share | None) -> list[object]:
    return [found.value, found.low, found.high, found.count] if found else [None] * 4


def _share(found: Share | None) -> list[object]:
    return [*_mean(found), found and found.hits]


def _csv(header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(header)
    writer.writerows([_cell(one) for one in row] for row in rows)
    return written.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if math.isfinite(value) else repr(value)
    shown = str(value)
    return "'" + shown if isinstance(value, str) and _FORMULA.match(shown) else shown
