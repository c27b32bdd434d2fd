"""Large histories for benchmarks, made in bulk: one operation an edit, as ``kit.add`` writes it.

Keys and values are random, so nothing of it would help a model; every digest is right, and
``editkit verify`` finds such a store in order. One at a time through the store it would take ten
minutes for 100k edits.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.payload import GracePayload
from editkit_store import open_store
from editkit_store.artifacts.artifacts import ROW, record_digest
from editkit_store.digest import canonical_json, digest_bytes, digest_json
from editkit_store.records import EditRequest, Provenance
from editkit_store.verify.check import operation_digest

__all__ = ["FINGERPRINT", "SITE", "fill"]

FINGERPRINT = "sha256:" + "0" * 64
SITE = "model.layers.23.mlp.down_proj"

_PART = 10_000
_START = datetime(2026, 1, 2, 3, 4, 5)


def fill(
    path: Path,
    count: int,
    *,
    widths: tuple[int, int] = (576, 576),
    fingerprint: str = FINGERPRINT,
    site: str = SITE,
) -> None:
    """Makes a store with ``count`` active edits, none in conflict with another.

    Args:
        path: The file, which must not exist.
        count: Edits, one version each.
        widths: Of keys and of values, float32.
        fingerprint: Model that learned them.
        site: Where.
    """
    open_store(path, write=True, create=True).close()
    noise = np.random.default_rng(0)
    parent = None
    how = canonical_json(Provenance(author="bench").model_dump(mode="json"))
    with duckdb.connect(str(path)) as base:
        for start in range(0, count, _PART):
            size = min(_PART, count - start)
            keys = noise.standard_normal((size, widths[0]), np.float32)
            values = noise.standard_normal((size, widths[1]), np.float32)
            rows: dict[str, list[Any]] = {
                name: [] for name in ("payloads", "edits", "artifacts", "operations", "membership")
            }
            for at in range(size):
                parent = _edit(
                    rows, start + at + 1, keys[at], values[at], parent, how, fingerprint, site
                )
            for table, found in rows.items():
                columns = {
                    f"c{i}": _column(column) for i, column in enumerate(zip(*found, strict=True))
                }
                base.register("part", columns)
                names = f"({ROW}, record_digest)" if table == "artifacts" else ""
                base.execute(f"INSERT INTO {table} {names} SELECT * FROM part")
                base.unregister("part")
        base.execute(
            "INSERT INTO settings VALUES ('model', 'm'), ('fingerprint', ?)", [fingerprint]
        )


def _edit(
    rows: dict[str, list[Any]],
    number: int,
    key: Any,
    value: Any,
    parent: str | None,
    how: str,
    fingerprint: str,
    site: str,
) -> str:
    """Adds the rows of one edit; returns the digest of its operation."""
    name, time = f"{number:016x}", _START + timedelta(seconds=number)
    request = EditRequest(prompt=f"Question number {number}:", target=f"answer {number}")
    text = canonical_json(request.model_dump(mode="json"))
    digest = digest_bytes(text.encode())
    data = GracePayload(Entry(name, key, (number % 900, 7, 2), 2.0), value, site).to_bytes()
    payload = digest_bytes(data)
    metrics = canonical_json({"answer": request.target, "seconds": 0.5, "site": site, "steps": 9})
    artifact = [fingerprint, "m", "grace", True, True, payload, metrics, "{}", 2.0, time]
    record = record_digest([name, *artifact])
    detail = canonical_json(
        {"artifact": payload, "record": record, "request": digest, "supersedes": [],
         "verified": True}
    )  # fmt: skip
    operation = (
        number, "add", number, True, name, None, number, None, number, time, fingerprint, how,
        detail, parent,
    )  # fmt: skip
    chained = operation_digest((*operation, None), [[number, name, True]])
    rows["payloads"].append((payload, data))
    rows["edits"].append(
        (name, number, text, digest, digest_json(request.prompt), request.prompt, request.target,
         "fact", "grace", time, number, None)
    )  # fmt: skip
    rows["artifacts"].append((name, *artifact, record))
    rows["operations"].append((*operation, chained))
    rows["membership"].append((number, name, True))
    return chained


def _column(values: tuple[Any, ...]) -> Any:
    """What DuckDB takes for a column without guessing its type from the first rows."""
    if isinstance(values[0], bool | int | float):
        return np.array(values)
    if isinstance(values[0], datetime):
        return np.array(values, "datetime64[us]")
    found = np.empty(len(values), object)
    found[:] = values
    return found
