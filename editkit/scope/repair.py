"""Takes a mistyped word for the one that was meant, where an edit's prompt says which that may be.

An encoder sees pieces of a mistyped word that say nothing. Against the words of the prompts that it
may ask for, and only against them, a slip of the fingers is easily told: two letters swapped, one
left out, doubled or beside the right one. A name that differs in a letter may be another name, so
not every small difference is a slip; digits never are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["is_slip", "repaired"]

_LEAST = 3  # letters of a word that is looked for
_SHORT = 3  # up to here only two letters that are swapped are a slip
_LONG = 8  # from here on two slips, and any other letter, are taken for slips
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PLACES = {letter: (x + y / 2, y) for y, row in enumerate(_ROWS) for x, letter in enumerate(row)}


def repaired(text: str, meant: Sequence[str], known: Collection[str]) -> str:
    """Returns a plain text with its slips undone.

    Args:
        text: As ``plain`` gives it.
        meant: The words that may have been meant, in their order.
        known: Words that are words, and no slips.
    """
    if not meant:
        return text
    joined = {a + b: f"{a} {b}" for a, b in zip(meant, meant[1:], strict=False)}
    targets = [word for word in dict.fromkeys(meant) if len(word) >= _LEAST and word.isalpha()]
    said = set(meant)
    words = []
    for word in text.split(" "):
        if word in said or word in known or len(word) < _LEAST or not word.isalpha():
            words.append(word)
        elif word in joined:
            words.append(joined[word])
        else:
            words.append(next((one for one in targets if is_slip(word, one)), word))
    return " ".join(words)


def is_slip(word: str, meant: str) -> bool:
    """Returns whether a word is another one with a slip of the fingers, or two in a long one."""
    if len(meant) <= _SHORT:
        return len(word) == len(meant) and sorted(word) == sorted(meant)
    most = 2 if len(meant) >= _LONG else 1
    if (
        abs(len(word) - len(meant)) > most
        or sorted(word[:2]) != sorted(meant[:2])
        and (word[0] != meant[0])
    ):
        return False
    return _distance(word, meant, most) <= most


def _distance(word: str, meant: str, most: int) -> float:
    """Edits from one to the other, a swap of neighbours counting as one (optimal alignment)."""
    before: list[float] = []
    last = [float(at) for at in range(len(meant) + 1)]
    for i, letter in enumerate(word, 1):
        row = [float(i)]
        for j, other in enumerate(meant, 1):
            best = min(last[j] + 1, row[-1] + 1, last[j - 1] + _cost(letter, other, len(meant)))
            if i > 1 and j > 1 and letter == meant[j - 2] and word[i - 2] == other:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before, last = last, row
        if min(row) > most:
            return most + 1
    return last[-1]


def _cost(letter: str, other: str, length: int) -> float:
    """Of one letter in the place of another: in a short word a slip only to a key beside it."""
    if letter == other:
        return 0
    if length >= _LONG:
        return 1
    one, two = _PLACES.get(letter), _PLACES.get(other)
    if one is None or two is None:
        return 2
    return 1 if abs(one[0] - two[0]) + abs(one[1] - two[1]) <= 1.5 else 2
