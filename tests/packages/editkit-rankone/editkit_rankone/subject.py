"""What a prompt is about, and which of its tokens ends it."""

from __future__ import annotations

from collections.abc import Sequence

from editkit.engines.base import TokenEncoder
from editkit_store.records import Edit

__all__ = ["last_token", "subject_of"]

_MARKS = ".,;:!?\"'()[]…。！？"


def subject_of(edit: Edit, text: str, said: tuple[list[str], list[str]]) -> str:
    """Returns what an edit's prompt is about, as it is written there.

    Args:
        edit: The edit.
        text: Its prompt, as the model reads it.
        said: Names in the prompt, and other words that say something.

    The edit says it; else it is what all rephrasings have in common with the prompt, the longest
    span of words that says something; else the last name; else the last telling word.
    """
    if edit.subject and edit.subject.casefold() in text.casefold():
        return edit.subject
    names, others = said
    words = [word.strip(_MARKS) for word in text.split()]
    telling = {*names, *others}
    if edit.rephrases:
        shared = _shared(words, [rephrase.casefold() for rephrase in edit.rephrases], telling)
        if shared:
            return shared
    for known in (names, others):
        if known:
            found = next((at for at in reversed(range(len(words))) if words[at] in known), None)
            if found is None:
                return known[-1]
            first = found
            while first and words[first - 1] in known:
                first -= 1
            return " ".join(words[first : found + 1])
    return next((word for word in reversed(words) if word), text)


def _shared(words: Sequence[str], others: Sequence[str], telling: set[str]) -> str:
    """Returns the longest span of words that says something and that all other texts have too."""
    for length in range(len(words), 0, -1):
        for start in range(len(words) - length + 1):
            span = words[start : start + length]
            text = " ".join(span)
            if telling.isdisjoint(span):
                continue
            if all(text.casefold() in other for other in others):
                return text
    return ""


def last_token(encoder: TokenEncoder, ids: Sequence[int], subject: str) -> int:
    """Returns the place of the token that ends a subject, where it is said last.

    Args:
        encoder: The model's.
        ids: A prompt.
        subject: What it is about. Of a prompt without it the last token is meant.
    """
    text = encoder.decode(ids).casefold()
    at = text.rfind(subject.casefold())
    if at < 0:
        return len(ids) - 1
    until = text[: at + len(subject.casefold())]
    found = (
        place
        for place in range(len(ids))
        # Tokens may end within a letter.
        if encoder.decode(ids[: place + 1]).casefold().startswith(until)
    )
    return next(found, len(ids) - 1)
