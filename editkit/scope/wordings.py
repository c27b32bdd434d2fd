"""Other wordings of a prompt, and other questions near it, to try how far an edit reaches.

Made of shipped templates and the prompt's own words: enough to show somebody what an edit would
answer and what it would leave alone, and no measure of either.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

__all__ = ["other_questions", "other_wordings", "subject_of"]

_WORD = re.compile(r"[\w$€£%+#&@'’.-]*\w[+#%]*")
_SMALL = frozenset(
    "a an and are as at be by can could did do does for from had has have how i in is it its long "
    "many may me might much my of often old on or our should tall the their there they this to was "
    "we were what when where which who whom whose why will with would you your".split()
)

_SAME = (
    "{keywords}",
    "hi, quick question: {lower}",
    "Could you tell me: {prompt}",
    "Hello! {prompt}",
    "i need to know {lower}",
)
_OTHER = (
    "Where does {subject} come from?",
    "When did {subject} begin?",
    "Who is responsible for {subject}?",
    "Why is that so with {subject}?",
    "How much does {subject} cost?",
    "What is {subject}?",
    "Write a short poem about {subject}.",
    "Is {subject} any good?",
)


def other_wordings(prompt: str) -> Iterator[str]:
    """Yields the prompt in other words."""
    words = _WORD.findall(prompt)
    kept = [word for word in words if word.casefold() not in _SMALL]
    parts = {
        "prompt": prompt.strip(),
        "lower": prompt.strip().lower().rstrip("?.! "),
        "keywords": " ".join(kept).lower(),
    }
    for template in _SAME:
        made = template.format(**parts)
        if made and made != prompt:
            yield made


def other_questions(prompt: str) -> Iterator[str]:
    """Yields other questions about what a prompt is about; none where that is not clear."""
    subject = subject_of(prompt)
    if subject:
        for template in _OTHER:
            yield template.format(subject=subject)


def subject_of(prompt: str) -> str:
    """Returns what a prompt is about: its longest name, else its last telling words; or nothing."""
    words = _WORD.findall(prompt)
    names: list[str] = []
    for is_name, run in itertools.groupby(
        enumerate(words), key=lambda one: _is_name(one[1], is_first=one[0] == 0)
    ):
        if is_name:
            names.append(" ".join(word for _, word in run))
    if names:
        return max(names, key=len)
    telling = [word for word in words if word.casefold() not in _SMALL]
    return " ".join(telling[-2:])


def _is_name(word: str, *, is_first: bool) -> bool:
    if word.casefold() in _SMALL:
        return False
    return any(letter.isdigit() for letter in word) or (word[:1].isupper() and not is_first)
