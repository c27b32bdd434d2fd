"""Reading the contents of a bundle, with every part checked against the others.

Its log is a chain from the first operation to the head. The log contains the digest of every
edit's request and of every artifact's record, which contains the digest of the tensors. So
everything returned here belongs to the history with that head. Only artifacts that were stored
after the version of the bundle, or with a schema before 3, are covered only by the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from editkit_store.artifacts.artifacts import record_digest, stored_row
from editkit_store.artifacts.snapshots import Snapshot
from editkit_store.bundle.folder import (
    ARTIFACTS,
    EDITS,
    MANIFEST,
    OPERATIONS,
    SNAPSHOTS,
    Reader,
    is_tensor_file,
    tensor_file,
)
from editkit_store.bundle.records import BundledArtifact, BundledEdit, BundledOperation, Origin
from editkit_store.bundle.snapshots import read_snapshots
from editkit_store.digest import digest_json
from editkit_store.history.adjustments import ReachChange, changes_of, summed
from editkit_store.history.queries import RESTORING
from editkit_store.records import Adjustments, Edit

__all__ = ["Contents", "read_contents"]


class Contents(NamedTuple):
    """A bundle that was read and checked.

    Attributes:
        reader: Reads its tensors.
        edits: Its edits, oldest first, with their status in the exporting history.
        requests: Digest of each edit's request.
        artifacts: Artifacts of the edits.
        snapshots: The weights that edits share, by owner.
        adjustments: What was said about the reach of its edits.
    """

    reader: Reader
    edits: list[Edit]
    requests: dict[str, str]
    artifacts: list[BundledArtifact]
    snapshots: dict[str, Snapshot]
    adjustments: dict[str, Adjustments]


def read_contents(path: Path) -> Contents:
    """Reads a bundle and checks all of it.

    Raises:
        BundleNotFound: There is no bundle.
        BundleTooNew: It was exported by a newer editkit.
        BundleDamaged: It is not as an export wrote it.
    """
    reader = Reader(path)
    reader.check_names()
    log = _Log(reader)
    edits, requests = _edits(reader, log)
    artifacts = _artifacts(reader, log, requests)
    snapshots = read_snapshots(reader, log.snapshots())
    _tensors(reader, artifacts, snapshots.files)
    found = {
        "edits": len(edits),
        "artifacts": len(artifacts),
        "operations": len(log.operations),
        "tensors": sum(map(is_tensor_file, reader.manifest.files)),
    }
    for name, count in reader.manifest.counts.model_dump().items():
        if found[name] != count:
            raise reader.damaged(MANIFEST, f"counts {count} {name}; there are {found[name]}")
    adjustments = {
        edit_id: said for edit_id, said in log.adjustments().items() if edit_id in requests
    }
    return Contents(reader, edits, requests, artifacts, snapshots.found, adjustments)


class _Log:
    """The log of a bundle, with its chain of digests verified.

    Attributes:
        operations: By position in the log.
        provenances: By position in the log.
        times: When each edit was added, by its id.
        requests: Digest of each edit's request, by its id.
        records: Latest digest of an artifact's record, by edit and model.
        placed: Changes of shared weights by owner: version, operation and digest.
        changes: What operations say about the reach of edits, in order.
        restores: Versions that restored an older one, and which.
    """

    def __init__(self, reader: Reader) -> None:
        self.operations: dict[int, Origin] = {}
        self.provenances: dict[int, Any] = {}
        self.times: dict[str, str] = {}
        self.requests: dict[str, str] = {}
        self.records: dict[tuple[str, str], str] = {}
        self.placed: dict[str, list[tuple[int, int, str | None]]] = {}
        self.changes: list[ReachChange] = []
        self.restores: dict[int, int] = {}
        parent, version = None, 0
        for seq, (found, plain) in enumerate(reader.records(OPERATIONS, BundledOperation), 1):
            if (found.seq, found.parent_digest) != (seq, parent):
                raise reader.damaged(OPERATIONS, f"breaks off before operation {seq}")
            if digest_json({k: v for k, v in plain.items() if k != "digest"}) != found.digest:
                raise reader.damaged(OPERATIONS, f"has an operation {seq} that was altered")
            version += found.changed
            if found.version != version:
                raise reader.damaged(OPERATIONS, f"skips a version at operation {seq}")
            parent = found.digest
            self.operations[seq] = Origin(seq=seq, version=version, digest=parent)
            self.provenances[seq] = plain["provenance"]
            self._collect(found)
            if found.changed:
                self._collect_reach(reader, found)
        if parent != reader.manifest.head:
            raise reader.damaged(OPERATIONS, "does not end with the head that the manifest gives")
        if version != reader.manifest.version:
            raise reader.damaged(MANIFEST, f"is of another version than the log's, v{version}")

    def _collect(self, operation: BundledOperation) -> None:
        """Collects an operation's data about edits and artifacts."""
        detail, edit_id, model = operation.detail, operation.edit_id, operation.fingerprint
        if operation.kind == "add" and edit_id is not None:
            self.requests[edit_id] = str(detail.get("request"))
            self.times[edit_id] = operation.time.isoformat()
            if model is not None and "record" in detail:
                self.records[edit_id, model] = str(detail["record"])
        self.requests |= {one: str(digest) for one, digest in _mapping(detail, "requests").items()}
        for one, place in _mapping(detail, "snapshots").items():
            if isinstance(place, list) and len(place) == 2 and isinstance(place[0], int):
                digest = None if place[1] is None else str(place[1])
                self.placed.setdefault(one, []).append((place[0], operation.seq, digest))
        for one, digest in _mapping(detail, "records").items():
            if isinstance(digest, dict):  # of several models, from an import
                self.records |= {(one, place): str(record) for place, record in digest.items()}
            elif model is not None:
                self.records[one, model] = str(digest)

    def _collect_reach(self, reader: Reader, operation: BundledOperation) -> None:
        """Collects what an operation says about the reach of edits, or which version it restored.

        Raises:
            BundleDamaged: It is not as an adjustment writes it.
        """
        target = operation.target_version
        if operation.kind in RESTORING and target is not None and target < operation.version:
            self.restores[operation.version] = target
        try:
            for one in changes_of(
                operation.kind, operation.version, operation.edit_id, operation.detail
            ):
                Adjustments(also=tuple(one.also), exclude=tuple(one.exclude))
                self.changes.append(one)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            where = f"has an operation {operation.seq} whose adjustments cannot be read"
            raise reader.damaged(OPERATIONS, where) from error

    def adjustments(self) -> dict[str, Adjustments]:
        """Returns what was said about the reach of edits at the end of the log."""
        version = max((one.version for one in self.operations.values()), default=0)
        return summed(self.changes, self.restores, version)

    def snapshots(self) -> dict[str, str | None]:
        """Returns the digest of each owner's weights at the end of the log."""
        return {owner: max(rows, key=itemgetter(0, 1))[2] for owner, rows in self.placed.items()}


