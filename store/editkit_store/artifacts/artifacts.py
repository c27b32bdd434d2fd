"""Artifacts: what particular models learned for edits, and the bytes of their tensors.

Payloads are safetensors bytes, opaque here, keyed by their digest and stored once, however many
artifacts refer to them. They are checked against their digest on every read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from editkit_store.database.connection import Database
from editkit_store.digest import (
    canonical_json,
    canonical_number,
    canonical_text,
    digest_bytes,
    digest_text,
)
from editkit_store.errors import StoreDamaged
from editkit_store.records import Artifact

__all__ = ["ROW", "Artifacts", "Drafted", "Row", "UsableArtifact", "record_digest", "stored_row"]

_COLUMNS = (
    "edit_id, fingerprint, model, method, verified, usable, digest, metrics, conflicts, radius"
)

ROW = f"{_COLUMNS}, learned_at"
"""Columns that the digest of an artifact's record covers, in order."""

_AT = ROW.split(", ").index("conflicts")


def record_digest(row: Sequence[Any]) -> str:
    """Returns the digest of an artifact's record.

    It equals ``digest_json`` of the list. The text is built by hand because this dominates the time
    of a verification.

    Args:
        row: The columns of ``ROW``, as they are stored.

    Raises:
        ValueError: The radius is NaN or infinite.
    """
    (edit_id, model, name, method, verified, usable, digest, metrics, conflicts, radius, time) = row
    text = canonical_text
    return digest_text(
        f"[{text(edit_id)},{text(model)},{text(name)},{text(method)},"
        f"{'true' if verified else 'false'},{'true' if usable else 'false'},{text(digest)},"
        f"{text(metrics)},{text(conflicts)},{canonical_number(radius)},"
        f'"{time.isoformat()}"]'
    )


def stored_row(artifact: Artifact, learned_at: datetime) -> list[object]:
    """Returns an artifact as the columns of ``ROW``."""
    return [
        artifact.edit_id,
        artifact.fingerprint,
        artifact.model,
        artifact.method,
        artifact.verified,
        artifact.usable,
        artifact.digest,
        canonical_json(artifact.metrics),
        None if artifact.conflicts is None else canonical_json(artifact.conflicts),
        artifact.radius,
        learned_at.replace(tzinfo=None),
    ]


class UsableArtifact(NamedTuple):
    """What one model learned for one edit.

    Attributes:
        age: Its rank among those read, in the order of the history; 0 is the oldest.
        edit_id: The edit.
        conflicts: Distances to earlier edits by id, None if not known.
        payload: The artifact's bytes.
    """

    age: int
    edit_id: str
    conflicts: dict[str, float] | None
    payload: bytes


class Drafted(NamedTuple):
    """An artifact about to be stored.

    Attributes:
        payload: Row of its payload, None if that is stored already.
        row: Its own row, in the table's order.
        digest: Digest of its record.
    """

    payload: Sequence[object] | None
    row: list[object]
    digest: str


class Row(NamedTuple):
    """How far an edit reaches on one model, as recorded.

    Attributes:
        radius: Initial L2 radius, float32.
        conflicts: Distances to earlier edits with another target, by id.
    """

    radius: float
    conflicts: dict[str, float]


