"""Typed records of the history: operations, versions, artifacts, and the store's status."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from editkit_store.records.adjusting import Adjustments
from editkit_store.records.base import Record
from editkit_store.records.edits import Edit, EditStatus, MethodName

__all__ = [
    "Artifact",
    "Compacted",
    "Initialized",
    "Learned",
    "LogEntry",
    "OperationKind",
    "Problem",
    "Provenance",
    "Shown",
    "Status",
    "Table",
    "Tagged",
    "Verified",
    "ViewChanged",
]

OperationKind = Literal[
    "add", "adjust", "revert", "rollback", "undo", "redo", "tag", "replay", "import"
]


class Artifact(Record):
    """What one model learned for one edit; its tensors are separate safetensors bytes."""

    edit_id: str
    fingerprint: str = Field(description="Fingerprint of the model that learned it")
    model: str = Field(
        description="Name that the model was loaded by; for people, not for identity"
    )
    method: MethodName
    verified: bool = Field(description="Free greedy generation gave the target")
    usable: bool = Field(description="Takes part in views; false for a failed attempt")
    digest: str | None = Field(default=None, description="Digest of the safetensors payload")
    metrics: dict[str, Any] = Field(
        default_factory=dict, description="steps, loss, margin, seconds, answer, ..."
    )
    conflicts: dict[str, float] | None = Field(
        default=None,
        description="Earlier edits with another target whose scope could meet this one's, and the "
        "L2 distances of their keys; null if unknown",
    )
    radius: float | None = Field(
        default=None, description="Initial L2 radius of the edit's scope, float32"
    )


class Learned(Record):
    """Outcome of learning and verifying one edit on one model."""

    edit_id: str
    verified: bool
    answer: str = Field(description="What free greedy generation gave after the edit")
    seconds: float
    steps: int = Field(description="Optimizer steps taken")


class Provenance(Record):
    """Who made an operation, with which tool, and why."""

    author: str | None = None
    agent: str | None = None
    conversation: str | None = None
    user: str | None = None
    host: str | None = None
    command: str | None = Field(default=None, description="Command line or API call")
    tool: str | None = Field(default=None, description="Tool and version, e.g. `editkit 0.1.0`")
    reason: str | None = None


class LogEntry(Record):
    """One operation, as `log` lists it."""

    seq: int = Field(description="Position in the append-only log, from 1")
    version: str = Field(description="Version after the operation")
    operation: OperationKind
    changed: bool = Field(description="Whether the operation made `version` (else it was current)")
    edit_id: str | None = None
    prompt: str | None = None
    target: str | None = None
    method: MethodName | None = None
    status: EditStatus | None = Field(
        default=None, description="State of the edit at the version the log is read at"
    )
    author: str | None = None
    reason: str | None = None
    time: datetime
    tags: tuple[str, ...] = ()
    detail: str = Field(default="", description="What the operation did, in a few words")
    digest: str = Field(description="Digest of the operation, chained to the one before")


class Shown(Record):
    """Result of `show`: one version in full."""

    version: str
    tags: tuple[str, ...] = ()
    view: int = Field(description="Number of active edits at this version")
    operation: LogEntry | None = Field(default=None, description="What made it; null for v0")
    provenance: Provenance | None = None
    edit: Edit | None = None
    adjustments: Adjustments | None = Field(
        default=None,
        description="What was said about the edit's reach up to this version, or now for an edit's "
        "id; null if nothing was",
    )
    artifacts: tuple[Artifact, ...] = Field(
        default=(), description="What the edit became, one per model"
    )
    edits: tuple[Edit, ...] = Field(default=(), description="Active edits, oldest first")


class ViewChanged(Record):
    """Result of `rollback`, `revert`, `undo` and `redo`."""

    version: str
    view: int = Field(description="Number of active edits")
    operation: OperationKind
    detail: str = ""
    relearned: tuple[str, ...] = Field(
        default=(), description="Later edits of the same weights that a revert learned again"
    )
    lost: tuple[str, ...] = Field(default=(), description="Edits that do not hold since")


class Tagged(Record):
    """Result of `tag`."""

    tag: str
    version: str


class Status(Record):
    """Result of `status`."""

    version: str
    edits: int = Field(description="Number of active edits")
    model: str | None = Field(default=None, description="Model that the store remembers")
    fingerprint: str | None = None
    store_bytes: int = Field(description="Bytes on disk, write-ahead log included")
    space: dict[str, int] = Field(
        default_factory=dict,
        description="Bytes of the file by what they hold: tensors, artifacts, edits, log, free; "
        "and of the write-ahead log",
    )
    store: str
    operations: int
    schema_version: int
    tags: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = Field(default=(), description="What somebody should look at")
    models: dict[str, int] = Field(
        default_factory=dict, description="Usable artifacts per model fingerprint"
    )
    server: str | None = Field(
        default=None, description="Where the server answers that holds the store and was asked"
    )


class DecisionChange(Record):
    """A prompt that is decided otherwise; null where no edit fires."""

    prompt: str
    before: str | None = Field(description="Id of the edit that fired")
    after: str | None = Field(description="Id of the edit that fires then")


class Migrated(Record):
    """Result of `migrate`."""

    from_: str = Field(alias="from", description="The judge before")
    to: str
    changed: bool = Field(description="Whether the history has the new judge now")
    edits: int = Field(description="Active edits")
    asked: int = Field(description="Prompts that were compared")
    changes: tuple[DecisionChange, ...] = ()


class Initialized(Record):
    """Result of `init`."""

    store: str
    model: str | None
    version: str


class Problem(Record):
    """A problem found by a verification."""

    kind: Literal["file", "schema", "operation", "edit", "artifact", "snapshot", "tensor", "tag"]
    name: str = Field(description="Which one: an operation's number, an edit's id, a digest, ...")
    message: str


class Verified(Record):
    """Result of `verify`."""

    ok: bool
    checked: int = Field(description="Rows whose digests were derived anew")
    problems: tuple[Problem, ...] = ()
    head: str | None = Field(
        default=None,
        description="Digest of the newest operation: kept elsewhere, it pins the whole history",
    )


class Compacted(Record):
    """Result of `compact`."""

    store: str
    before: int = Field(description="Bytes of the file")
    after: int = Field(description="Bytes of the file")
    dropped_tensors: int = Field(description="Tensors that no artifact named any more")


class Table(Record):
    """Result of `sql`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