def _mapping(detail: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = detail.get(name)
    return found if isinstance(found, dict) else {}


def _edits(reader: Reader, log: _Log) -> tuple[list[Edit], dict[str, str]]:
    edits: list[Edit] = []
    requests: dict[str, str] = {}
    for line, plain in reader.records(EDITS, BundledEdit):
        name = f"edit {line.id}"
        if line.id in requests:
            raise reader.damaged(EDITS, f"has {name} twice")
        if line.operation != log.operations.get(line.operation.seq):
            raise reader.damaged(EDITS, f"has {name} from an operation that the log does not have")
        said = log.provenances[line.operation.seq], log.times.get(line.id, plain["time"])
        if said != (plain["provenance"], plain["time"]):
            raise reader.damaged(EDITS, f"has {name} with another provenance or time than its log")
        edit = Edit(
            **{
                **line.request.__dict__,
                "id": line.id,
                "time": _utc(reader, EDITS, line.time, plain["time"]),
            },
            status=line.status,
        )
        # As exported, and as it would be stored here.
        stored = edit.model_dump(mode="json", exclude={"id", "time", "status"})
        digests = {digest_json(plain["request"]), digest_json(stored), log.requests.get(line.id)}
        if len(digests) > 1:
            raise reader.damaged(EDITS, f"has {name} with another request than the log's")
        edits.append(edit)
        requests[line.id] = digest_json(stored)
    return edits, requests


def _artifacts(reader: Reader, log: _Log, edits: Mapping[str, str]) -> list[BundledArtifact]:
    found: dict[tuple[str, str], BundledArtifact] = {}
    is_whole = reader.manifest.version == reader.manifest.current
    for line, plain in reader.records(ARTIFACTS, BundledArtifact):
        key = line.edit_id, line.fingerprint
        name = f"the artifact of edit {line.edit_id} on {line.fingerprint}"
        learned_at = _utc(reader, ARTIFACTS, line.learned_at, plain["learned_at"])
        if line.edit_id not in edits or key in found:
            raise reader.damaged(ARTIFACTS, f"has {name} twice, or without its edit")
        if line.usable and line.digest is None:
            raise reader.damaged(ARTIFACTS, f"has {name} without tensors")
        # After the version of an older bundle, an edit may have been learned again.
        record = log.records.get(key)
        if is_whole and record not in (None, record_digest(stored_row(line, learned_at))):
            raise reader.damaged(ARTIFACTS, f"has {name} with another record than the log's")
        found[key] = line
    for key in log.records if is_whole else ():
        if key[0] in edits and key not in found:
            raise reader.damaged(ARTIFACTS, f"lacks the artifact of edit {key[0]} on {key[1]}")
    return list(found.values())


def _tensors(reader: Reader, artifacts: list[BundledArtifact], more: set[str]) -> None:
    """Checks that exactly the tensors of the artifacts are present, and reads them all.

    Args:
        reader: Reads them.
        artifacts: The artifacts.
        more: Files of snapshots, which are checked elsewhere.
    """
    needed = {tensor_file(one.digest) for one in artifacts if one.digest is not None}
    listed = reader.manifest.files.keys() - {EDITS, ARTIFACTS, OPERATIONS, SNAPSHOTS, *more}
    for name in sorted(needed - listed):
        raise reader.damaged(name, "is missing")
    for name in sorted(listed - needed):
        raise reader.damaged(name, "belongs to no artifact")
    for name in sorted(listed):
        if tensor_file(reader.manifest.files[name].sha256) != name:
            raise reader.damaged(name, "is not named by its SHA-256")
        reader.read(name)


def _utc(reader: Reader, name: str, time: datetime, text: str) -> datetime:
    """Returns a time with its zone; raises if it is not in the format of an export."""
    if time.tzinfo is not None or time.isoformat() != text:
        raise reader.damaged(name, "has a time that is not UTC in the form of an export")
    return time.replace(tzinfo=UTC)
