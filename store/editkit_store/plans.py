"""Typed records of what a change would do, for whoever wants to know before it is made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from editkit_store.records import Candidate, Contradiction, Edit, Record

__all__ = ["AddPlan", "ViewPlan"]


class AddPlan(Record):
    """What an edit would meet if it were added now. Nothing was learned and nothing written."""

    version: str = Field(description="Current version, which this holds for")
    prompt: str
    target: str
    answer: str = Field(description="What the model says now")
    fired: str | None = Field(default=None, description="Edit that applies to the prompt now")
    is_answered: bool = Field(description="Whether the model gives the target already")
    supersedes: tuple[str, ...] = Field(
        default=(), description="Active edits of the same prompt, which it would replace"
    )
    conflicts: tuple[Contradiction, ...] = Field(
        default=(), description="Active edits with another target where it has its prompt"
    )
    nearest: tuple[Candidate, ...] = Field(
        default=(), description="Active edits near the prompt, nearest first"
    )
    known: str | None = Field(
        default=None, description="Edit that the idempotency key belongs to already"
    )


class ViewPlan(Record):
    """What a rollback, revert or undo would do. Nothing was changed."""

    version: str = Field(description="Current version, which this holds for")
    operation: Literal["rollback", "revert", "undo"]
    like: str | None = Field(
        default=None, description="Version whose edits would be the active ones; null of a revert"
    )
    view: int = Field(description="Number of active edits there would be")
    added: tuple[Edit, ...] = Field(default=(), description="Edits that would become active")
    removed: tuple[Edit, ...] = Field(default=(), description="Edits that would cease to apply")
