"""Writing output files (pages, plots, tables), never over a store."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from editkit_store.database.holding import held_paths, is_held
from editkit_store.errors import UnsafeTarget

__all__ = ["family", "is_duckdb", "refuse_store", "replace_output", "write_output"]

_SUFFIXES = (".wal", ".server", ".tokens")
"""Suffixes of the files that belong to a store."""


def family(store: Path) -> tuple[Path, ...]:
    """Returns the paths of the files that a store consists of."""
    real = Path(os.path.realpath(store))
    return (real, *(real.with_name(real.name + suffix) for suffix in _SUFFIXES))


def refuse_store(path: Path) -> None:
    """Raises if a path is a DuckDB file, or belongs to one.

    Existing files are checked by content, not by name: a link to a store is the store. New files
    are checked by name: DuckDB would use ``history.db.wal`` as the log of ``history.db``.

    Args:
        path: The file to write.

    Raises:
        UnsafeTarget: The path is a store, or belongs to one.
    """
    real = Path(os.path.realpath(path))
    stems = [str(real).removesuffix(suffix) for suffix in _SUFFIXES if real.name.endswith(suffix)]
    if is_duckdb(real) or any(is_duckdb(Path(stem)) for stem in stems) or _is_linked(real):
        raise UnsafeTarget(
            f"'{path}' is a DuckDB file, or belongs to one: nothing is written over it",
            path=path,
            hint="name another file",
        )


def _is_linked(path: Path) -> bool:
    """Whether a path is a hard link to a file of a store that this process has open."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        for member in (one for store in held_paths() for one in family(store)):
            with contextlib.suppress(OSError):
                if os.path.samestat(found, os.stat(member)):
                    return True
    return False


def is_duckdb(path: Path) -> bool:
    """Returns whether the file at a path is a DuckDB file."""
    # A file that this process holds is not opened: closing it would release DuckDB's lock.
    if is_held(path):
        return True
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(number).st_mode) and os.pread(number, 12, 0)[8:] == b"DUCK"
    except OSError:
        return False
    finally:
        os.close(number)


def write_output(path: Path, data: bytes) -> None:
    """Writes an output file, over an existing one unless that belongs to a store.

    Args:
        path: The file.
        data: Its content.

    Raises:
        UnsafeTarget: The path is a store, or belongs to one.
        OSError: The file cannot be written.
    """
    refuse_store(path)
    path.write_bytes(data)


def replace_output(path: Path, data: bytes) -> None:
    """Writes a file as ``write_output`` does, but atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        data: Its content.

    Raises:
        UnsafeTarget: The path is a store, or belongs to one.
        OSError: The file cannot be written.
    """
    refuse_store(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fresh.write_bytes(data)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
