"""Who holds a store's file: one descriptor a process, and a lock beside DuckDB's own.

DuckDB locks its file by a POSIX record lock, which belongs to a process and a file and not to a
descriptor: when a process closes *any* descriptor of the file, its lock is gone, silently. A second
process could then open the file to write, and one of the two histories would be lost. So

- a process has one descriptor of a store beside DuckDB's. It is opened before DuckDB opens the file
  and closed after DuckDB closed it, and whoever wants the bytes of a store that is open reads them
  by it. A store is opened once to write, or several times to read;
- there is a second lock, ``flock`` on ``.history.db.lock`` beside the store, which no closing of
  other descriptors loses: alone to write, shared to read. It is taken before the file is opened;
- what a process left in the file is remembered, and compared before it writes again (``mark``).
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from editkit_store.database.errors import not_duckdb
from editkit_store.database.files import convert, flock
from editkit_store.errors import NotAStore, StoreLocked, StoreUnwritable

__all__ = [
    "DEFAULT_LOCK_WAIT",
    "Hold",
    "held_paths",
    "identity",
    "is_held",
    "is_locked",
    "lock_path",
    "lock_wait_seconds",
    "log_path",
]

Identity = tuple[int, int]
"""Device and inode."""

Mark = tuple[int, bytes, Identity | None, int]
"""Bytes of a store's file, its headers, and of its write-ahead log the file and its bytes."""

_HEADERS: Final = 3 * 4096
"""Bytes at the beginning of a DuckDB file; every checkpoint writes one of the three blocks."""

DEFAULT_LOCK_WAIT = 2.0
"""Seconds to wait for a store that another process holds."""

_PART = 1 << 24  # bytes copied at a time


def lock_wait_seconds() -> float:
    """Returns how long to wait for a held lock: ``EDITKIT_LOCK_WAIT`` in seconds, else 2."""
    text = os.environ.get("EDITKIT_LOCK_WAIT", "")
    try:
        return max(0.0, float(text)) if text else DEFAULT_LOCK_WAIT
    except ValueError:
        return DEFAULT_LOCK_WAIT


@dataclass
class _Open:
    """A file that this process has open.

    Attributes:
        path: As it was named.
        number: Our descriptor.
        is_writable: Whether it was opened to write; then there is one user.
        users: How many opened it.
    """

    path: Path
    number: int
    is_writable: bool
    users: int = 1


_OPEN: dict[Identity, _Open] = {}
_LEFT: dict[Identity, int] = {}  # descriptors that could not be closed without losing a lock
_GUARDS: set[int] = set()
_TURN = threading.RLock()


class Hold:
    """One opening of a store, to read or to write, that lasts until ``release``.

    Attributes:
        identity: Device and inode of the file.
    """

    def __init__(self, path: Path, identity: Identity, entry: _Open, guard: int | None) -> None:
        self._path = path
        self.identity = identity
        self._entry = entry
        self._guard = guard
        self._is_released = False

    @classmethod
    def take(cls, path: Path, *, read_only: bool) -> Hold:
        """Takes hold of an existing file, without waiting.

        Args:
            path: The file.
            read_only: Share it with others who read.

        Raises:
            StoreLocked: Somebody holds it: another process, or this one.
            NotAStore: It is not a DuckDB file.
            StoreUnwritable: It cannot be read, or nothing can be made beside it.
            FileNotFoundError: It is gone.
        """
        with _TURN:
            found = identity(path)
            if found is None:
                raise FileNotFoundError(path)
            entry = _OPEN.get(found)
            if entry is not None and (entry.is_writable or not read_only):
                raise StoreLocked(
                    f"the store '{path}' is open in this process already",
                    path=path,
                    pid=os.getpid(),
                    hint="use the one that is open, or close it first",
                )
            guard = _guarded(path, shared=read_only)
            try:
                if entry is None:
                    number = _LEFT.pop(found, None)
                    if number is None:
                        number = _opened(path)
                    entry = _Open(path, number, is_writable=not read_only)
                    # The descriptor says which file it is: by now another one may have the name.
                    found = _identity_of(number)
                    _OPEN[found] = entry
                else:
                    entry.users += 1
            except BaseException:
                _unguarded(path, guard)
                raise
            hold = cls(path, found, entry, guard)
        if hold.read(8, 4) != b"DUCK":
            # DuckDB would take a SQLite or Parquet file for one to open with an extension.
            hold.release()
            raise not_duckdb(path)
        return hold

    def read(self, offset: int, length: int) -> bytes:
        """Returns bytes of the file; fewer at its end."""
        with _TURN:
            if hasattr(os, "pread"):
                return os.pread(self._entry.number, length, offset)
            os.lseek(self._entry.number, offset, os.SEEK_SET)
            return os.read(self._entry.number, length)

    def copy(self, target: Path) -> None:
        """Copies the file and its write-ahead log, while nobody writes.

        Args:
            target: The copy. Its log lies beside it, as that of the original.

        Raises:
            StoreUnwritable: There is no room.
        """
        import shutil

        log, copied = log_path(self._path), log_path(target)
        try:
            with target.open("xb") as out:
                at = 0
                while part := self.read(at, _PART):
                    out.write(part)
                    at += len(part)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(log, copied)
        except OSError as error:
            raise StoreUnwritable(
                f"the store '{self._path}' cannot be copied: {error.strerror}", path=self._path
            ) from error

    def mark(self) -> Mark:
        """Returns what tells that nobody else wrote to the file, or to its log."""
        log = log_path(self._path)
        try:
            found = os.stat(log)
            beside, length = (found.st_dev, found.st_ino), found.st_size
        except OSError:
            beside, length = None, 0
        size = os.fstat(self._entry.number).st_size
        return size, self.read(0, _HEADERS), beside, length

    def share(self) -> None:
        """Lets others read, who could not while this one might write.

        Raises:
            StoreLocked: Somebody was faster, and writes.
        """
        if self._guard is not None and not convert(self._guard, shared=True):
            raise _locked(self._path)

    def release(self) -> None:
        """Lets go, after DuckDB has; a second call does nothing."""
        with _TURN:
            if self._is_released:
                return
            self._is_released = True
            self._entry.users -= 1
            if self._entry.users == 0:
                if _OPEN.get(self.identity) is self._entry:
                    del _OPEN[self.identity]
                if _is_open_elsewhere(self._entry.number, self.identity):
                    # By somebody who uses DuckDB beside us, and whose lock this would lose.
                    _LEFT[self.identity] = self._entry.number
                else:
                    os.close(self._entry.number)
            _unguarded(self._path, self._guard)


