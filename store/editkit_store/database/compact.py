"""Compaction: the same history in a smaller file.

DuckDB keeps freed blocks and never shrinks a file in place. A compaction writes every table to a
new file next to the store, without tensors that no artifact refers to, compares the heads of the
two logs, and replaces the old file atomically. Shared locks keep writers out from the first row
read until the new file is in place; if it is killed at any moment, one of the two complete files
remains under the store's name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from editkit_store.database import schema
from editkit_store.database.connection import BLOCK, Database
from editkit_store.database.files import private_folder, sync
from editkit_store.errors import StoreDamaged
from editkit_store.records import Compacted

__all__ = ["compact", "rewrite"]

_TABLES = (
    "migrations", "settings", "edits", "operations", "membership", "tags", "artifacts", "payloads",
    "snapshots", "tensors", "snapshot_versions",
)  # fmt: skip

_NAMED = {"payloads": "SEMI JOIN old.artifacts USING (digest)"}


def compact(path: Path) -> Compacted:
    """Rewrites a store without unused space; every version is kept.

    Args:
        path: A store of the current schema, not open in this process.

    Raises:
        StoreLocked: Another process writes to it.
        StoreDamaged, StoreUnwritable: See ``rewrite``.
    """
    with Database.open(path, read_only=False) as database:
        return rewrite(database)


def rewrite(database: Database) -> Compacted:
    """Rewrites an open store, as ``compact`` does.

    Args:
        database: A store of the current schema, open for writing. Its file is released meanwhile,
            so that others can read, and reopened.

    Raises:
        StoreLocked: Another process opened it for writing first.
        StoreDamaged: A table cannot be read, or its copy differs; the store is unchanged.
        StoreUnwritable: No space for the second file, or no permission.
    """
    place = Path(os.path.realpath(database.path))  # so that a link stays a link
    schema.require(database)
    database.checkpoint()
    before = place.stat().st_size
    # A killed compaction leaves its folder behind; the next opening for writing deletes it.
    with private_folder(place) as folder, database.released():
        fresh = folder / place.name
        with Database.scratch(place) as work:
            work.attach(place, "old", read_only=True)
            work.attach(fresh, "new", block_size=BLOCK)
            dropped = _copy(work)
            work.execute("DETACH new")
            shutil.copymode(place, fresh)
            sync(fresh)
            os.replace(fresh, place)
            sync(place.parent)
            work.execute("DETACH old")
    return Compacted(
        store=str(database.path), before=before, after=place.stat().st_size, dropped_tensors=dropped
    )


def _copy(work: Database) -> int:
    """Copies all tables; returns the number of tensors that were dropped."""
    work.execute("COPY FROM DATABASE old TO new (SCHEMA)")
    for table in _TABLES:
        work.execute(f"INSERT INTO new.{table} SELECT * FROM old.{table} {_NAMED.get(table, '')}")
        sums = [_sum(work, f"{name}.{table} {_NAMED.get(table, '')}") for name in ("old", "new")]
        if sums[0] != sums[1]:
            raise StoreDamaged(
                f"the copy of the table '{table}' differs from the original",
                path=work.path,
                hint="the store is unchanged; run `editkit verify` for details",
            )
    work.execute("CHECKPOINT new")
    counts = [work.one(f"SELECT count(*) FROM {name}.payloads") for name in ("old", "new")]
    return sum(int(row[0]) * sign for row, sign in zip(counts, (1, -1), strict=True) if row)


def _sum(work: Database, table: str) -> object:
    has_bytes = ".payloads" in table or ".tensors" in table
    columns = "COLUMNS(* EXCLUDE bytes)" if has_bytes else "COLUMNS(*)"
    return work.query(f"SELECT count(*), bit_xor(hash({columns})) FROM {table}")
