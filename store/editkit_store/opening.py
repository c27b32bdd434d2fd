"""Opening a store: an existing file, a new file, or an in-memory store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from editkit_store.database import schema
from editkit_store.database.connection import Database
from editkit_store.database.files import private_folder, sweep, sync
from editkit_store.database.holding import identity, log_path
from editkit_store.errors import StoreExists, StoreUnwritable
from editkit_store.store import Store

__all__ = ["open_store"]

MEMORY = ":memory:"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_store(
    path: str | os.PathLike[str],
    *,
    write: bool = False,
    create: bool = False,
    wait: float | None = None,
    clock: Callable[[], datetime] = _utc_now,
) -> Store:
    """Opens the store at ``path``.

    Args:
        path: The DuckDB file; ``:memory:`` is an empty store that lives as long as the process.
        write: Open for writing, which is exclusive. An older schema is migrated.
        create: With ``write``, create the file if it does not exist.
        wait: Seconds to wait while another process holds it; ``None`` takes ``EDITKIT_LOCK_WAIT``,
            else 2.
        clock: Source of operation times; UTC now by default.

    Raises:
        StoreNotFound: The file does not exist, and ``create`` is not set.
        NotAStore: The path is not a store.
        StoreDamaged: Its checksums do not match.
        StoreLocked: Another process holds it; the error gives its process id.
        SchemaMismatch: It was written by a newer editkit.
        StoreUnwritable: No permission or no space.
    """
    if str(path) == MEMORY:
        database = Database.create(Path(MEMORY))
        schema.migrate(database, now=clock)
        return Store(database, clock=clock)
    where = Path(path)
    if write and create and not os.path.exists(where):
        # Another process may create it first, which is fine.
        with contextlib.suppress(StoreExists):
            _create(where, clock)
    database = Database.open(where, read_only=not write, wait=wait)
    try:
        if write:
            sweep(where)
            if schema.require(database) < schema.SCHEMA_VERSION:
                schema.migrate(database, now=clock)
        schema.require(database)
    except BaseException:
        database.close()
        raise
    return Store(database, clock=clock)


def _create(path: Path, clock: Callable[[], datetime]) -> None:
    """Creates a complete empty store next to ``path`` and renames it atomically."""
    parent = path.parent
    if parent.is_dir() and not os.access(parent, os.W_OK):
        raise StoreUnwritable(
            f"the folder '{parent}' is not writable, so no store can be created there",
            path=path,
            hint="name another place with --store",
        )
    with private_folder(path) as folder:
        fresh = folder / "new.db"
        target = (
            fresh if parent.is_dir() else path
        )  # a missing folder raises an error with this path
        database = Database.create(target)
        try:
            schema.migrate(database, now=clock)
            database.checkpoint()
        finally:
            database.close()
        sync(target)
        _set_aside_log(path)
        _publish(fresh, path)


def _set_aside_log(path: Path) -> None:
    """Renames the write-ahead log of a deleted store, before a new store takes its name.

    DuckDB would apply it to the new store, which would damage it. It is kept in case the store that
    it belongs to is found.
    """
    log = log_path(path)
    found = identity(log)
    # In this order: an existing store's file is created before its log.
    if found is None or path.exists():
        return
    aside = log.with_name(log.name + ".left")
    number = 1
    while aside.exists():
        number += 1
        aside = log.with_name(f"{log.name}.left{number}")
    if identity(log) == found:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.rename(log, aside)
            sync(aside.parent)


def _publish(temporary: Path, path: Path) -> None:
    """Gives a finished new file its final name, without ever replacing an existing file.

    Raises:
        StoreExists: Another process created the file first.
    """
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise StoreExists(f"'{path}' exists already", path=path) from error
    except OSError:
        # A file system without hard links: there, check and rename are not atomic.
        if path.exists():
            raise StoreExists(f"'{path}' exists already", path=path) from None
        os.rename(temporary, path)
    else:
        os.unlink(temporary)
    sync(path.parent)
