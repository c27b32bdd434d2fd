"""Comparing wordings: two prompts are one wording up to capitals, spaces and punctuation."""

from __future__ import annotations

import unicodedata

__all__ = ["has_text", "wording"]

_APOSTROPHES = frozenset("'’‘ʼ`´＇")
_MEANT = frozenset("#%&@*/\\§")
"""Marks that Unicode counts as punctuation but that change a question: "C#" is not "C"."""


def wording(text: str) -> str:
    """Returns a text without what does not make it another wording.

    Removed are capitals, the encoding of accents, full-width forms, invisible characters, spaces
    beyond one, and punctuation, except within numbers and where it is a sign: "-5", "C#", "3.5".
    A text of punctuation only is kept.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found = [_kept(folded, at) for at in range(len(folded))]
    return " ".join("".join(found).split()) or " ".join(folded.split())


def has_text(text: str) -> bool:
    """Returns whether a text has a visible character; zero-width characters are not visible."""
    return any(mark.isprintable() and not mark.isspace() for mark in text)


def _kept(text: str, at: int) -> str:
    """Returns what stands for a character of a folded text."""
    mark = text[at]
    if mark in _APOSTROPHES:
        return ""
    category = unicodedata.category(mark)
    if category in ("Cf", "Cc", "Cs"):
        return " " if mark.isspace() else ""
    if category[0] != "P" or mark in _MEANT:
        return mark
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    if after.isdecimal() and (before.isdecimal() if mark in ".,:" else _is_sign(mark, before)):
        return mark
    return " "


def _is_sign(mark: str, before: str) -> bool:
    """Returns whether a mark in front of a digit is a minus, and not a dash between two words."""
    return mark == "-" and (not before or before.isspace())
