"""Holding a store's file: one descriptor per process, and a lock in addition to DuckDB's.

DuckDB locks its file with a POSIX record lock, which belongs to a process and a file, not to a
descriptor: when a process closes *any* descriptor of the file, its lock is silently released. A
second process could then open the file for writing, and one of the two histories would be lost. So

- a process has one descriptor of a store in addition to DuckDB's. It is opened before DuckDB opens
  the file and closed after DuckDB closed it, and is used to read the bytes of an open store. A
  store is opened once for writing, or several times for reading;
- there is a second lock, ``flock`` on ``.history.db.lock`` next to the store, which closing other
  descriptors does not release: exclusive for writing, shared for reading. It is taken before the
  file is opened;
- the state in which a process left the file is recorded, and compared before it writes again
  (``mark``).
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
"""Size of a store's file, its headers, and identity and size of its write-ahead log."""

_HEADERS: Final = 3 * 4096
"""Bytes of the headers of a DuckDB file; every checkpoint writes one of the three blocks."""

DEFAULT_LOCK_WAIT = 2.0
"""Seconds to wait for a store that another process holds."""

_PART = 1 << 24  # bytes per copy step


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
        path: Path that it was opened by.
        number: File descriptor.
        is_writable: Whether it was opened for writing; then there is one user.
        users: Number of users.
    """

    path: Path
    number: int
    is_writable: bool
    users: int = 1


_OPEN: dict[Identity, _Open] = {}
_LEFT: dict[Identity, int] = {}  # descriptors that could not be closed without releasing a lock
_GUARDS: set[int] = set()
_TURN = threading.RLock()


class Hold:
    """An open store, for reading or writing, held until ``release``.

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
        """Holds an existing file, without waiting.

        Args:
            path: The file.
            read_only: Share it with other readers.

        Raises:
            StoreLocked: Another process, or this one, holds it.
            NotAStore: It is not a DuckDB file.
            StoreUnwritable: It cannot be read, or no files can be created next to it.
            FileNotFoundError: It does not exist.
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
            guard = _take_guard(path, shared=read_only)
            try:
                if entry is None:
                    number = _LEFT.pop(found, None)
                    if number is None:
                        number = _open_file(path)
                    entry = _Open(path, number, is_writable=not read_only)
                    # The identity comes from the descriptor: another file may have the name by now.
                    found = _identity_of(number)
                    _OPEN[found] = entry
                else:
                    entry.users += 1
            except BaseException:
                _release_guard(path, guard)
                raise
            hold = cls(path, found, entry, guard)
        if hold.read(8, 4) != b"DUCK":
            # DuckDB would open a SQLite or Parquet file with an extension.
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
        """Copies the file and its write-ahead log; nothing may write meanwhile.

        Args:
            target: The copy. Its log is next to it, like the original's.

        Raises:
            StoreUnwritable: There is no space.
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
        """Returns a mark that changes if another process writes to the file or its log."""
        log = log_path(self._path)
        try:
            found = os.stat(log)
            beside, length = (found.st_dev, found.st_ino), found.st_size
        except OSError:
            beside, length = None, 0
        size = os.fstat(self._entry.number).st_size
        return size, self.read(0, _HEADERS), beside, length

    def share(self) -> None:
        """Converts the lock to shared, so that others can read.

        Raises:
            StoreLocked: Another process opened it for writing first.
        """
        if self._guard is not None and not convert(self._guard, shared=True):
            raise _locked_error(self._path)

    def release(self) -> None:
        """Releases the file, after DuckDB closed it; a second call does nothing."""
        with _TURN:
            if self._is_released:
                return
            self._is_released = True
            self._entry.users -= 1
            if self._entry.users == 0:
                if _OPEN.get(self.identity) is self._entry:
                    del _OPEN[self.identity]
                if _is_open_elsewhere(self._entry.number, self.identity):
                    # Other code in this process uses DuckDB on it; closing would release its lock.
                    _LEFT[self.identity] = self._entry.number
                else:
                    os.close(self._entry.number)
            _release_guard(self._path, self._guard)


def identity(path: Path) -> Identity | None:
    """Returns the identity of the file at a path, which differs for a file that replaces it."""
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
    """Returns whether any process holds a store for writing."""
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
    """Returns the path of a store's write-ahead log."""
    return store.with_name(store.name + ".wal")


def lock_path(store: Path) -> Path:
    """Returns the path of a store's lock file; the same for all links to it."""
    real = Path(os.path.realpath(store))
    return real.with_name(f".{real.name}.lock")


def _take_guard(path: Path, *, shared: bool) -> int | None:
    """Locks a store; returns ``None`` for a reader if no lock file can be created."""
    try:
        mode = os.stat(path).st_mode & 0o666
        guard = flock(lock_path(path), shared=shared, wait=False, mode=mode)
    except BlockingIOError as error:
        raise _locked_error(path) from error
    except OSError as error:
        # In a read-only folder no process can write to the store, since writing needs a log.
        if shared:
            return None
        raise StoreUnwritable(
            f"the store '{path}' cannot be locked: {error.strerror}",
            path=path,
            hint="writing a store needs small files next to it: check the folder's permissions",
        ) from error
    _GUARDS.add(guard)
    return guard


def _release_guard(path: Path, guard: int | None) -> None:
    if guard is None:
        return
    _GUARDS.discard(guard)
    # The exclusive holder may delete the file; waiting processes notice that it is gone. If it is
    # shared, the last holder deletes it.
    with contextlib.suppress(OSError):
        lock = lock_path(path)
        if convert(guard, shared=False) and os.path.samestat(os.fstat(guard), os.stat(lock)):
            os.unlink(lock)
    os.close(guard)


def _locked_error(path: Path) -> StoreLocked:
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
    """Returns the process that holds a store's lock, if the system reports it."""
    try:
        inode = os.stat(lock_path(path)).st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            # "1: FLOCK  ADVISORY  WRITE 4595 fe:00:2171699 0 EOF"; waiting ones have an extra "->".
            for line in locks:
                words = line.split()
                if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                    return int(words[4]) if int(words[4]) > 0 else None  # in another container
    except (OSError, ValueError, IndexError):
        pass
    return None


def _open_file(path: Path) -> int:
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
    """Whether this process has another descriptor of a file; False if that cannot be determined."""
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


def _after_fork() -> None:
    """Closes the inherited descriptors in a child of ``fork``: they belong to the parent.

    Otherwise a lock of ``flock`` would last until the child ends too.
    """
    global _TURN
    for number in [*_GUARDS, *_LEFT.values(), *(entry.number for entry in _OPEN.values())]:
        with contextlib.suppress(OSError):
            os.close(number)
    _GUARDS.clear()
    _LEFT.clear()
    _OPEN.clear()
    _TURN = threading.RLock()  # a thread of the parent may hold the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
