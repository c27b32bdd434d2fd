"""What comes of correcting a model: additions, replays, and plans of both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from editkit_store.records.answers import Candidate
from editkit_store.records.base import Record
from editkit_store.records.edits import Edit

__all__ = [
    "AddPlan",
    "Added",
    "Contradiction",
    "EditReach",
    "PlannedEdit",
    "ReplayFailure",
    "ReplayPlan",
    "Replayed",
    "ViewPlan",
]


class Contradiction(Record):
    """An active edit that gives another target where a new one has its prompt."""

    edit_id: str
    prompt: str
    target: str
    kind: Literal["prompt", "scope"] = Field(
        description="Both correct the same prompt, or the new prompt lies in the other's scope"
    )
    distance: float | None = Field(
        default=None, description="L2 distance from the new prompt to the other's key, for `scope`"
    )
    radius: float | None = Field(default=None, description="L2 radius of the other's scope")


class EditReach(Record):
    """How far an edit reaches, as it stands among the others."""

    radius: float = Field(description="L2, of its scope")
    rephrases: int = Field(description="Rephrases that were given")
    covered: int = Field(description="How many of them fire it")
    spared: int = Field(description="How many of the locality probes that were given do not")
    probes: int = Field(description="Locality probes that were given")
    nearest_edit: str | None = Field(default=None, description="Id of the nearest other edit")
    nearest_distance: float | None = Field(default=None, description="L2, between their keys")
    other_subject: float | None = Field(
        default=None,
        description="L2, to the same question about something else, as its words are weighted; "
        "null where it names nothing, and of keys that are hidden states",
    )
    other_question: float | None = Field(
        default=None, description="L2, to another question about the same subject, likewise"
    )
    false_fires: float | None = Field(
        default=None,
        description="Estimated share of unrelated prompts that fire it; null of hidden states",
    )
    answers: tuple[str, ...] = Field(
        default=(), description="Prompts in other words that fire it, tried where a judge decides"
    )
    leaves: tuple[str, ...] = Field(
        default=(), description="Prompts near its own that do not fire it, tried likewise"
    )
    near: tuple[str, ...] = Field(
        default=(), description="Ids of other active edits that its prompt might ask for"
    )
    summary: str = Field(description="The same in words")


class Carries(Record):
    """In how many contexts a model gives an edit's target by itself, the edit's prompt included."""

    right: int = Field(description="Contexts in which it does")
    of: int = Field(description="Contexts that were tried")


class Added(Record):
    """Result of `add`."""

    version: str = Field(description="Current version after the operation")
    verified: bool = Field(description="Free greedy generation gives the target")
    seconds: float = Field(description="Wall-clock seconds for learning and verification")
    edit: Edit
    before: str | None = Field(
        default=None, description="The model's answer before the edit, where that was asked"
    )
    answer: str = Field(description="The model's answer with the edit")
    carries: Carries | None = Field(
        default=None, description="Other contexts it holds in, where its method learns it there"
    )
    steps: int = Field(default=0, description="Optimizer steps taken")
    supersedes: tuple[str, ...] = Field(
        default=(), description="Edits of the same prompt that this one replaces"
    )
    conflicts: tuple[Contradiction, ...] = Field(
        default=(), description="Edits that were active and that this one contradicts"
    )
    lost: tuple[str, ...] = Field(
        default=(),
        description="Earlier edits of the same weights that do not give their target since this "
        "one was learned",
    )
    reach: EditReach | None = Field(
        default=None, description="How far it reaches; null of an edit that is not active"
    )
    outcome: Literal["added", "known", "kept"] = Field(
        default="added",
        description="`known`: the idempotency key was there, and `edit` is what came of it; "
        "`kept`: `edit` was active, contradicts the request, and was to be kept",
    )


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


class ReplayFailure(Record):
    """An edit that the model did not learn."""

    edit_id: str
    prompt: str
    target: str
    answer: str
    reason: str


class Replayed(Record):
    """Result of `replay`."""

    model: str
    fingerprint: str
    restored: int = Field(description="Edits whose artifacts were already there")
    learned: int = Field(description="Edits learned now")
    failed: int = Field(description="Edits that the model did not learn")
    seconds: float
    version: str
    failures: tuple[ReplayFailure, ...] = ()


class PlannedEdit(Record):
    """One edit of a replay that has not been run."""

    edit_id: str
    prompt: str
    target: str
    action: Literal["restore", "learn"]


class ReplayPlan(Record):
    """What a replay would do: result of `replay --dry-run`."""

    model: str
    fingerprint: str
    version: str = Field(description="Version whose edits would be replayed")
    restored: int = Field(description="Edits that the model has learned before")
    to_learn: int = Field(description="Edits that it would learn")
    edits: tuple[PlannedEdit, ...] = Field(default=(), description="Oldest first")
    seconds: float | None = Field(
        default=None,
        description="About how long learning would take: the median of what an edit took before, "
        "for each edit to learn; null where nothing was learned yet",
    )
    measured_on: Literal["this model", "other models"] | None = Field(
        default=None,
        description="Where `seconds` comes from; what other models took is not scaled",
    )
