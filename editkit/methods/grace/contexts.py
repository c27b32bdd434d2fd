"""Contexts in which a value has to give its target, beside the edit's own prompt.

A value that was learned at one prompt often gives something else at another that fires it: under a
chat template, in small letters, after other text. It replaces the site's output whatever came
before, so learning it where hardly anything did, and in another form of the prompt, makes it depend
less on its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from editkit.engines.base import Encoded, TokenEncoder
from editkit_store.errors import EditkitError
from editkit_store.records import Edit, Message

__all__ = ["contexts"]

_NEUTRAL = "Hello."


def contexts(
    edits: Sequence[Edit], encoder: TokenEncoder, count: int
) -> tuple[list[Encoded], list[int]]:
    """Returns edits' targets behind other prompts.

    Args:
        edits: The edits.
        encoder: Encodes prompts.
        count: Number of contexts of each, the most telling first; fewer where the model cannot take
            one.

    Returns:
        The contexts; and for each row of a batch of all edits and then the contexts, the index of
        its edit.
    """
    found: list[Encoded] = []
    owners = list(range(len(edits)))
    for index, edit in enumerate(edits if encoder.family == "decoder" else ()):
        for change in _changes(edit)[:count]:
            try:
                found.append(encoder.request(edit.model_copy(update=change)))
            except EditkitError:  # no chat template, or too long for the model
                continue
            owners.append(index)
    return found, owners


def _changes(edit: Edit) -> list[dict[str, object]]:
    if edit.kind != "fact":
        return []
    lower = edit.prompt.lower()
    in_chat = (Message(role="user", content=lower),)
    return [
        # The other form: as a chat if the edit's prompt is plain, and the other way round.
        {"prompt": lower, "chat": in_chat if edit.chat is None else None},
        {"prompt": _NEUTRAL, "chat": None},
    ]
