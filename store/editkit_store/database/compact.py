"""Compaction: the same history in a smaller file.

DuckDB keeps the blocks that were freed, and never shrinks a file from within. A compaction writes
every table anew into a file beside the store, without tensors that no artifact names any more,
compares the heads of the two logs, and puts the new file in the old one's place in one step. Shared
locks keep writers out from the first row read until the new file is in place; killed at any moment,
one of the two whole files is there under the store's name.
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
    """Rewrites a store without the space that it does not use; every version stays.

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
        database: A store of the current schema, open to write. Its file is let go of meanwhile, so
            that others can read, and opened again.

    Raises:
        StoreLocked: Another process was faster to write to it.
        StoreDamaged: A table cannot be read, or did not arrive as it was; the store is as before.
        StoreUnwritable: No room for the second file, or no permission.
    """
    place = Path(os.path.realpath(database.path))  # a link stays a link
    schema.require(database)
    database.checkpoint()
    before = place.stat().st_size
    # A killed compaction leaves its folder behind, which the next opening sweeps away.
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
    """Copies all tables; returns the number of tensors left behind."""
    work.execute("COPY FROM DATABASE old TO new (SCHEMA)")
    for table in _TABLES:
        work.execute(f"INSERT INTO new.{table} SELECT * FROM old.{table} {_NAMED.get(table, '')}")
        sums = [_sum(work, f"{name}.{table} {_NAMED.get(table, '')}") for name in ("old", "new")]
        if sums[0] != sums[1]:
            raise StoreDamaged(
                f"the table '{table}' did not arrive as it was",
                path=work.path,
                hint="the store is as before; `editkit verify` says more",
            )
    work.execute("CHECKPOINT new")
    counts = [work.one(f"SELECT count(*) FROM {name}.payloads") for name in ("old", "new")]
    return sum(int(row[0]) * sign for row, sign in zip(counts, (1, -1), strict=True) if row)


def _sum(work: Database, table: str) -> object:
    has_bytes = ".payloads" in table or ".tensors" in table
    columns = "COLUMNS(* EXCLUDE bytes)" if has_bytes else "COLUMNS(*)"
    return work.query(f"SELECT count(*), bit_xor(hash({columns})) FROM {table}")
