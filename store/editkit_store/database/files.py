"""Files and folders next to a store: locks, private files, durable writes."""

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
except ImportError:  # Windows, where an open file cannot be opened by another writer
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
"""Part of the names of folders for temporary copies of a store."""


def sync(path: Path) -> None:
    """Makes a file or a folder's entries durable; Windows cannot sync folders."""
    if os.name == "nt" and path.is_dir():
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, atomically.

    It is durable: replaced content, e.g. a revoked token, does not reappear after a power failure.

    Raises:
        StoreUnwritable: The folder is not writable.
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
            hint="the server keeps small files next to the store",
        ) from error


def is_private(path: Path) -> bool:
    """Returns whether a file belongs to this user, and no other user can read or write it."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    if os.name == "nt":  # has no such permission bits
        return True
    return found.st_uid == os.getuid() and not found.st_mode & 0o077


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a file against changes by other processes during its body.

    The lock is the system's (``flock``), on a separate file next to it. It ends with the process
    that holds it, so there are no stale locks.

    Raises:
        StoreUnwritable: The folder is not writable.
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
            os.unlink(lock)  # while it is held; waiting processes notice that it is gone
        os.close(number)


def flock(lock: Path, *, shared: bool, wait: bool, make: bool = True, mode: int = 0o600) -> int:
    """Locks a file; returns the descriptor that holds the lock.

    The lock belongs to that descriptor: closing other descriptors does not release it. Deleting the
    file while it is locked exclusively is safe.

    Args:
        lock: The file.
        shared: Take a shared lock.
        wait: Wait until the lock is free.
        make: Create the file if it does not exist.
        mode: Permissions of a new file.

    Raises:
        BlockingIOError: It is held, and ``wait`` is not set.
        OSError: The file cannot be created or opened.
    """
    how = 0 if fcntl is None else _lock_mode(shared) | (0 if wait else fcntl.LOCK_NB)
    flags = (os.O_CREAT if make else 0) | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            number = os.open(lock, os.O_RDWR | flags, mode)
        except PermissionError:
            # Users with read access to the store can read its lock file, which suffices to lock it.
            number = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if fcntl is not None:
                fcntl.flock(number, how)
            if os.path.samestat(os.fstat(number), os.stat(lock)):
                return number
        except FileNotFoundError:
            pass  # deleted by its holder, so this lock has no effect
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def convert(number: int, *, shared: bool) -> bool:
    """Converts a lock of ``flock`` to shared or exclusive; returns whether that succeeded.

    The conversion is not atomic: another process may get the lock, and then it is lost.
    """
    if fcntl is not None:
        try:
            fcntl.flock(number, _lock_mode(shared) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _lock_mode(shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX


# Private copies ------------------------------------------------------------------------------


@contextlib.contextmanager
def private_folder(store: Path) -> Iterator[Path]:
    """Yields a new private folder that is deleted after the body.

    It is next to the store, or in the folder for temporary files if that is not writable. It is
    locked by this process; ``sweep`` deletes folders that killed processes left behind.

    Args:
        store: The store's file.

    Raises:
        StoreUnwritable: The folder cannot be created.
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
        number = _lock_folder(folder)
        try:
            yield folder
        finally:
            if number is not None:
                os.close(number)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(store: Path) -> None:
    """Deletes copies of a store that killed processes left next to it.

    Call it only while holding the store exclusively: other holders may be using such folders.
    """
    real = Path(os.path.realpath(store))
    for suffix in (".compact", ".compact.wal"):  # from releases before 0.2
        with contextlib.suppress(OSError):
            real.with_name(f".{real.name}{suffix}").unlink(missing_ok=True)
    with contextlib.suppress(OSError), os.scandir(real.parent) as entries:
        for entry in entries:
            if entry.name.startswith(_prefix(real)) and entry.is_dir(follow_symlinks=False):
                folder = Path(entry.path)
                number = _lock_folder(folder)
                if number is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(number)


def _prefix(store: Path) -> str:
    return f".{store.name}-{_FOLDER}-"


def _lock_folder(folder: Path) -> int | None:
    """Locks a folder; returns ``None`` if it is locked already, or locks are not supported."""
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
