"""Definition of a tool: typed arguments and result, effects, and the role that it needs."""

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
"""Reports progress: how much is done, of how much, and what is being done."""


@dataclass(frozen=True)
class Call:
    """Context of a call.

    Attributes:
        runner: The running model.
        caller: Who calls.
        agent: Name and version of the client, if it states them.
        tell: Reports progress, if the client asks for it.
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
        name: Its name.
        title: Its name for people.
        about: When to use it, what it changes, what comes back and what to do next.
        takes: Schema of its arguments.
        gives: Schema of its result.
        act: Handles a call.
        said: Renders a result as text for a model.
        role: Role that a caller needs.
        is_reading: Whether it changes nothing.
        is_destructive: Whether it deactivates something.
        is_idempotent: Whether calling it twice with the same arguments has the same effect.
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
        """The definition that the protocol sends."""
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.about,
            input_schema=self.takes.model_json_schema(schema_generator=_Untitled),
            # The validation schema: some records leave fields out, so these must not be required.
            output_schema=self.gives.model_json_schema(schema_generator=_Untitled),
            annotations=types.ToolAnnotations(
                title=self.title,
                read_only_hint=self.is_reading,
                destructive_hint=self.is_destructive,
                idempotent_hint=self.is_idempotent,
                open_world_hint=False,  # it reaches only one model and its history
            ),
        )


class _Untitled(GenerateJsonSchema):
    """Schemas without a title for each field, which would repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
