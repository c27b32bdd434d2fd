"""Translation of DuckDB's errors to those of editkit."""

from __future__ import annotations

import os
import re
from pathlib import Path

from editkit_store.errors import (
    EditkitError,
    NotAStore,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreNotFound,
    StoreUnwritable,
)

__all__ = ["Duplicate", "MissingTable", "first_line", "not_duckdb", "translate"]

_HOLDER = re.compile(r"\(PID (\d+)\)")
_FULL = ("no space left", "disk full", "file too large", "quota exceeded", "out of disk")
_DENIED = (
    "permission denied",
    "read-only file system",
    "cannot open file",
    "operation not permitted",
)
_DAMAGE = (
    "corrupt",
    "checksum",
    "failed to deserialize",
    "serialization error",
    "could not read enough bytes",
    "failure while replaying wal",
    "wal file",
    "invalid block",
)


class Duplicate(StoreError):
    """A row that exists already. Internal to the store."""

    code = "duplicate"


class MissingTable(StoreError):
    """A statement uses a table or column that the file does not have. Internal to the store."""

    code = "missing_table"


def translate(error: Exception, path: Path) -> EditkitError:
    """Returns the editkit error for a DuckDB error on the store at ``path``."""
    text, kind = str(error), type(error).__name__
    low = text.lower()
    if "lock on file" in low or "different configuration" in low or "already open" in low:
        found = _HOLDER.search(text)
        pid = int(found.group(1)) if found else (os.getpid() if "different" in low else None)
        holder = f"process {pid}" if pid is not None else "another process"
        return StoreLocked(
            f"the store '{path}' is held by {holder}",
            path=path,
            pid=pid,
            hint="wait until it is done, or stop it; several readers can share a store, "
            "one writer needs it alone",
        )
    if any(word in low for word in _FULL):
        return StoreUnwritable(
            f"the store '{path}' cannot grow: {first_line(text)}",
            path=path,
            hint="free disk space and run it again; everything acknowledged before is kept",
        )
    if "not a valid duckdb" in low:
        return not_duckdb(path)
    if any(word in low for word in _DAMAGE):
        return StoreDamaged(
            f"the store '{path}' is damaged: {first_line(text)}",
            path=path,
            hint="restore the file from a copy; nothing was changed",
        )
    if "newer version" in low or "storage version" in low or "older version" in low:
        return NotAStore(
            f"'{path}' was written by a DuckDB that this one cannot read: {first_line(text)}",
            path=path,
            hint="upgrade the duckdb package",
        )
    if "no such file" in low:
        return StoreNotFound(f"the folder of '{path}' does not exist", path=path)
    if "is a directory" in low:
        return NotAStore(f"'{path}' is a folder, not a store", path=path)
    if any(word in low for word in _DENIED) or "read-only mode" in low:
        return StoreUnwritable(
            f"the store '{path}' cannot be written: {first_line(text)}", path=path
        )
    if kind in ("FatalException", "InternalException"):
        return StoreDamaged(
            f"the store '{path}' cannot continue: {first_line(text)}",
            path=path,
            hint="open it again; it is then at its last complete version",
        )
    if kind == "ConstraintException":
        return Duplicate(f"the store '{path}' has that row: {first_line(text)}", path=path)
    if kind in ("CatalogException", "BinderException"):
        return MissingTable(f"the store '{path}' lacks a table: {first_line(text)}", path=path)
    return StoreError(f"the store '{path}' failed: {first_line(text)}", path=path)


def first_line(text: str) -> str:
    """Returns the first line of DuckDB's message."""
    lines = text.strip().splitlines()
    return lines[0] if lines else "no reason given"


def not_duckdb(path: Path) -> NotAStore:
    """Returns the error for a file that is not a DuckDB file."""
    return NotAStore(
        f"'{path}' is not a DuckDB file",
        path=path,
        hint="name another file with --store",
    )
