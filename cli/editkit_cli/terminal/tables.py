"""Tables and fields that fit the terminal, as strings; prints nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "Column",
    "clean",
    "fields",
    "fit",
    "keep_filled",
    "megabytes",
    "plain_table",
    "short_digest",
    "shorten",
    "visible",
]

GAP = "  "
NARROWEST = 16
"""Least width of a flexible column, however narrow the terminal is."""


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        title: Its heading.
        flexible: Whether its cells may be shortened to fit the table.
        right: Whether it is aligned to the right.
        style: Its style for rich.
    """

    title: str
    flexible: bool = False
    right: bool = False
    style: str = ""


def clean(text: str) -> str:
    """Returns ``text`` as one line without control characters.

    Anybody may have written a prompt; escape sequences in it must not reach the terminal.
    """
    spaced = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(spaced.split())


def visible(text: str) -> str:
    """Returns ``text`` with control characters replaced, except line breaks and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def short_digest(digest: str) -> str:
    """Returns the first 12 hex digits of an id or a digest, without the algorithm's name."""
    return digest.rpartition(":")[2][:12]


def megabytes(count: int) -> str:
    """Returns a number of bytes in megabytes."""
    return f"{count / 1e6:.1f} MB"


def _width(text: str) -> int:
    """Returns the number of terminal columns of ``text``."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def shorten(text: str, room: int) -> str:
    """Returns ``text`` cut to ``room`` columns, with an ellipsis if it was cut."""
    if _width(text) <= room:
        return text
    kept = ""
    for character in text:
        if _width(kept + character) > room - 1:
            break
        kept += character
    return kept.rstrip() + "…"


def keep_filled(
    columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> tuple[list[Column], list[list[str]]]:
    """Returns the table without empty columns, and with clean cells."""
    cells = [[_cell(text) for text in row] for row in rows]
    kept = [i for i in range(len(columns)) if any(row[i].strip() for row in cells)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in cells]


def _cell(text: str) -> str:
    # Leading blanks are kept, for the mark of the current version.
    return text[: len(text) - len(text.lstrip(" "))] + clean(text)


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Returns the cells, with flexible ones shortened so that the table fits ``width``."""
    wide = [
        max([_width(column.title), *(_width(row[i]) for row in rows)])
        for i, column in enumerate(columns)
    ]
    flexible = [i for i, column in enumerate(columns) if column.flexible]
    room = (
        width
        - len(GAP) * (len(columns) - 1)
        - sum(wide[i] for i in range(len(columns)) if i not in flexible)
    )
    # The widest column shrinks first, so that a short target is not cut for a long prompt.
    while flexible and sum(wide[i] for i in flexible) > room:
        widest = max(flexible, key=lambda i: wide[i])
        if wide[widest] <= NARROWEST:
            break
        wide[widest] -= 1
    return [
        [shorten(cell, wide[i]) if i in flexible else cell for i, cell in enumerate(row)]
        for row in rows
    ]


def plain_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> str:
    """Returns an aligned table without colour or borders."""
    columns, cells = keep_filled(columns, rows)
    cells = fit(columns, cells, width)
    lines = [[column.title for column in columns], *cells]
    wide = [max(_width(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        GAP.join(
            _pad(text, wide[i], right=columns[i].right) for i, text in enumerate(line)
        ).rstrip()
        for line in lines
    )


def _pad(text: str, width: int, *, right: bool) -> str:
    blank = " " * (width - _width(text))
    return blank + text if right else text + blank


def fields(rows: Sequence[tuple[str, str]]) -> str:
    """Returns one line per name and value; rows without a value are left out."""
    rows = [(name, value) for name, value in rows if value]
    wide = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{wide}}{GAP}{clean(value)}" for name, value in rows)
