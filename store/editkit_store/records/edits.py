"""Requests for corrections, and the edits that they become.

The fields of ``EditRequest`` define a request. A field marked as an ``EditColumn`` is also a column
of the table ``edits``, and inserting, verifying and searching follow from it; a new one needs a
migration that adds the column, and nothing else in the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from editkit_store.records.base import Record

__all__ = [
    "COLUMNS",
    "DEFAULT_METHOD",
    "SEARCHED",
    "Edit",
    "EditColumn",
    "EditKind",
    "EditRequest",
    "EditStatus",
    "Message",
    "MethodName",
    "ScopeName",
]

EditKind = Literal["fact", "label", "passage"]
MethodName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
"""Name of an editing method: lowercase letters, digits, hyphens; see the registry of methods."""
DEFAULT_METHOD = "grace"
"""Default method of a request."""

EditStatus = Literal["active", "superseded", "reverted", "failed"]
ScopeName = Literal["strict", "balanced", "broad"]

_FIRST = frozenset(
    "prompt target kind method subject rephrases locality chat reason author source".split()
)
"""Fields of the first release, which are always written. Later fields are written only if set, so
that requests without them keep their bytes and digests."""


@dataclass(frozen=True)
class EditColumn:
    """Marks a field of a request that is also a column of the table ``edits``.

    Columns are in the order of the fields. A new one is a nullable text and comes last, where a
    migration adds it.

    Attributes:
        is_searched: Whether ``log`` searches it.
    """

    is_searched: bool = True


class Message(Record):
    """One turn of a conversation, in the format of chat templates."""

    role: str = Field(description="`system`, `user` or `assistant`")
    content: str


class EditRequest(Record):
    """A correction, independent of any model."""

    prompt: Annotated[str, EditColumn()] = Field(
        description="Input to correct; in a chat, the last user turn"
    )
    target: Annotated[str, EditColumn()] = Field(
        description="Text (or class label) that the model should give instead"
    )
    kind: Annotated[EditKind, EditColumn(is_searched=False)] = "fact"
    method: Annotated[MethodName, EditColumn(is_searched=False)] = DEFAULT_METHOD
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
        description="How far the edit reaches, by a method whose edits have a scope of their own; "
        "by default as the model was opened",
    )
    reason: str | None = None
    author: str | None = None
    source: str | None = Field(
        default=None, description="Where the request came from, e.g. an id in a data file"
    )
    agent: str | None = Field(
        default=None, description="Program that requests it, if it is not a person"
    )
    conversation: str | None = Field(
        default=None, description="Id of the conversation in which the wrong answer was seen"
    )
    idempotency_key: Annotated[str | None, EditColumn(is_searched=False)] = Field(
        default=None, description="The same key twice is one edit, however often it is sent"
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if value is not None or name in _FIRST}


def _columns() -> dict[str, EditColumn]:
    return {
        name: mark
        for name, field in EditRequest.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, EditColumn)
    }


COLUMNS: tuple[str, ...] = tuple(_columns())
"""Fields of a request that are columns of the table ``edits``, in order."""

SEARCHED: tuple[str, ...] = tuple(name for name, one in _columns().items() if one.is_searched)
"""Those of ``COLUMNS`` that ``log`` searches."""


class Edit(EditRequest):
    """An edit in the history: the request, its id, and its status at the requested version."""

    id: str = Field(description="16 hex digits; any unique prefix names the edit")
    time: datetime = Field(description="When it was added, UTC")
    status: EditStatus = "active"
