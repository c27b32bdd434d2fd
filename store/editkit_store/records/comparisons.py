"""Typed records of comparisons between two versions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from editkit_store.records.adjusting import AdjustmentChange
from editkit_store.records.base import Record
from editkit_store.records.edits import Edit

__all__ = [
    "AdaptorChange",
    "BehaviorChange",
    "CodebookDiff",
    "CodebookPlot",
    "CodebookRow",
    "CodesDiff",
    "Diff",
    "ExpertChange",
    "QuestionKind",
    "RadiusChange",
    "Unasked",
]

QuestionKind = Literal["edit", "rephrase", "locality", "probe"]


class CodebookRow(Record):
    """One codebook row at a version."""

    edit_id: str
    radius: float


class RadiusChange(Record):
    """A row that two versions share with different radii."""

    edit_id: str
    before: float
    after: float


class CodebookDiff(Record):
    """How the GRACE codebook of one model differs between two versions."""

    added: int = 0
    removed: int = 0
    radius_changed: int = 0
    added_rows: tuple[CodebookRow, ...] = ()
    removed_rows: tuple[CodebookRow, ...] = ()
    changed_rows: tuple[RadiusChange, ...] = ()
    missing: tuple[str, ...] = Field(
        default=(), description="Active edits that this model has not learned"
    )
    fingerprint: str | None = Field(default=None, description="Model whose codebook is compared")


class CodebookPlot(Record):
    """Result of `codebook plot`."""

    path: str = Field(description="The picture, PNG")
    version: str
    rows: int = Field(description="Rows of the codebook")
    shrunk: int = Field(description="Rows whose radius gave way to another edit")
    conflicts: int = Field(description="Pairs of rows with other targets that could meet")


class ExpertChange(Record):
    """How one expert of an adaptor layer differs between two versions."""

    expert: int
    delta_norm: float = Field(description="Frobenius norm of the change of its product B A")


class AdaptorChange(Record):
    """How one adaptor layer differs between two versions."""

    layer: str = Field(description="Dotted path of the adapted module")
    delta_norm: float = Field(
        description="Frobenius norm of the weight change, over all of its experts: of the change "
        "of alpha / r B A"
    )
    router_drift: float = Field(default=0.0, description="Frobenius norm of the router's change")
    experts: tuple[ExpertChange, ...] = Field(
        default=(), description="Experts that changed, first to last"
    )


class CodesDiff(Record):
    """Which allocation codes differ between two versions; those of inactive edits count too."""

    added: tuple[str, ...] = Field(default=(), description="Edits whose codes came")
    removed: tuple[str, ...] = Field(default=(), description="Edits whose codes went")
    changed: tuple[str, ...] = Field(default=(), description="Edits with another code")
    threshold_before: int | None = Field(default=None, description="Bits; null without adaptors")
    threshold_after: int | None = Field(default=None, description="Bits; null without adaptors")


class BehaviorChange(Record):
    """What one model answers to a prompt at two versions."""

    prompt: str = Field(description="In a chat, the last user turn")
    kind: QuestionKind = Field(
        description="The prompt of an edit, one of its rephrases, one of its locality prompts, or "
        "a probe that somebody asked for"
    )
    edit_id: str | None = Field(default=None, description="Edit that the prompt comes from")
    target: str | None = Field(default=None, description="What that edit wants to be answered")
    before: str = Field(description="Greedy answer at `from`")
    after: str = Field(description="Greedy answer at `to`")
    changed: bool = Field(description="Whether the two answers differ")
    fired_before: tuple[str, ...] = Field(default=(), description="Edits that applied at `from`")
    fired_after: tuple[str, ...] = Field(default=(), description="Edits that applied at `to`")


class Unasked(Record):
    """A prompt of an edit that this model cannot be asked, e.g. one too long for it."""

    prompt: str
    kind: QuestionKind
    edit_id: str
    reason: str


class Diff(Record):
    """What changed between two versions."""

    from_: str = Field(alias="from")
    to: str
    added: tuple[Edit, ...] = Field(default=(), description="Active at `to`, not at `from`")
    removed: tuple[Edit, ...] = Field(default=(), description="Active at `from`, not at `to`")
    adjusted: tuple[AdjustmentChange, ...] = Field(
        default=(), description="Prompts that the versions say different things of, for an edit"
    )
    codebook: CodebookDiff = CodebookDiff()
    adaptors: tuple[AdaptorChange, ...] = Field(
        default=(), description="Adaptor layers that differ, first to last"
    )
    codes: CodesDiff = CodesDiff()
    details: dict[str, dict[str, Any]] = Field(
        default={}, description="What other methods say differs, by the method"
    )
    behavior: tuple[BehaviorChange, ...] = Field(
        default=(), description="Answers at both versions, where they were asked for"
    )
    unasked: tuple[Unasked, ...] = Field(
        default=(), description="Prompts that belong into `behavior` but cannot be asked"
    )