class Artifacts:
    """Reads and writes artifacts and payloads. Writing happens inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, artifact: Artifact, payload: bytes | None, *, time: datetime) -> str:
        """Stores the artifact of an edit on one model, replacing an earlier attempt.

        Args:
            artifact: The record.
            payload: Its tensors as safetensors bytes.
            time: When it was learned, UTC.

        Returns:
            The digest of its record, to be recorded by the operation that stores it.

        Raises:
            ValueError: ``payload`` does not have the artifact's digest.
        """
        drafted = self.draft(artifact, payload, time=time)
        if drafted.payload is not None:
            self._db.insert("payloads", [drafted.payload])
        *columns, learned_at, conflicts, digest, radius = drafted.row
        self._db.execute(
            f"INSERT OR REPLACE INTO artifacts ({ROW}, record_digest) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [*columns, conflicts, radius, learned_at, digest],
        )
        return drafted.digest

    def draft(
        self, artifact: Artifact, payload: bytes | None, *, time: datetime, is_new: bool = False
    ) -> Drafted:
        """Returns the rows for ``insert``; writes nothing.

        Args:
            artifact: The record.
            payload: Its tensors as safetensors bytes.
            time: When it was learned, UTC.
            is_new: Assume that the payload is not stored yet.

        Raises:
            ValueError: ``payload`` does not have the artifact's digest.
        """
        row = None
        if payload is not None:
            if digest_bytes(payload) != artifact.digest:
                raise ValueError("the payload does not have the artifact's digest")
            known = "SELECT 1 FROM payloads WHERE digest = ?"
            # A query first is faster than ON CONFLICT DO NOTHING.
            if is_new or self._db.one(known, [artifact.digest]) is None:
                row = [artifact.digest, payload]
        return Drafted(row, *_in_table_order(stored_row(artifact, time)))

    def insert(self, drafted: Drafted) -> None:
        """Stores a model's first attempt at an edit."""
        if drafted.payload is not None:
            self._db.insert("payloads", [drafted.payload])
        self._db.insert("artifacts", [drafted.row])

    def put_new(self, learned: Sequence[tuple[Artifact, bytes | None, datetime]]) -> list[str]:
        """Stores models' first attempts at many edits; faster than ``put`` for each.

        Args:
            learned: Artifacts with their tensors as safetensors bytes, and the time, UTC.

        Returns:
            The digests of their records.

        Raises:
            ValueError: A payload does not have its artifact's digest.
        """
        payloads: dict[str, bytes] = {}
        for artifact, payload, _ in learned:
            if payload is not None:
                if artifact.digest is None or digest_bytes(payload) != artifact.digest:
                    raise ValueError("the payload does not have the artifact's digest")
                payloads[artifact.digest] = payload
        for (digest,) in self._db.query(
            "SELECT digest FROM payloads WHERE digest IN (SELECT unnest(?))", [list(payloads)]
        ):
            del payloads[digest]
        self._db.insert("payloads", [list(item) for item in payloads.items()])
        digests, rows = [], []
        for artifact, _, time in learned:
            row, digest = _in_table_order(stored_row(artifact, time))
            rows.append(row)
            digests.append(digest)
        self._db.insert("artifacts", rows)
        return digests

    def set_conflicts(
        self, fingerprint: str, found: Mapping[str, Mapping[str, float]]
    ) -> dict[str, str]:
        """Stores the conflicts of artifacts that were unknown.

        Args:
            fingerprint: The model.
            found: Distances to other edits, by edit.

        Returns:
            The digests of their records, by edit.
        """
        rows = self._db.query(
            f"SELECT {ROW} FROM artifacts WHERE fingerprint = ? AND edit_id IN (SELECT unnest(?)) "
            "AND conflicts IS NULL",
            [fingerprint, list(found)],
        )
        texts = {row[0]: canonical_json(dict(found[row[0]])) for row in rows}
        digests = {
            row[0]: record_digest([*row[:_AT], texts[row[0]], *row[_AT + 1 :]]) for row in rows
        }
        self._db.execute(
            "UPDATE artifacts SET conflicts = new.conflicts, record_digest = new.digest FROM "
            "(SELECT unnest(?) AS edit_id, unnest(?) AS conflicts, unnest(?) AS digest) AS new "
            "WHERE artifacts.edit_id = new.edit_id AND fingerprint = ?",
            [list(texts), list(texts.values()), list(digests.values()), fingerprint],
        )
        return digests

    def of_edit(self, edit_id: str) -> list[Artifact]:
        """Returns the artifacts of one edit, one per model."""
        return self._select("WHERE edit_id = ? ORDER BY learned_at", [edit_id])

    def on_model(self, edit_ids: Sequence[str], fingerprint: str) -> dict[str, Artifact]:
        """Returns the artifacts of the given edits on one model, by edit id."""
        found = self._select(
            "WHERE fingerprint = ? AND edit_id IN (SELECT unnest(?))", [fingerprint, list(edit_ids)]
        )
        return {artifact.edit_id: artifact for artifact in found}

    def attempted(self, fingerprint: str) -> set[str]:
        """Returns the edits that a model has tried to learn, with or without success."""
        rows = self._db.query("SELECT edit_id FROM artifacts WHERE fingerprint = ?", [fingerprint])
        return {str(row[0]) for row in rows}

    def usable(self, fingerprint: str, *, method: str) -> Iterator[list[UsableArtifact]]:
        """Yields everything that a model has learned with a method, in batches, in file order.

        Sorting rows of kilobytes would take longer than reading them. A caller that drops each
        batch before the next can read a history larger than memory.

        Raises:
            StoreDamaged: A payload is missing, or its bytes do not have its digest.
        """
        chosen = "a.fingerprint = ? AND a.usable AND a.method = ?"
        rows = self._db.query(
            "SELECT a.digest, a.edit_id, a.conflicts FROM artifacts a JOIN edits e USING (edit_id) "
            f"WHERE {chosen} ORDER BY e.ordinal",
            [fingerprint, method],
        )
        owners: dict[str, list[tuple[int, str, str | None]]] = {}
        for age, (digest, edit_id, conflicts) in enumerate(rows):
            owners.setdefault(digest, []).append((age, edit_id, conflicts))
        streamed = self._db.stream(
            "SELECT p.digest, p.bytes FROM payloads p SEMI JOIN "
            f"(SELECT a.digest FROM artifacts a WHERE {chosen}) USING (digest)",
            [fingerprint, method],
        )
        for part in streamed:
            yield [
                UsableArtifact(age, edit_id, _conflicts(conflicts), self._checked(digest, data))
                for digest, data in part
                for age, edit_id, conflicts in owners.pop(digest)
            ]
        for digest in owners:
            self._checked(digest, None)

    def usable_count(self, fingerprint: str, *, method: str) -> int:
        """Returns the number of edits that a model has learned."""
        row = self._db.one(
            "SELECT count(*) FROM artifacts WHERE fingerprint = ? AND usable AND method = ?",
            [fingerprint, method],
        )
        return int(row[0]) if row else 0

    def reaches(self, fingerprint: str, ids: Collection[str], *, method: str) -> dict[str, Row]:
        """Returns radii and conflicts of edits and of those that conflict with them, oldest first.

        Args:
            fingerprint: The model.
            ids: Edits; those that it has not learned are left out.
            method: Method that they were learned with.
        """
        rows = self._db.query(
            "SELECT a.edit_id, a.radius, a.conflicts FROM artifacts a JOIN edits e USING (edit_id) "
            "WHERE a.fingerprint = $model AND a.usable AND a.method = $method AND ("
            "  a.edit_id IN (SELECT unnest($ids)) OR "
            "  (a.conflicts != '{}' AND list_has_any(json_keys(a.conflicts), $ids))"
            ") ORDER BY e.ordinal",
            {"model": fingerprint, "ids": list(ids), "method": method},
        )
        return {edit_id: Row(radius, _conflicts(text) or {}) for edit_id, radius, text in rows}

    def has_unknown_reaches(self, fingerprint: str, *, method: str, marked: str) -> bool:
        """Returns whether ``reaches`` is incomplete for what a model learned with a method.

        That is so for edits that were learned before conflicts and radii were recorded.

        Args:
            fingerprint: The model.
            method: The method.
            marked: Text in the canonical JSON of metrics that marks other such edits.
        """
        row = self._db.one(
            "SELECT 1 FROM artifacts WHERE fingerprint = ? AND usable AND method = ? AND "
            "(conflicts IS NULL OR radius IS NULL OR contains(metrics, ?)) LIMIT 1",
            [fingerprint, method, marked],
        )
        return row is not None

    def package_of(self, method: str) -> str | None:
        """Returns the package that provided a method when an edit was learned with it, if known.

        Bundles are untrusted, so anything that is not a valid package name is ignored.
        """
        row = self._db.one(
            "SELECT json_extract_string(metrics, '$.package') AS package FROM artifacts "
            "WHERE method = ? AND regexp_full_match(package, '[A-Za-z0-9][A-Za-z0-9._-]{0,99}') "
            "LIMIT 1",
            [method],
        )
        return None if row is None else str(row[0])

    def learned_among(self, fingerprint: str, ids: Collection[str]) -> list[str]:
        """Returns which of some edits a model has learned."""
        rows = self._db.query(
            "SELECT edit_id FROM artifacts WHERE fingerprint = ? AND usable "
            "AND edit_id IN (SELECT unnest(?))",
            [fingerprint, list(ids)],
        )
        return [str(row[0]) for row in rows]

    def untried(self, fingerprint: str) -> list[str]:
        """Returns the edits that a model has not tried to learn, oldest first."""
        rows = self._db.query(
            "SELECT edit_id FROM edits ANTI JOIN (SELECT edit_id FROM artifacts "
            "WHERE fingerprint = ?) USING (edit_id) ORDER BY ordinal",
            [fingerprint],
        )
        return [str(row[0]) for row in rows]

    def newest(self, fingerprint: str, *, method: str) -> tuple[str, bytes] | None:
        """Returns edit and payload of the newest edit that a model has learned."""
        row = self._db.one(
            "SELECT a.edit_id, a.digest FROM artifacts a JOIN edits e USING (edit_id) "
            "WHERE a.fingerprint = ? AND a.usable AND a.method = ? ORDER BY e.ordinal DESC LIMIT 1",
            [fingerprint, method],
        )
        if row is None:
            return None
        edit_id, digest = str(row[0]), str(row[1])
        return edit_id, self.payloads([digest])[digest]

    def payloads(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Returns payloads by digest.

        Raises:
            StoreDamaged: A payload is missing, or does not match its digest.
        """
        rows = self._db.query(
            "SELECT digest, bytes FROM payloads WHERE digest IN (SELECT unnest(?))", [list(digests)]
        )
        found = {str(digest): bytes(data) for digest, data in rows}
        return {digest: self._checked(digest, found.get(digest)) for digest in digests}

    def _checked(self, digest: str, data: bytes | None) -> bytes:
        if data is not None and digest_bytes(data) == digest:
            return data
        raise StoreDamaged(
            f"payload '{digest}' {'is missing' if data is None else 'does not match its digest'}",
            path=self._db.path,
            hint="restore the file from a copy",
        )

    def counts(self) -> dict[str, int]:
        """Returns the number of usable artifacts per model fingerprint."""
        rows = self._db.query(
            "SELECT fingerprint, count(*) FROM artifacts WHERE usable GROUP BY 1 ORDER BY 1"
        )
        return {str(fingerprint): int(count) for fingerprint, count in rows}

    def model_names(self) -> dict[str, str]:
        """Returns the name by which the model of each fingerprint was last loaded."""
        rows = self._db.query(
            "SELECT fingerprint, arg_max(model, learned_at) FROM artifacts GROUP BY 1"
        )
        return {str(fingerprint): str(name) for fingerprint, name in rows}

    def _select(self, tail: str, parameters: Sequence[object]) -> list[Artifact]:
        rows = self._db.query(f"SELECT {_COLUMNS} FROM artifacts {tail}", parameters)
        names = [name.strip() for name in _COLUMNS.split(",")]
        return [
            Artifact.model_validate(
                {
                    **dict(zip(names, row, strict=True)),
                    "metrics": json.loads(row[7]),
                    "conflicts": None if row[8] is None else json.loads(row[8]),
                }
            )
            for row in rows
        ]


def _conflicts(stored: str | None) -> dict[str, float] | None:
    if stored is None or stored == "{}":  # nearly all of them
        return None if stored is None else {}
    found: dict[str, float] = json.loads(stored)
    return found


def _in_table_order(row: Sequence[object]) -> tuple[list[object], str]:
    """Returns the columns of ``ROW`` in the table's order, and the digest of the record."""
    *columns, conflicts, radius, learned_at = row
    digest = record_digest(row)
    # The columns of later schemas are at the end of the table.
    return [*columns, learned_at, conflicts, digest, radius], digest
