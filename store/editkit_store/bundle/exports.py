"""Exporting bundles: edits and their artifacts as a folder of JSON and safetensors files.

Exports are deterministic: exporting the same store again gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editkit_store.artifacts.artifacts import ROW
from editkit_store.bundle.folder import (
    ADJUSTED_FORMAT,
    ARTIFACTS,
    EDITS,
    FORMAT,
    MANIFEST,
    MIXED_FORMAT,
    OPERATIONS,
    Writer,
    new_folder,
    tensor_file,
)
from editkit_store.bundle.records import BundleSelection, Counts, Exported, Manifest
from editkit_store.bundle.snapshots import write_snapshots
from editkit_store.database.connection import Database
from editkit_store.digest import canonical_json, digest_bytes, digest_json
from editkit_store.errors import StoreDamaged
from editkit_store.history.log import History
from editkit_store.history.versions import format_version
from editkit_store.verify.sql import OPERATION

__all__ = ["export"]

_EDITS = """
    SELECT e.edit_id, e.added_at, e.request, o.seq, o.version, o.digest, o.provenance,
           row_number() OVER (PARTITION BY e.prompt_digest ORDER BY e.ordinal DESC) = 1
    FROM edits e JOIN operations o ON o.seq = e.seq
    WHERE e.edit_id IN (
        SELECT edit_id FROM membership WHERE version <= ?
        GROUP BY edit_id HAVING arg_max(member, version)
    )
    ORDER BY e.ordinal
"""


def export(
    database: Database, history: History, path: Path, *, selection: BundleSelection, tool: str
) -> Exported:
    """Writes a bundle; see ``Store.export``."""
    version = history.resolve(selection.to)
    edits = _selected(database, history, version, selection)
    with new_folder(path) as writer:
        head, operations = _write_log(database, writer, version)
        writer.lines(EDITS, edits)
        digests, artifacts = _write_artifacts(database, writer, [edit["id"] for edit in edits])
        _write_tensors(database, writer, digests)
        is_mixed = write_snapshots(database, writer, [edit["id"] for edit in edits], version)
        manifest = Manifest(
            format=_format(database, version, is_mixed=is_mixed),
            tool=tool,
            version=version,
            current=history.current(),
            selection=selection,
            head=head,
            counts=Counts(
                edits=len(edits), artifacts=artifacts, operations=operations, tensors=len(digests)
            ),
            files=dict(writer.files),
        )
        data = (canonical_json(manifest.model_dump(mode="json")) + "\n").encode()
        writer.put(MANIFEST, [data])
    return Exported(
        bundle=str(path),
        version=format_version(version),
        head=head,
        manifest=digest_bytes(data),
        edits=len(edits),
        artifacts=artifacts,
        tensors=len(digests),
        bytes=sum(file.bytes for file in writer.files.values()),
    )


def _selected(
    database: Database, history: History, version: int, selection: BundleSelection
) -> list[dict[str, Any]]:
    """Returns the lines of the selected edits, oldest first."""
    without: set[str] = set()
    within: set[str] | None = None
    if selection.from_ is not None:
        without = set(history.active_ids(history.resolve(selection.from_)))
    if selection.only is not None:
        within = set(history.active_ids(history.resolve(selection.only)))
    # Superseded edits are exported only together with all others: without the newer edit they
    # would become active.
    is_all = selection.from_ is None and within is None
    return [
        {
            "id": edit_id,
            "time": added.isoformat(),
            "status": "active" if active else "superseded",
            "request": json.loads(request),
            "operation": {"seq": seq, "version": made, "digest": digest},
            "provenance": json.loads(provenance),
        }
        for edit_id, added, request, seq, made, digest, provenance, active in database.query(
            _EDITS, [version]
        )
        if (is_all or active) and edit_id not in without and (within is None or edit_id in within)
    ]


def _format(database: Database, version: int, *, is_mixed: bool) -> str:
    """Returns the oldest format that holds everything, so that older editkits read what they can.

    They would reject the adjustments in a log as damage, or ignore those of an import.
    """
    row = database.one(
        "SELECT 1 FROM operations WHERE version <= ? AND (kind = 'adjust' "
        "OR kind = 'import' AND json_extract(detail, '$.adjustments') IS NOT NULL) LIMIT 1",
        [version],
    )
    if row is not None:
        return ADJUSTED_FORMAT
    return MIXED_FORMAT if is_mixed else FORMAT


def _write_log(database: Database, writer: Writer, version: int) -> tuple[str | None, int]:
    """Writes the log up to a version; returns its head and its length."""
    members: dict[int, list[list[Any]]] = {}
    for row in database.query(
        "SELECT version, edit_id, member FROM membership WHERE version <= ? ORDER BY ALL",
        [version],
    ):
        members.setdefault(row[0], []).append(list(row))
    head: str | None = None
    count = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal head, count
        columns = ", ".join(OPERATION)
        sql = f"SELECT {columns} FROM operations WHERE version <= ? ORDER BY seq"
        for part in database.stream(sql, [version]):
            for row in part:
                line = _operation(row, members)
                body = {name: value for name, value in line.items() if name != "digest"}
                if line["parent_digest"] != head or digest_json(body) != line["digest"]:
                    raise StoreDamaged(
                        f"operation {line['seq']} of the store '{database.path}' was altered",
                        path=database.path,
                        hint="run `editkit verify` for details; restore the file from a copy",
                    )
                head, count = line["digest"], count + 1
                yield line

    writer.lines(OPERATIONS, lines())
    return head, count


def _operation(row: Sequence[Any], members: Mapping[int, list[list[Any]]]) -> dict[str, Any]:
    line = dict(zip(OPERATION, row, strict=True))
    return {
        **line,
        "time": line["time"].isoformat(),
        "provenance": json.loads(line["provenance"]),
        "detail": json.loads(line["detail"]),
        "membership": members.get(line["version"], []) if line["changed"] else [],
    }


def _write_artifacts(
    database: Database, writer: Writer, edit_ids: Sequence[str]
) -> tuple[list[str], int]:
    """Writes the artifacts of edits; returns the digests of their tensors and the line count."""
    names = ROW.split(", ")
    order = {edit_id: place for place, edit_id in enumerate(edit_ids)}
    found = [
        dict(zip(names, row, strict=True))
        for row in database.query(
            f"SELECT {ROW} FROM artifacts WHERE edit_id IN (SELECT unnest(?))", [list(edit_ids)]
        )
    ]
    found.sort(key=lambda line: (order[line["edit_id"]], line["fingerprint"]))
    for line in found:
        line["metrics"] = json.loads(line["metrics"])
        line["conflicts"] = None if line["conflicts"] is None else json.loads(line["conflicts"])
        line["learned_at"] = line["learned_at"].isoformat()
    writer.lines(ARTIFACTS, found)
    return sorted({line["digest"] for line in found if line["digest"] is not None}), len(found)


def _write_tensors(database: Database, writer: Writer, digests: Sequence[str]) -> None:
    missing = set(digests)
    streamed = database.stream(
        "SELECT digest, bytes FROM payloads WHERE digest IN (SELECT unnest(?))", [list(digests)]
    )
    for part in streamed:
        for digest, data in part:
            if digest_bytes(data) == digest:
                writer.put(tensor_file(digest), [data])
                missing.discard(digest)
    for digest in sorted(missing):
        raise StoreDamaged(
            f"payload '{digest}' is missing or was altered",
            path=database.path,
            hint="run `editkit verify` for details; restore the file from a copy",
        )
