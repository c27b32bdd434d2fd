"""The measures of a point, formatted for display, and which method leads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from editkit.evaluation.readings import perplexity_ratio
from editkit.evaluation.records import Mean, Point, Share

__all__ = ["MEASURES", "Measure", "ShownCell", "leaders", "shown"]


class ShownCell(NamedTuple):
    """A measure of a point."""

    value: str
    notes: tuple[str, ...]  # its interval first, if it has one
    number: float
    low: float | None = None
    high: float | None = None


class Measure(NamedTuple):
    """A measure of a point; ``read`` returns None if it was not measured."""

    title: str
    read: Callable[[Point], ShownCell | None]
    better: int = 1  # 1 if larger is better, -1 if smaller, 0 if neither
    is_main: bool = True  # shown where there is little room


def leaders(measure: Measure, points: Sequence[Point]) -> dict[str, bool]:
    """Returns the best methods, and whether their lead is significant.

    It is if the 95% interval of a single best method is disjoint from all others. The unedited
    model does not compete, and if all are equal no method leads.

    Args:
        measure: The measure to compare.
        points: One point of each method.
    """
    found = {p.method: shown for p in points if p.method != "base" and (shown := measure.read(p))}
    if not measure.better or len({shown.value for shown in found.values()}) < 2:
        return {}
    top = max(found.values(), key=lambda shown: measure.better * shown.number)
    # Equal as displayed counts as equal: a lead in the fourth decimal is none.
    best = [method for method, shown in found.items() if shown.value == top.value]
    others = [shown for method, shown in found.items() if method not in best]
    is_clear = len(best) == 1 and all(_is_apart(found[best[0]], one) for one in others)
    return dict.fromkeys(best, is_clear)


def _is_apart(one: ShownCell, other: ShownCell) -> bool:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low > other.high or other.low > one.high


def shown(found: Mean | Share | None, *notes: str) -> ShownCell | None:
    """Returns a score for display, with its interval; None if it was not measured."""
    if found is None or found.value is None:
        return None
    is_known = found.low is not None and found.high is not None
    interval = (f"{found.low:.3f} to {found.high:.3f}",) if is_known else ()
    who = f"{found.hits:,}" if isinstance(found, Share) else "mean"
    return ShownCell(
        f"{found.value:.3f}",
        (*interval, f"{who} of {found.count:,}", *notes),
        found.value,
        found.low,
        found.high,
    )


def _field(name: str) -> Callable[[Point], ShownCell | None]:
    return lambda point: shown(getattr(point, name))


def _kept(name: str) -> Callable[[Point], ShownCell | None]:
    def read(point: Point) -> ShownCell | None:
        if point.retention is None:
            return None
        base: Mean | Share = getattr(point.retention, f"base_{name}")
        notes = () if base.value is None else (f"before: {base.value:.3f}",)
        return shown(getattr(point.retention, name), *notes)

    return read


def _perplexity(point: Point) -> ShownCell | None:
    ratio, kept = perplexity_ratio(point.retention), point.retention
    if ratio is None or kept is None:
        return None
    notes = (f"now: {_number(kept.perplexity)}", f"before: {_number(kept.base_perplexity)}")
    return ShownCell(_number(ratio), notes, ratio)


def _keys(point: Point) -> ShownCell | None:
    if point.keys is None:
        return None
    each = () if point.keys_per_edit is None else (f"{point.keys_per_edit:.2f} an edit",)
    return ShownCell(f"{point.keys:,}", each, point.keys)


def _seconds(point: Point) -> ShownCell | None:
    return ShownCell(f"{point.seconds_per_edit:.3g}", (), point.seconds_per_edit)


def _edits(point: Point) -> ShownCell | None:
    return ShownCell(f"{point.edits:,}", (f"{point.judged:,} judged",), point.edits)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}" if value < 1e6 else f"{value:.2e}"


MEASURES = (
    Measure("edits", _edits, 0, is_main=False),
    Measure("edit success", _field("edit_success")),
    Measure("reliability", _field("reliability")),
    Measure("generalization", _field("generalization")),
    Measure("locality", _field("locality")),
    Measure("locality of neighbours", _field("neighbours")),
    Measure("false fires", _field("false_fires"), -1),
    Measure("same: right", _field("right")),
    Measure("same: right, free", _field("right_free")),
    Measure("same: fires", _field("fired_same"), is_main=False),
    Measure("same: free of those that fire", _field("delivered_free"), is_main=False),
    Measure("other: fires", _field("fired_other"), -1),
    Measure("reliability, forced", _field("reliability_forced"), is_main=False),
    Measure("generalization, forced", _field("generalization_forced"), is_main=False),
    Measure("locality, forced", _field("locality_forced"), is_main=False),
    Measure("locality of neighbours, forced", _field("neighbours_forced"), is_main=False),
    Measure("perplexity, relative to base", _perplexity, -1),
    Measure("tokens of general text predicted", _kept("accuracy"), is_main=False),
    Measure("known answers still given", _kept("answers"), is_main=False),
    Measure("keys", _keys, 0, is_main=False),
    Measure("seconds an edit", _seconds, -1),
)
"""All measures, in display order."""
