"""Artifacts: what edits became on particular models, and the bytes of their tensors.

Payloads are safetensors bytes, opaque here, named by their digest and stored once however many
artifacts refer to them. They are checked against their name whenever they are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from editkit_store.connection import Database
from editkit_store.digest import canonical_json, digest_bytes
from editkit_store.errors import StoreDamaged
from editkit_store.records import Artifact

__all__ = ["Artifacts"]

_COLUMNS = "edit_id, fingerprint, model, method, verified, usable, digest, metrics"


class Artifacts:
    """Reads and writes artifacts and payloads. Writing happens inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, artifact: Artifact, payload: bytes | None, *, time: datetime) -> None:
        """Stores what an edit became on one model, replacing an earlier attempt on it.

        Raises:
            ValueError: ``payload`` does not have the digest that the artifact names.
        """
        if payload is not None:
            if digest_bytes(payload) != artifact.digest:
                raise ValueError("the payload does not have the artifact's digest")
            self._db.execute(
                "INSERT INTO payloads VALUES (?, ?) ON CONFLICT DO NOTHING",
                [artifact.digest, payload],
            )
        self._db.execute(
            "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                artifact.edit_id,
                artifact.fingerprint,
                artifact.model,
                artifact.method,
                artifact.verified,
                artifact.usable,
                artifact.digest,
                canonical_json(artifact.metrics),
                time.replace(tzinfo=None),
            ],
        )

    def of_edit(self, edit_id: str) -> list[Artifact]:
        """Returns what one edit became, one artifact a model."""
        return self._select("WHERE edit_id = ? ORDER BY learned_at", [edit_id])

    def on_model(self, edit_ids: Sequence[str], fingerprint: str) -> dict[str, Artifact]:
        """Returns the artifacts of the given edits on one model, by edit id."""
        found = self._select(
            "WHERE fingerprint = ? AND edit_id IN (SELECT unnest(?))", [fingerprint, list(edit_ids)]
        )
        return {artifact.edit_id: artifact for artifact in found}

    def payloads(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Returns payloads by digest.

        Raises:
            StoreDamaged: One is missing, or its bytes do not have its digest.
        """
        rows = self._db.query(
            "SELECT digest, bytes FROM payloads WHERE digest IN (SELECT unnest(?))", [list(digests)]
        )
        found = {str(digest): bytes(data) for digest, data in rows}
        for digest in digests:
            if digest not in found:
                problem = "is missing"
            elif digest_bytes(found[digest]) != digest:
                problem = "does not match its digest"
            else:
                continue
            raise StoreDamaged(
                f"payload '{digest}' {problem}",
                path=self._db.path,
                hint="restore the file from a copy",
            )
        return found

    def counts(self) -> dict[str, int]:
        """Returns the number of usable artifacts per model fingerprint."""
        rows = self._db.query(
            "SELECT fingerprint, count(*) FROM artifacts WHERE usable GROUP BY 1 ORDER BY 1"
        )
        return {str(fingerprint): int(count) for fingerprint, count in rows}

    def model_names(self) -> dict[str, str]:
        """Returns the name under which each fingerprint was last loaded."""
        rows = self._db.query(
            "SELECT fingerprint, arg_max(model, learned_at) FROM artifacts GROUP BY 1"
        )
        return {str(fingerprint): str(name) for fingerprint, name in rows}

    def _select(self, tail: str, parameters: Sequence[object]) -> list[Artifact]:
        rows = self._db.query(f"SELECT {_COLUMNS} FROM artifacts {tail}", parameters)
        names = [name.strip() for name in _COLUMNS.split(",")]
        return [
            Artifact.model_validate(
                {**dict(zip(names, row, strict=True)), "metrics": json.loads(row[7])}
            )
            for row in rows
        ]
