"""Small private files beside a store: written in one step, for their owner's eyes only."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from editkit_store.errors import StoreUnwritable

__all__ = ["is_private", "locked", "write_private"]

_WAIT = 5.0
"""Seconds to wait for another process that is changing the same file, before it counts as dead."""


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
    """Keeps other processes from changing a file while the body does, as git does: by a file.

    Raises:
        StoreUnwritable: The folder cannot be written to.
    """
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            if time.monotonic() >= deadline:  # whoever made it is gone
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(lock)
                deadline = time.monotonic() + _WAIT
            time.sleep(0.02)
        except OSError as error:
            raise StoreUnwritable(
                f"'{path}' cannot be changed: {error.strerror}", path=path
            ) from error
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
