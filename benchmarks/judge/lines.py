"""What the judge is trained on: the blocks, split by domain, and what is done to their lines.

A line is compared with other lines of its block, of its subject and of a neighbouring subject, so
that most of what a batch holds is hard. What would tell ``same`` from ``other`` by its looks alone
(small letters, mistakes, greetings, a conversation in front) is added to both at random.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import blocks as text

__all__ = [
    "HELD_DOMAINS",
    "HELD_LANGUAGES",
    "Group",
    "Line",
    "disturbed",
    "groups",
    "length",
    "load",
]

HELD_DOMAINS = frozenset(
    "furniture_store gym_membership saas_plans astronomy films_directors linux_shell "
    "hospital_visiting credit_cards olympics_athletics restaurants_menus museum_visits".split()
)
HELD_LANGUAGES = frozenset({"pt"})
HELD_OF_LANGUAGE = 10
"""Blocks of every other language that are held out, by subject."""


@dataclass(frozen=True)
class Line:
    """One text of a block: a prompt, or turns of a conversation."""

    said: str | tuple[str, ...]
    kind: str


@dataclass
class Block:
    """A correction: its prompt and lines that ask for the same, and lines that do not."""

    domain: str
    language: str
    subject: str
    target: str
    same: list[Line]
    other: list[Line]


Group = list[Block]
"""Blocks about one subject."""


def load(folder: Path) -> tuple[list[Block], list[Block]]:
    """Returns the blocks to learn from and those held out."""
    read, wrong = text.read(sorted(folder.glob("*.txt")))
    for line in wrong:
        print(line, file=sys.stderr)
    learned: list[Block] = []
    held: list[Block] = []
    held_of: dict[str, set[str]] = {}
    count: dict[str, int] = {}
    for one in read:
        block = Block(
            one["domain"], one["language"], one["subject"], one["target"],
            [Line(one["prompt"], "prompt"), *_lines(one, "same")], _lines(one, "other"),
        )  # fmt: skip
        language, subjects = block.language, held_of.setdefault(block.language, set())
        is_held = block.domain in HELD_DOMAINS and language == "en" or language in HELD_LANGUAGES
        if language != "en" and not is_held:
            if count.get(language, 0) < HELD_OF_LANGUAGE or block.subject in subjects:
                subjects.add(block.subject)
                count[language] = count.get(language, 0) + 1
                is_held = True
        (held if is_held else learned).append(block)
    return learned, held


def _lines(block: dict[str, list[str | list[str]]], name: str) -> list[Line]:
    said = zip(block[name], block[f"{name}_kinds"], strict=True)
    return [Line(one if isinstance(one, str) else tuple(one), str(kind)) for one, kind in said]


def length(line: Line) -> int:
    """Returns how many letters a line has."""
    return len(line.said) if isinstance(line.said, str) else sum(map(len, line.said))


def groups(blocks: list[Block]) -> list[Group]:
    """Returns the blocks by subject."""
    found: dict[tuple[str, str, str], Group] = {}
    for block in blocks:
        found.setdefault((block.language, block.domain, block.subject), []).append(block)
    return list(found.values())


_NEAR = {
    letter: row[max(0, at - 1) : at + 2].replace(letter, "")
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for at, letter in enumerate(row)
}

_OPENINGS = (
    "hi", "hey", "hello there", "good morning", "hi, quick question", "hey guys", "sorry to bother",
    "one more thing", "hello, hope you can help me", "please help", "quick one",
    "I looked everywhere on your site and could not find it.", "my wife asked me just now.",
    "so, I am sitting here with my coffee and wondering.", "not sure whom to ask.", "ok so",
    "I'm new here, so bear with me.", "We talked about this at dinner last night.",
    "I have to fill in a form by tomorrow.", "My phone is about to die, so please be short.",
)  # fmt: skip
_CLOSINGS = (
    "thanks", "thank you!", "thx", "cheers", "please", "thanks in advance", "many thanks, Ola",
    "thanks a lot and have a nice day", "pls answer quickly", "that's all I need", "any idea?",
    "regards, Tom", "sorry if that's a silly question", "asking for a friend", "best, Mina",
)  # fmt: skip


def mistyped(said: str, rng: random.Random) -> str:
    """Returns a text with one to four mistakes of fingers."""
    letters = list(said)
    for _ in range(min(rng.choice((1, 1, 2, 2, 3, 4)), 1 + len(said) // 8)):
        places = [at for at in range(1, len(letters) - 1) if letters[at].isalpha()]
        if not places:
            break
        at = rng.choice(places)
        how = rng.random()
        if how < 0.35:
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        elif how < 0.55:
            del letters[at]
        elif how < 0.7:
            letters.insert(at, letters[at])
        elif how < 0.9:
            near = _NEAR.get(letters[at].lower())
            if near:
                letters[at] = rng.choice(near)
        else:
            spaces = [place for place, letter in enumerate(letters) if letter == " "]
            if spaces:
                del letters[rng.choice(spaces)]
    return "".join(letters)


def disturbed(
    line: Line, rng: random.Random, strangers: list[Line], *, much: float = 1.0
) -> str | tuple[str, ...]:
    """Returns what a line says, at times as it would be typed in haste or in a conversation.

    Args:
        line: The line.
        rng: What chance is drawn from.
        strangers: Lines of elsewhere, as something said before.
        much: How often; 0 leaves every line as it is.
    """
    turns = [line.said] if isinstance(line.said, str) else list(line.said)
    last = turns[-1]
    if rng.random() < 0.15 * much:
        last = mistyped(last, rng)
    if rng.random() < 0.1 * much and len(last) < 160:
        last = f"{rng.choice(_OPENINGS)} {last}"
    if rng.random() < 0.07 * much and len(last) < 160:
        last = f"{last} {rng.choice(_CLOSINGS)}"
    if len(turns) == 1 and strangers and rng.random() < 0.06 * much:
        stranger = rng.choice(strangers).said
        if isinstance(stranger, str) and len(stranger) < 120:
            turns = [stranger, "Sure.", last]
            return tuple(turns)
    return last if len(turns) == 1 else (*turns[:-1], last)
