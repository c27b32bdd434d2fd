"""Files and folders beside a store: locked, private, durable."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from editkit_store.errors import StoreUnwritable

try:
    import fcntl
except ImportError:  # Windows: a file that is open there cannot be opened by another writer
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "convert",
    "flock",
    "is_private",
    "locked",
    "private_folder",
    "sweep",
    "sync",
    "write_private",
]

_FOLDER = "private"
"""Part of the names of folders that hold a copy of a store for a while."""


def sync(path: Path) -> None:
    """Makes a file durable, or the names in a folder; a folder on Windows cannot be synced."""
    if os.name == "nt" and path.is_dir():
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_private(path: Path, text: str) -> None:
    """Puts a file there that only its owner can read; nobody ever sees a part of it.

    It is durable: what it replaced, a revoked token for instance, does not come back after a power
    cut.

    Raises:
        StoreUnwritable: The folder cannot be written to.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise
        sync(path.parent)
    except OSError as error:
        raise StoreUnwritable(
            f"'{path}' cannot be written: {error.strerror}",
            path=path,
            hint="the server keeps small files beside the store",
        ) from error


def is_private(path: Path) -> bool:
    """Returns whether a file is ours, and nobody else can read or write it."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    if os.name == "nt":  # permissions are elsewhere there
        return True
    return found.st_uid == os.getuid() and not found.st_mode & 0o077


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other processes from changing a file while the body does.

    The lock is the system's (``flock``), on a file beside it: it ends with the process that holds
    it, so none is ever left behind, and there is no guessing whether somebody is dead.

    Raises:
        StoreUnwritable: The folder cannot be written to.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        number = flock(lock, shared=False, wait=True)
    except OSError as error:
        raise StoreUnwritable(f"'{path}' cannot be changed: {error.strerror}", path=path) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)  # while it is held; whoever waits for it sees that it is gone
        os.close(number)


def flock(lock: Path, *, shared: bool, wait: bool, make: bool = True, mode: int = 0o600) -> int:
    """Locks a file; returns the descriptor that holds the lock.

    The lock belongs to that descriptor alone: nothing that the process does with other ones loses
    it. To take the file away while it is locked alone is safe.

    Args:
        lock: The file.
        shared: Others may hold it shared at the same time.
        wait: Wait for whoever holds it.
        make: Make the file where there is none.
        mode: Permissions of a new file.

    Raises:
        BlockingIOError: Somebody holds it, and not ``wait``.
        OSError: The file cannot be made or opened.
    """
    how = 0 if fcntl is None else _how(shared) | (0 if wait else fcntl.LOCK_NB)
    flags = (os.O_CREAT if make else 0) | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            number = os.open(lock, os.O_RDWR | flags, mode)
        except PermissionError:
            # Whoever may only read the store may read its lock, too; that is enough to hold it.
            number = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if fcntl is not None:
                fcntl.flock(number, how)
            if os.path.samestat(os.fstat(number), os.stat(lock)):
                return number
        except FileNotFoundError:
            pass  # taken away by who held it: a lock on it locks nobody out
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def convert(number: int, *, shared: bool) -> bool:
    """Makes a lock of ``flock`` shared, or its holder's alone; returns whether it could be.

    On the way others may get it; then it is lost.
    """
    if fcntl is not None:
        try:
            fcntl.flock(number, _how(shared) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _how(shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX


# Private copies ------------------------------------------------------------------------------


@contextlib.contextmanager
def private_folder(store: Path) -> Iterator[Path]:
    """Yields a new folder, for the owner's eyes only, that is gone after the body.

    It lies beside the store, or where temporary files lie if nothing can be written there. A lock
    on it ends with this process: what a killed one left behind, ``sweep`` takes away.

    Args:
        store: The store's file.

    Raises:
        StoreUnwritable: There is no room for it.
    """
    import tempfile

    real = Path(os.path.realpath(store))
    beside = real.parent if os.access(real.parent, os.W_OK) else None
    try:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(real), dir=beside))
    except OSError as error:
        raise StoreUnwritable(
            f"the store '{store}' cannot be copied: {error.strerror}", path=store
        ) from error
    try:
        number = _locked_folder(folder)
        try:
            yield folder
        finally:
            if number is not None:
                os.close(number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(store: Path) -> None:
    """Takes away what processes that were killed left beside a store: copies of it.

    Only whoever alone holds the store may: others make such folders while they hold it.
    """
    real = Path(os.path.realpath(store))
    for suffix in (".compact", ".compact.wal"):  # of releases before 0.2
        with contextlib.suppress(OSError):
            real.with_name(f".{real.name}{suffix}").unlink(missing_ok=True)
    with contextlib.suppress(OSError), os.scandir(real.parent) as entries:
        for entry in entries:
            if entry.name.startswith(_prefix(real)) and entry.is_dir(follow_symlinks=False):
                folder = Path(entry.path)
                number = _locked_folder(folder)
                if number is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(number)


def _prefix(store: Path) -> str:
    return f".{store.name}-{_FOLDER}-"


def _locked_folder(folder: Path) -> int | None:
    """Locks a folder; returns ``None`` where somebody has, or where there are no such locks."""
    if fcntl is None:
        return None
    number = None
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if number is not None:
            os.close(number)
        return None
    return number
