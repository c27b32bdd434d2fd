"""Records of adjustments: prompts that an edit also applies to, or must not apply to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from editkit_store.records.base import Record
from editkit_store.records.edits import Edit

__all__ = [
    "Adjusted",
    "AdjustedPrompt",
    "AdjustmentChange",
    "Adjustments",
    "Stance",
]

Stance = Literal["also", "not"]
"""What an adjustment says of a prompt: the edit also applies to it, or must not apply to it."""


class Adjustments(Record):
    """All that was said about the reach of one edit, up to a version."""

    also: tuple[str, ...] = Field(default=(), description="Prompts that the edit also applies to")
    exclude: tuple[str, ...] = Field(
        default=(), alias="not", description="Prompts that it must not apply to"
    )

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return bool(self.also or self.exclude)


class AdjustedPrompt(Record):
    """A prompt that an edit shall also apply to, and what the model answers to it with the edit."""

    prompt: str
    carries: bool = Field(description="Free greedy generation gives the edit's target there")
    answer: str = Field(description="The model's answer")


class Adjusted(Record):
    """Result of `adjust`."""

    version: str = Field(description="Current version after the operation")
    operation: Literal["adjust"] = "adjust"
    outcome: Literal["adjusted", "failed", "known"] = Field(
        description="`failed`: an `also` prompt does not carry, so the reach is as before; "
        "`known`: the reach was so already, and nothing was recorded"
    )
    verified: bool = Field(description="The edit's target is given at every `also` prompt")
    edit: Edit
    also: tuple[AdjustedPrompt, ...] = ()
    exclude: tuple[str, ...] = Field(default=(), alias="not")
    adjustments: Adjustments = Field(
        description="All adjustments of the edit together; of a dry run, as they would be"
    )
    view: int = Field(description="Number of active edits")
    dry_run: bool = Field(default=False, description="Nothing was recorded")


class AdjustmentChange(Record):
    """A prompt that two versions say different things of, for one edit that is active at one."""

    edit_id: str
    edit_prompt: str = Field(description="The edit's own prompt")
    target: str
    prompt: str
    before: Stance | None = None
    after: Stance | None = None
