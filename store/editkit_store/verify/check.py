"""Verification: recomputes every digest of a store, and compares everything with the log.

The log is a chain: an operation's digest covers its own row, its changes to the set of edits, and
the digest of the operation before. The log refers to everything else in the store: to an edit by
the digest of its request, to an artifact by the digest of its record, to a tensor by the digest in
that record, and to shared weights by the digest of a snapshot, which contains those of its tensors.
So the digest of the newest operation, the *head*, identifies the whole history: keeping a copy of
it elsewhere makes any later change of the past detectable.

Not covered: the settings (which model to load by default), when migrations ran, artifacts stored
with a schema before 3 (the log names only their tensors), and the times of edits imported before
the log recorded them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json  # takes half of the time of json.loads

from editkit_store.artifacts.artifacts import record_digest
from editkit_store.artifacts.deltas import unpacked
from editkit_store.artifacts.snapshots import read_manifest, restored
from editkit_store.database.connection import Database
from editkit_store.database.schema import MIGRATIONS
from editkit_store.digest import canonical_text, digest_bytes, digest_text
from editkit_store.errors import StoreDamaged, StoreError
from editkit_store.history.log import prompt_digest
from editkit_store.records import COLUMNS, Edit, Problem, Verified
from editkit_store.verify.blocks import damaged_blocks
from editkit_store.verify.sql import (
    DOUBTFUL_ARTIFACTS,
    DOUBTFUL_EDITS,
    DOUBTFUL_OPERATIONS,
)

__all__ = ["verify"]

_MISSING = (
    "SELECT DISTINCT digest FROM artifacts "
    "WHERE digest IS NOT NULL AND digest NOT IN (SELECT digest FROM payloads) ORDER BY digest"
)
_MISPLACED = (
    "SELECT edit_id FROM (SELECT edit_id, ordinal, seq, lag(ordinal, 1, 0) OVER placed AS before, "
    "lag(seq, 1, 0) OVER placed AS came FROM edits WINDOW placed AS (ORDER BY ordinal)) "
    "WHERE ordinal IS NULL OR ordinal <= before OR seq < came ORDER BY ordinal"
)
_COUNTED = (
    "operations", "edits", "artifacts", "payloads", "snapshot_versions", "snapshots", "tensors",
    "tags",
)  # fmt: skip

_THREADS = 2  # in addition to the main thread, which consumes their results
_PARTS = 4  # parts of the log
_SMALL = 10_000  # operations up to which the log is one part


def verify(database: Database, *, head: str | None = None) -> Verified:
    """Returns the problems of a store, in the order of its log; never raises for damage.

    Args:
        database: The store.
        head: A head saved earlier, which the log must still contain.
    """
    check = _Check(database)
    try:
        with database.turn:  # no appends between reading two tables
            check.run()
            if head is not None and not check.holds(head):
                check.blame("operation", head, "is not in the log: the past was rewritten since")
    except (StoreDamaged, StoreError) as error:
        # A block fails DuckDB's own checksum.
        check.blame("file", str(database.path), str(error))
    return Verified(
        ok=not check.problems,
        checked=check.checked,
        problems=tuple(check.problems),
        head=check.head,
    )


class _Check:
    """One run over a store."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.problems: list[Problem] = []
        self.checked = 0
        self.head: str | None = None
        self._requests: dict[str, tuple[int, str]] = {}  # edit: operation, digest of its request
        self._times: dict[str, str] = {}  # edit: when it was added; ISO 8601
        self._places: dict[str, tuple[int, int]] = {}  # edit: its import, and its place there
        self._records: dict[tuple[str, str], str] = {}  # edit and model: digest of the record
        self._payloads: dict[tuple[str, str], str | None] = {}  # likewise, of older operations
        self._tags: dict[int, tuple[str, int]] = {}  # operation: name and version
        # Model and operation: version and snapshot.
        self._snapshots: dict[tuple[str, int], tuple[int, str | None]] = {}

    def blame(self, kind: Any, name: str, message: str) -> None:
        """Adds a problem."""
        self.problems.append(Problem(kind=kind, name=name, message=message))

    def run(self) -> None:
        """Goes through all tables."""
        self._check_own()
        known = {step.version: step.name for step in MIGRATIONS}
        ran = self._db.query("SELECT version, name, applied_at FROM migrations")
        if {version: name for version, name, _ in ran} != known:
            self.blame("schema", "migrations", "not those of this editkit")
        self._db.query("SELECT * FROM settings")  # not covered by digests, but checks their block
        with ThreadPoolExecutor(_THREADS) as pool:
            altered = self._db.beside(pool, _altered, "SELECT digest, bytes FROM payloads")
            # DuckDB uses one thread per row group of a hundred thousand rows, hence the parts. It
            # does not hold the GIL, which blocks and tensors use meanwhile.
            parts = [
                self._db.beside(pool, list, DOUBTFUL_OPERATIONS, *part) for part in self._parts()
            ]
            damaged = damaged_blocks(self._db)
            doubtful = self._log([row for part in parts for row in part.result()])
            self._edits(doubtful)
            self._artifacts(doubtful)
            for digest in altered.result():
                self.blame("tensor", digest, "was altered")
        for (digest,) in self._db.query(_MISSING):
            self.blame("tensor", digest, "is missing")
        self._tensors(self._manifests())
        self._names()
        for number in damaged:
            # DuckDB would fail only when it reads the block, perhaps years later.
            self.blame(
                "file",
                f"block {number}",
                "of an index, or not in use, was altered; `editkit compact` writes the file anew",
            )
        counts = self._db.query(" UNION ALL ".join(f"SELECT count(*) FROM {t}" for t in _COUNTED))
        self.checked = sum(count for (count,) in counts)
        newest = self._db.one("SELECT digest FROM operations ORDER BY seq DESC LIMIT 1")
        self.head = newest[0] if newest is not None else None
        if not self.problems:
            self._check_own()  # again: another process may have written meanwhile

    def _check_own(self) -> None:
        try:
            self._db.check_own()
        except StoreError as error:
            self.blame("file", self._db.path.name, str(error))

    def holds(self, head: str) -> bool:
        """Returns whether an operation has this digest."""
        return self._db.one("SELECT 1 FROM operations WHERE digest = ?", [head]) is not None

    def _parts(self) -> list[tuple[int, int]]:
        """Returns the bounds of parts of the log, of about equal size if it was not altered."""
        (count,) = self._db.query("SELECT count(*) FROM operations")[0]
        inner = [count * part // _PARTS for part in range(1, _PARTS)] if count > _SMALL else []
        starts = [-(1 << 63), *(end + 1 for end in inner)]
        return list(zip(starts, [*inner, (1 << 63) - 1], strict=True))

    def _log(self, doubtful: list[tuple[Any, ...]]) -> list[int]:
        """Checks the operations that are not whole additions, and returns their numbers."""
        members: dict[int, list[list[Any]]] = {}
        for part in self._db.stream(
            "SELECT version, edit_id, member FROM membership "
            "WHERE version IN (SELECT unnest(CAST(? AS BIGINT[]))) ORDER BY version, edit_id",
            [[version for _, _, version, *_ in doubtful]],
        ):
            for version, edit_id, member in part:
                members.setdefault(version, []).append([version, edit_id, member])
        for *row, before, version_before, digest_before in doubtful:
            found, kind, version, changed, edit_id = row[:5]
            name = f"operation {found}"
            if found != before + 1:
                self.blame("operation", f"operation {before + 1}", "is missing")
            current = version_before + bool(changed)
            if version != current:
                self.blame("operation", name, f"makes v{version}, where v{current} comes next")
            if row[13] != digest_before:
                self.blame("operation", name, "does not follow the operation before it")
            rows = members.get(version, []) if changed else []
            if operation_digest(row, rows) != row[14]:
                self.blame("operation", name, f"('{kind}') was altered")
            # The row of an altered operation need not parse.
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                self._collect(row)
        for (version,) in self._db.query(
            "SELECT DISTINCT version FROM membership "
            "WHERE version NOT IN (SELECT version FROM operations WHERE changed) ORDER BY version"
        ):
            self.blame("operation", f"v{version}", "changes the view, but no operation made it")
        return [row[0] for row in doubtful]

    def _collect(self, row: list[Any]) -> None:
        """Records what the store must contain according to an operation."""
        seq, kind, _, _, edit_id, target, _, _, _, time, model, _, detail, *_ = row
        said = from_json(detail)
        if kind == "add" and edit_id is not None:
            self._times[edit_id] = _iso(time)
        if kind == "add" and edit_id is not None and model is not None:
            self._requests[edit_id] = seq, said.get("request", "")
            if "record" in said:
                self._records[edit_id, model] = said["record"]
            else:
                self._payloads[edit_id, model] = said.get("artifact")
        for place, (one, when) in enumerate(said.get("brought", ())):
            self._times[one], self._places[one] = when, (seq, place)
        for one, digest in said.get("requests", {}).items():
            self._requests[one] = seq, digest
        for one, digest in said.get("records", {}).items():
            if isinstance(digest, dict):  # of several models, from an import
                self._records |= {(one, place): record for place, record in digest.items()}
            elif model is not None:
                self._records[one, model] = digest
        for model, (start, digest) in said.get("snapshots", {}).items():
            self._snapshots[model, seq] = start, digest
        if kind == "tag":
            self._tags[seq] = said.get("tag", ""), target

    def _edits(self, doubtful: list[int]) -> None:
        for (edit_id,) in self._db.query(_MISPLACED):
            self.blame("edit", f"edit {edit_id}", "has the place of another edit")
        last = (0, 0)
        for edit_id, seq, request, digest, prompt, time, *columns in self._rows(
            DOUBTFUL_EDITS, [doubtful]
        ):
            name = f"edit {edit_id}"
            place = self._places.get(edit_id, last)
            if place < last:
                self.blame("edit", name, "has the place of another edit")
            last = place
            expected = self._requests.pop(edit_id, None)
            if expected is None:
                self.blame("edit", name, "is in no operation")
                continue
            if (seq, digest) != expected or digest_text(request) != digest:
                self.blame("edit", name, "is not what was asked for: its request was altered")
                continue
            said = from_json(request)
            if [said.get(name) for name in COLUMNS] != columns:
                self.blame("edit", name, "has columns that differ from its request")
            elif _prompt(said, edit_id) != prompt:
                self.blame("edit", name, "stands for another prompt than its own")
            elif self._times.get(edit_id, _iso(time)) != _iso(time):
                self.blame("edit", name, "has another time than that at which it was added")
        for edit_id in self._requests:
            self.blame("edit", f"edit {edit_id}", "is missing")

    def _artifacts(self, doubtful: list[int]) -> None:
        named = [edit_id for edit_id, _ in self._records]
        for *row, stored, is_whole in self._rows(DOUBTFUL_ARTIFACTS, [doubtful, named]):
            edit_id, model, usable, payload = row[0], row[1], row[5], row[6]
            name = f"artifact of edit {edit_id} on {model}"
            if payload is None and usable:
                self.blame("artifact", name, "is in use, but names no tensors")
            expected = self._records.pop((edit_id, model), None)
            if stored is None and expected is None:  # from before schema 3
                older = self._payloads.pop((edit_id, model), payload)
                if older != payload:
                    self.blame("artifact", name, "has other tensors than those learned")
            elif expected is None:
                if not is_whole:
                    self.blame("artifact", name, "is in no operation")
            elif expected != stored or not _has_digest(row, stored):
                self.blame("artifact", name, "was altered")
        for edit_id, model in [*self._records, *self._payloads]:
            if (edit_id, model) in self._records or self._payloads[edit_id, model] is not None:
                self.blame("artifact", f"artifact of edit {edit_id} on {model}", "is missing")

    def _manifests(self) -> set[str]:
        """Returns the tensors that snapshots need."""
        needed: set[str] = set()
        wanted: set[str] = set()
        for model, version, seq, digest in self._rows(
            "SELECT fingerprint, version, seq, digest FROM snapshot_versions ORDER BY seq"
        ):
            if self._snapshots.pop((model, seq), None) != (version, digest):
                self.blame("snapshot", f"adaptors of {model} at v{version}", "were altered")
            elif digest is not None:
                wanted.add(digest)
        for (model, _), (version, _) in self._snapshots.items():
            self.blame("snapshot", f"adaptors of {model} at v{version}", "are missing")
        for digest, text in self._rows("SELECT digest, manifest FROM snapshots"):
            try:
                manifest = read_manifest(digest, text)
            except ValueError as error:
                self.blame("snapshot", digest, str(error))
            else:
                needed.update(said[2] for said in manifest["tensors"].values())
            wanted.discard(digest)
        for digest in sorted(wanted):
            self.blame("snapshot", digest, "is missing")
        return needed

    def _tensors(self, needed: set[str]) -> None:
        """Restores the tensors of all snapshots, both whole ones and differences."""
        for digest, base, item, length, data, base_item, base_length, base_data in self._rows(
            "SELECT t.digest, t.base, t.item, t.length, t.bytes, b.item, b.length, b.bytes "
            "FROM tensors t LEFT JOIN tensors b ON b.digest = t.base AND b.base IS NULL"
        ):
            needed.discard(digest)
            try:
                under = b""
                if base is not None:
                    if base_data is None:
                        raise ValueError(f"needs the tensor '{base}', which is missing")
                    under = unpacked(base_data, b"", base_item, base_length)
                restored(digest, data, under, item, length)
            except ValueError as error:
                self.blame("tensor", digest, str(error))
        for digest in sorted(needed):
            self.blame("tensor", digest, "is missing")

    def _names(self) -> None:
        for seq, *tag in self._rows("SELECT seq, name, version FROM tags ORDER BY seq"):
            if self._tags.pop(seq, None) != tuple(tag):
                self.blame("tag", tag[0], "is not what an operation gave")
        for name, _ in self._tags.values():
            self.blame("tag", name, "is missing")

    def _rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        for part in self._db.stream(sql, parameters):
            yield from part


def _has_digest(row: list[Any], digest: str | None) -> bool:
    """Returns whether the digest is that of an artifact's record."""
    try:
        return record_digest(row) == digest
    except (
        ValueError,
        AttributeError,
    ):  # a radius that is not JSON, a time that Python cannot represent
        return False


def _altered(payloads: list[tuple[str, bytes]]) -> list[str]:
    """Returns the digests of tensors that do not match them."""
    # Twice as fast as sha256() in SQL, which has no vector instructions.
    return [digest for digest, data in payloads if digest_bytes(data) != digest]


def operation_digest(row: Sequence[Any], members: list[list[Any]]) -> str:
    """Computes the digest of an operation from its row and its changes to the set of edits.

    It equals ``digest_json`` of the operation. The text is built from columns that are already
    canonical JSON: parsing and serializing them again would dominate the time of a verification.
    """
    (seq, kind, version, changed, edit_id, target, undo, redo, count, time, model, how, detail,
     parent, _) = row  # fmt: skip
    rows = ",".join(
        f"[{number},{canonical_text(one)},{'true' if member else 'false'}]"
        for number, one, member in members
    )
    text = (
        f'{{"active_count":{_number(count)},"changed":{"true" if changed else "false"},'
        f'"detail":{detail},"edit_id":{canonical_text(edit_id)},"fingerprint":{canonical_text(model)},'
        f'"kind":{canonical_text(kind)},"membership":[{rows}],"parent_digest":{canonical_text(parent)},'
        f'"provenance":{how},"redo_version":{_number(redo)},"seq":{seq},'
        f'"target_version":{_number(target)},"time":"{_iso(time)}",'
        f'"undo_version":{_number(undo)},"version":{version}}}'
    )
    return digest_text(text)


def _number(value: int | None) -> int | str:
    return "null" if value is None else value


def _iso(time: datetime | str) -> str:
    """Returns a time in ISO 8601; DuckDB returns one before the year 1 as text."""
    return time.isoformat() if isinstance(time, datetime) else time


def _prompt(request: dict[str, Any], edit_id: str) -> str:
    """Computes the digest of the corrected input."""
    if request.get("chat") is None:
        return digest_text(canonical_text(request["prompt"]))
    return prompt_digest(Edit(**request, id=edit_id, time=datetime.fromtimestamp(0, UTC)))
