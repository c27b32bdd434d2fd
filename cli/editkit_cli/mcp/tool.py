"""What a tool is: typed arguments, a typed result, what it changes, and who may call it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from mcp import types
from pydantic import Field
from pydantic.json_schema import GenerateJsonSchema

from editkit_cli.service.guard import Caller
from editkit_cli.service.runner import Runner
from editkit_cli.service.schemas import Body
from editkit_cli.service.tokens import Role
from editkit_store.records import Record

__all__ = ["Call", "Reason", "Said", "Tell", "Tool"]

Reason = Annotated[
    str | None,
    Field(max_length=10_000, description="Why, in a sentence; people read it in the history"),
]

Tell = Callable[[float, float | None, str], Awaitable[None]]
"""Told how much is done, of how much, and what is being done."""


@dataclass(frozen=True)
class Call:
    """What a tool is called with, beside its arguments.

    Attributes:
        runner: The running model.
        caller: Who asks.
        agent: Name and version of the client, where it says them.
        tell: Told about progress, where the client wants to know.
    """

    runner: Runner
    caller: Caller
    agent: str | None = None
    tell: Tell | None = None


Said = Callable[[Any], str]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: What it is called by.
        title: The same for people.
        about: When to use it, what it changes, what comes back and what to do next.
        takes: Its arguments.
        gives: Its result.
        act: Does it.
        said: What a model reads of a result.
        role: What a caller must be allowed to do.
        is_reading: It changes nothing.
        is_destructive: It takes something away, if only from use.
        is_idempotent: Twice with the same arguments is once.
    """

    name: str
    title: str
    about: str
    takes: type[Body]
    gives: type[Record]
    act: Callable[[Call, Any], Awaitable[Record]] = field(repr=False)
    said: Said = field(repr=False)
    role: Role = "read"
    is_reading: bool = True
    is_destructive: bool = False
    is_idempotent: bool = True

    @property
    def definition(self) -> types.Tool:
        """The tool as the protocol describes it."""
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.about,
            input_schema=self.takes.model_json_schema(schema_generator=_Untitled),
            # As a reader of the record would write it: fields that may be left out are not
            # required, and some records do leave them out.
            output_schema=self.gives.model_json_schema(schema_generator=_Untitled),
            annotations=types.ToolAnnotations(
                title=self.title,
                read_only_hint=self.is_reading,
                destructive_hint=self.is_destructive,
                idempotent_hint=self.is_idempotent,
                open_world_hint=False,  # one model and its history; nothing else is reached
            ),
        )


class _Untitled(GenerateJsonSchema):
    """Schemas without a title on each field, which says its name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
