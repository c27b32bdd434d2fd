"""Typed records of bundles: the lines of their files, and the results of export and import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from editkit_store.records import (
    Artifact,
    EditRequest,
    OperationKind,
    Provenance,
    Record,
)

__all__ = [
    "BundleSelection",
    "BundledArtifact",
    "BundledEdit",
    "BundledFile",
    "BundledOperation",
    "BundledSnapshot",
    "Clash",
    "Compare",
    "Counts",
    "Exported",
    "Imported",
    "Manifest",
    "OnConflict",
    "Origin",
    "TensorLine",
]

OnConflict = Literal["keep", "supersede", "error"]
"""Whose edit is active: ``keep`` this store's, ``supersede`` it; ``error``: import nothing."""

Compare = Callable[[Mapping[str, Sequence[str]]], Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Takes the edits with imported artifacts, by model; returns conflicts, by model and edit."""

Digest = Annotated[str, Field(pattern=r"\Asha256:[0-9a-f]{64}\z")]
EditId = Annotated[str, Field(pattern=r"\A[0-9a-f]{16}\z")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
MAX_FINGERPRINT = 200
"""Maximum length of a fingerprint in a bundle, characters."""


class Exported(Record):
    """Result of `export`."""

    bundle: str = Field(description="The folder")
    version: str = Field(description="Version that it was made from")
    head: str | None = Field(
        description="Digest of the newest operation in the bundle's log; kept elsewhere, it pins "
        "the history that the edits come from"
    )
    manifest: str = Field(description="Digest of `manifest.json`; it pins every byte of the bundle")
    edits: int
    artifacts: int
    tensors: int
    bytes: int = Field(description="Bytes of all its files")


class Clash(Record):
    """An edit of a bundle, and the edit of this store that conflicts with it."""

    edit_id: str
    prompt: str
    target: str
    ours: str = Field(description="Id of our edit")
    our_target: str


class Imported(Record):
    """Result of `import`."""

    bundle: str = Field(description="The folder")
    head: str | None = Field(description="Head of the log that the bundle was made from")
    manifest: str = Field(description="Digest of its `manifest.json`")
    version: str = Field(description="Version after the import; of a dry run, what it would be")
    view: int = Field(description="Number of active edits then")
    operation: OperationKind = "import"
    edits: tuple[str, ...] = Field(default=(), description="Edits that were brought, oldest first")
    active: tuple[str, ...] = Field(default=(), description="Those of them that are active now")
    adjusted: tuple[str, ...] = Field(
        default=(),
        description="Edits, brought or known, that prompts were added to or excluded from as in "
        "the bundle; where ours says something of a prompt already, that is kept",
    )
    known: tuple[str, ...] = Field(default=(), description="Edits that were here already")
    kept: tuple[Clash, ...] = Field(
        default=(),
        description="Edits brought that are not active, because an active edit of ours corrects "
        "the same prompt",
    )
    superseded: tuple[Clash, ...] = Field(
        default=(), description="Edits brought that took the place of an active edit of ours"
    )
    same_key: tuple[Clash, ...] = Field(
        default=(),
        description="Edits left out, because one of ours has the same idempotency key",
    )
    artifacts: int = Field(default=0, description="Artifacts that were brought")
    models: tuple[str, ...] = Field(default=(), description="Models of these, by fingerprint")
    snapshots: tuple[str, ...] = Field(
        default=(),
        description="Models, by fingerprint, that now have the shared weights of the bundle: they "
        "had none here",
    )
    unplaced: tuple[str, ...] = Field(
        default=(),
        description="Models that keep the shared weights they had here; `replay` learns the "
        "bundle's edits into them",
    )
    elsewhere: int = Field(
        default=0,
        description="Artifacts left out, because they were learned at another module of a model "
        "than ours on it; `replay` learns those edits",
    )
    learned: dict[str, int] = Field(
        default_factory=dict,
        description="How many of `active` each model has learned, by its fingerprint",
    )
    dry_run: bool = Field(default=False, description="Nothing was written")


# The files. ----------------------------------------------------------------------------------


class BundledFile(Record):
    """The manifest's entry for one of the other files."""

    bytes: Count
    sha256: str = Field(pattern=r"\A[0-9a-f]{64}\z")


class BundleSelection(Record):
    """The version expressions that chose the edits."""

    to: str
    from_: str | None = Field(alias="from")
    only: str | None


class Counts(Record):
    """Numbers of items of each kind."""

    edits: Count
    artifacts: Count
    operations: Count
    tensors: Count


class Manifest(Record):
    """`manifest.json`."""

    format: str
    tool: str
    version: Count = Field(description="Number of the version that the bundle was made from")
    current: Count = Field(description="Number of the version that was current then")
    selection: BundleSelection
    head: Digest | None
    counts: Counts
    files: dict[str, BundledFile]


class Origin(Record):
    """The operation that added an edit in the exporting history."""

    seq: Count
    version: Count
    digest: Digest


class BundledEdit(Record):
    """A line of `edits.jsonl`."""

    id: EditId
    time: datetime = Field(description="UTC, without a zone")
    status: Literal["active", "superseded"]
    request: EditRequest
    operation: Origin
    provenance: Provenance


class BundledArtifact(Artifact):
    """A line of `artifacts.jsonl`."""

    edit_id: EditId
    fingerprint: str = Field(max_length=MAX_FINGERPRINT)
    digest: Digest | None
    learned_at: datetime = Field(description="UTC, without a zone")


TensorLine = tuple[Literal["U8", "I16", "F16", "BF16", "F32", "I64"], tuple[Count, ...], Digest]
"""Dtype, shape and digest of a tensor of a snapshot."""


class BundledSnapshot(Record):
    """A line of `snapshots.jsonl`."""

    fingerprint: str = Field(max_length=MAX_FINGERPRINT)
    digest: Digest = Field(description="Of the canonical JSON of `settings` and `tensors`")
    settings: dict[str, Any]
    tensors: dict[str, TensorLine]


class BundledOperation(Record):
    """A line of `operations.jsonl`: the data that the operation's digest covers, and the digest."""

    seq: Count
    kind: OperationKind
    version: Count
    changed: bool
    edit_id: str | None
    target_version: Count | None
    undo_version: Count | None
    redo_version: Count | None
    active_count: Count
    time: datetime = Field(description="UTC, without a zone")
    fingerprint: str | None
    provenance: dict[str, Any]
    detail: dict[str, Any]
    parent_digest: Digest | None
    membership: tuple[tuple[int, str, bool], ...]
    digest: Digest
