"""Blocks: edits with prompts that ask for the same, and prompts that ask for something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from editkit.editing.requests import has_text
from editkit_store.errors import InvalidRequest
from editkit_store.records import Message

__all__ = ["BlockPrompt", "block_prompts"]

_TURNS = ("user", "assistant")


@dataclass(frozen=True)
class BlockPrompt:
    """A prompt that belongs to an edit.

    Attributes:
        prompt: The text; of a conversation, its last turn.
        chat: The conversation, if it is one.
        kind: What kind of wording or question it is, in the author's words.
        language: Its language, or the block's.
    """

    prompt: str
    chat: tuple[Message, ...] | None = None
    kind: str | None = None
    language: str | None = None


def block_prompts(block: Mapping[str, Any], name: str) -> tuple[BlockPrompt, ...]:
    """Returns the prompts of a block's field; none if the block does not have it.

    Args:
        block: Fields of the block.
        name: ``same`` or ``other``.

    Raises:
        InvalidRequest: The field is not a list of prompts; the error names it.
    """
    entries = block.get(name, [])
    if not isinstance(entries, list):
        raise _wrong(name, "must be a list of prompts")
    kinds = block.get(f"{name}_kinds", [None] * len(entries))
    if not isinstance(kinds, list) or len(kinds) != len(entries):
        raise _wrong(f"{name}_kinds", f"must be a list with one kind for each prompt of '{name}'")
    language = _text(block.get("language"), "language")
    system = _system(block.get("chat"))
    found = []
    for index, (entry, kind) in enumerate(zip(entries, kinds, strict=True)):
        field = f"{name}[{index}]"
        given = dict(entry) if isinstance(entry, Mapping) else {"prompt": entry}
        asked = next((given[key] for key in ("prompt", "chat", "turns") if key in given), None)
        prompt, chat = _asked(asked, system, field)
        found.append(
            BlockPrompt(
                prompt,
                chat,
                _text(given.get("kind", kind), f"{field}.kind"),
                _text(given.get("language", language), f"{field}.language"),
            )
        )
    return tuple(found)


def _asked(
    asked: Any, system: tuple[Message, ...] | None, field: str
) -> tuple[str, tuple[Message, ...] | None]:
    """Returns the prompt of an entry, and its conversation if it has one.

    Where the edit was made in a chat, its prompts are asked in one, under the same system prompt.
    """
    if isinstance(asked, list) and asked and all(isinstance(turn, Mapping) for turn in asked):
        try:
            chat = tuple(Message.model_validate(turn) for turn in asked)
        except ValidationError:
            raise _wrong(
                field, "has a turn that is not an object of 'role' and 'content'"
            ) from None
    else:
        turns = [asked] if isinstance(asked, str) else asked
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise _wrong(field, "must be a text, a list of turns, or an object with 'prompt'")
        if len(turns) == 1 and system is None:
            return _text(turns[0], field), None
        # The user has the first turn and the last.
        spoken = [Message(role=_TURNS[n % 2], content=text) for n, text in enumerate(turns)]
        chat = (*(system or ()), *spoken)
    if not chat or chat[-1].role != "user":
        raise _wrong(field, "is a conversation that does not end with the user's turn")
    for turn in chat:
        _text(turn.content, field)
    return chat[-1].content, chat


def _system(chat: Any) -> tuple[Message, ...] | None:
    """Returns the system prompt of an edit made in a chat; None if it was not made in one."""
    if not isinstance(chat, list):
        return None
    found = [one for one in chat if isinstance(one, Mapping) and one.get("role") == "system"]
    return tuple(Message(role="system", content=str(one.get("content", ""))) for one in found)


def _text(value: Any, field: str) -> Any:
    """Returns a text, or None for none, having checked that it says something."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(field, f"must be a text, not {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(field, "holds a lone surrogate and is not valid Unicode") from None
    if not has_text(value):
        raise _wrong(field, "is empty")
    return value


def _wrong(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"'{field}' {reason}", field=field)