def identity(path: Path) -> Identity | None:
    """Returns what tells the file at a path from another one that takes its name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_held(path: Path) -> bool:
    """Returns whether this process has the file at a path open as a store."""
    with _TURN:
        return identity(path) in _OPEN


def is_locked(path: Path) -> bool:
    """Returns whether somebody, in whichever process, holds a store to write to it."""
    try:
        number = flock(lock_path(path), shared=True, wait=False, make=False)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock
        return False
    os.close(number)
    return False


def held_paths() -> list[Path]:
    """Returns the stores that this process has open."""
    with _TURN:
        return [entry.path for entry in _OPEN.values()]


def log_path(store: Path) -> Path:
    """Returns where the write-ahead log of a store is."""
    return store.with_name(store.name + ".wal")


def lock_path(store: Path) -> Path:
    """Returns where the lock of a store is; one for all links to it."""
    real = Path(os.path.realpath(store))
    return real.with_name(f".{real.name}.lock")


def _guarded(path: Path, *, shared: bool) -> int | None:
    """Locks a store; ``None`` where there is no place for a lock, which only readers do without."""
    try:
        mode = os.stat(path).st_mode & 0o666
        guard = flock(lock_path(path), shared=shared, wait=False, mode=mode)
    except BlockingIOError as error:
        raise _locked(path) from error
    except OSError as error:
        # In a folder that cannot be written to nobody can write to the store, which needs a log.
        if shared:
            return None
        raise StoreUnwritable(
            f"the store '{path}' cannot be locked: {error.strerror}",
            path=path,
            hint="a store is written to together with small files beside it: check the folder",
        ) from error
    _GUARDS.add(guard)
    return guard


def _unguarded(path: Path, guard: int | None) -> None:
    if guard is None:
        return
    _GUARDS.discard(guard)
    # Who holds it alone may take the file away; those who wait for it see that it is gone. Where
    # others share it, the last of them does.
    with contextlib.suppress(OSError):
        lock = lock_path(path)
        if convert(guard, shared=False) and os.path.samestat(os.fstat(guard), os.stat(lock)):
            os.unlink(lock)
    os.close(guard)


def _locked(path: Path) -> StoreLocked:
    pid = _holder(path)
    holder = "another process" if pid is None else f"process {pid}"
    return StoreLocked(
        f"the store '{path}' is held by {holder}",
        path=path,
        pid=pid,
        hint="wait until it is done, or stop it; several readers can share a store, "
        "one writer needs it alone",
    )


def _holder(path: Path) -> int | None:
    """Returns the process that holds a store's lock, where the system tells."""
    try:
        inode = os.stat(lock_path(path)).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            # "1: FLOCK  ADVISORY  WRITE 4595 fe:00:2171699 0 EOF"; who waits has a "->" more.
            for line in locks:
                words = line.split()
                if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                    return int(words[4]) if int(words[4]) > 0 else None  # of another container
    except (OSError, ValueError, IndexError):
        pass
    return None


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except IsADirectoryError as error:
        raise NotAStore(f"'{path}' is a folder, not a store", path=path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreUnwritable(
            f"the store '{path}' cannot be read: {error.strerror}", path=path
        ) from error


def _identity_of(number: int) -> Identity:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


def _is_open_elsewhere(number: int, file: Identity) -> bool:
    """Whether this process has another descriptor of a file; where nobody can tell, it has none."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return False
    for other in numbers:
        if other != number and other not in _LEFT.values():
            with contextlib.suppress(OSError):
                if _identity_of(other) == file:
                    return True
    return False


def _forget() -> None:
    """In a child of ``fork``: what it inherited is its parent's.

    A lock of ``flock`` would otherwise last until the child ends, too, even if its parent does.
    """
    global _TURN
    for number in [*_GUARDS, *_LEFT.values(), *(entry.number for entry in _OPEN.values())]:
        with contextlib.suppress(OSError):
            os.close(number)
    _GUARDS.clear()
    _LEFT.clear()
    _OPEN.clear()
    _TURN = threading.RLock()  # another thread may have had it, which is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
