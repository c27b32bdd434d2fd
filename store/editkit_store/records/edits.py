"""What somebody wants corrected: the request, and the edit that it becomes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from editkit_store.records.base import Record

__all__ = [
    "DEFAULT_METHOD",
    "Edit",
    "EditKind",
    "EditRequest",
    "EditStatus",
    "Message",
    "MethodName",
    "ScopeName",
]

EditKind = Literal["fact", "label", "passage"]
MethodName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
"""Name of an editing method: small letters, digits, hyphens. Which there are, packages say."""
DEFAULT_METHOD = "grace"
"""Method of a request that names none."""

EditStatus = Literal["active", "superseded", "reverted", "failed"]
ScopeName = Literal["strict", "balanced", "broad"]

_LATER = ("agent", "conversation", "idempotency_key", "scope")
"""Fields of a request that came later: without them it has the bytes, and the digest, that it
always had."""


class Message(Record):
    """One turn of a conversation, as chat templates take it."""

    role: str = Field(description="`system`, `user` or `assistant`")
    content: str


class EditRequest(Record):
    """What somebody wants corrected, independent of any model."""

    prompt: str = Field(description="Input to correct; in a chat, the last user turn")
    target: str = Field(description="Text (or class label) that the model should give instead")
    kind: EditKind = "fact"
    method: MethodName = DEFAULT_METHOD
    subject: str | None = Field(default=None, description="What the prompt is about")
    rephrases: tuple[str, ...] = Field(
        default=(), description="Other wordings of the prompt that should give the target too"
    )
    locality: tuple[str, ...] = Field(
        default=(), description="Prompts whose answers must not change"
    )
    chat: tuple[Message, ...] | None = Field(
        default=None, description="The conversation up to and including the corrected user turn"
    )
    scope: ScopeName | None = Field(
        default=None,
        description="How far an edit of GRACE reaches that is looked up by its words; by default "
        "as the model was opened",
    )
    reason: str | None = None
    author: str | None = None
    source: str | None = Field(
        default=None, description="Where the request came from, e.g. an id in a data file"
    )
    agent: str | None = Field(
        default=None, description="Program that asks for it, where it is not a person"
    )
    conversation: str | None = Field(
        default=None, description="Id of the conversation in which the wrong answer was seen"
    )
    idempotency_key: str | None = Field(
        default=None, description="The same key twice is one edit, however often it is sent"
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {
            name: value for name, value in found.items() if value is not None or name not in _LATER
        }


class Edit(EditRequest):
    """An edit in the history: the request, its id, and its state at the version asked about."""

    id: str = Field(description="16 hex digits; any unique prefix names the edit")
    time: datetime = Field(description="When it was added, UTC")
    status: EditStatus = "active"
