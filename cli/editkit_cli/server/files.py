"""Small private files beside a store: written in one step, for their owner's eyes only."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from editkit_store.errors import StoreUnwritable

__all__ = ["is_private", "locked", "write_private"]


def write_private(path: Path, text: str) -> None:
    """Puts a file there that only its owner can read; nobody ever sees a part of it.

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
        number = _held(lock)
    except OSError as error:
        raise StoreUnwritable(f"'{path}' cannot be changed: {error.strerror}", path=path) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)  # while it is held; whoever waits for it sees that it is gone
        os.close(number)


def _held(lock: Path) -> int:
    """Waits for a lock; returns the open file that holds it."""
    import fcntl  # here: commands that only look for a server should run where there is none

    while True:
        number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(number), os.stat(lock)):
                return number
        except FileNotFoundError:
            pass  # taken away by who held it: a lock on it locks nobody out
        except BaseException:
            os.close(number)
            raise
        os.close(number)
