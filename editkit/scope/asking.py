"""What a judge reads of a text: the turn that asks, what was said before it, without what is noise.

Capitals, accents' encoding, full-width letters, invisible characters, marks and spaces say nothing
about what is asked, so they are gone before a text is encoded: two prompts that differ in nothing
else read alike, and are decided alike. Ends of sentences inside a text stay, since a long message
falls into parts by them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

__all__ = ["Question", "Text", "plain", "question", "sentences"]

_MEANT = frozenset("$€£¥₹%‰°+#&@/<>=*^~§№")
"""Marks that are part of what is asked: amounts, units, code, names such as C++ and C#."""

_END = re.compile(r"(?<=[.!?。！？…])\s+|\n+|(?<=[。！？])")
_STOPS = frozenset(".!?…。！？؟।;\n")
_INVISIBLE = ("Cf", "Cc", "Co", "Cn", "Cs")
_PAUSE = r"(?:\s*[,!.;:]+\s*|\s+[-\u2013]+\s+)"
_GREETING = re.compile(
    r"^\s*(?:(?:hi+|hello|hey|hiya|good (?:morning|afternoon|evening))"
    rf"(?: (?:there|all|again|team|everyone|folks))?{_PAUSE}|(?:a )?quick (?:q|question){_PAUSE})+",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"(?<=[?!.,;])\s*(?:many )?(?:thanks|thank you|thx|cheers)"
    r"(?: (?:in advance|a lot|so much|a bunch))?[!.]*\s*$",
    re.IGNORECASE,
)
_KEPT_BEFORE = 5  # turns before the one that asks: further back hardly anything refers


Text = str | tuple[str, ...]
"""A prompt; of a conversation its turns, the asking one last."""


class Question(NamedTuple):
    """A turn that asks, and what was said before it.

    Attributes:
        asking: The turn itself.
        before: Earlier turns, oldest first.
    """

    asking: str
    before: tuple[str, ...] = ()


def question(said: Text) -> Question:
    """Returns a text, or a conversation's turns with the asking one last, as a question.

    A greeting in front and thanks behind ask for nothing, and are left out.
    """
    if isinstance(said, str):
        return Question(_without_courtesies(said))
    if not said:
        return Question("")
    return Question(_without_courtesies(said[-1]), tuple(said[:-1][-_KEPT_BEFORE:]))


def _without_courtesies(text: str) -> str:
    kept = _THANKS.sub("", _GREETING.sub("", text, count=1), count=1)
    return kept if plain(kept) else text


def plain(text: str) -> str:
    """Returns a text without what does not count: case, marks, spaces, invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept: list[str] = []
    last = len(folded) - 1
    for at, letter in enumerate(folded):
        if letter.isalnum() or letter in _MEANT:
            kept.append(letter)
            continue
        kind = unicodedata.category(letter)
        if kind[0] == "M":
            kept.append(letter)
        elif letter in ".,:" and 0 < at < last and folded[at - 1].isdigit():
            # 3.11 and 1,000 and 10:30 are one thing each; a full stop behind a number is not.
            kept.append(letter if folded[at + 1].isdigit() else " . " if letter == "." else " ")
        elif letter == "-" and f" {folded} "[at].isspace() and f"{folded} "[at + 1].isdigit():
            kept.append(letter)  # of a negative number
        elif letter in _STOPS:
            kept.append(" . ")
        elif kind not in _INVISIBLE or letter.isspace():
            kept.append(" ")
    # A stop at the beginning, at the end or behind another one ends nothing.
    words: list[str] = []
    for word in "".join(kept).split():
        if word != "." or (words and words[-1] != "."):
            words.append(word)
    if words and words[-1] == ".":
        words.pop()
    return " ".join(words)


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text, in order."""
    return [part for part in (one.strip() for one in _END.split(text)) if part]
