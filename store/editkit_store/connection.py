"""The only place that talks to DuckDB: opening, transactions, and the translation of its errors.

DuckDB allows one read-write process or several read-only ones on a file. A lock that is held is
waited for briefly, then reported with the holder's process id.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import duckdb

from editkit_store.errors import (
    EditkitError,
    NotAStore,
    QueryFailed,
    StoreDamaged,
    StoreError,
    StoreExists,
    StoreGone,
    StoreLocked,
    StoreNotFound,
    StoreUnwritable,
)
from editkit_store.translation import first_line, not_duckdb, translate

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = ["BLOCK", "DEFAULT_LOCK_WAIT", "Database", "lock_wait_seconds"]

DEFAULT_LOCK_WAIT = 2.0
"""Seconds to wait for a store that another process holds."""

BLOCK = "65536"
"""Bytes of a block. A small store is a quarter of what it is with DuckDB's default of 256 KiB; with
less than 64, tensors of several kilobytes would waste more of each."""

_ONE_THREAD = "SET threads = 1"
"""For whoever appends. What it asks is small, and handing it to another thread takes longer than
doing it; and the cores have a model to run."""

_PATIENCE = 60.0
"""Seconds to wait for a file that was released: somebody else may be reading it by then."""

_PART = 200  # rows fetched at a time

_GATHERED = 1000  # rows of a transaction that wait to be handed over together

_STREAM_MEMORY = "256MB"
"""DuckDB's memory while it streams. Every block is read once; with all of the memory to fill, each
would take new pages, and half of the time of reading gigabytes would be the system's."""


def lock_wait_seconds() -> float:
    """Returns how long to wait for a held lock: ``EDITKIT_LOCK_WAIT`` in seconds, else 2."""
    text = os.environ.get("EDITKIT_LOCK_WAIT", "")
    try:
        return max(0.0, float(text)) if text else DEFAULT_LOCK_WAIT
    except ValueError:
        return DEFAULT_LOCK_WAIT


class Database:
    """One open DuckDB file.

    Rows always come back as lists: in DuckDB 2 a result streams and owns its connection until it
    is exhausted, so nothing here hands out a cursor. It refuses a second thread instead of letting
    it wait, so threads take turns here: a query at a time, and a transaction as a whole, of which
    nobody sees a part.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool
    ) -> None:
        self.turn = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = connection
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._prepared: dict[tuple[tuple[str, int], ...], duckdb.Statement] = {}
        self._in_transaction = False
        self._has_begun = False  # DuckDB knows of it
        self._gathered: list[tuple[str, Sequence[Any]]] = []  # rows that it does not know yet
        self.failures = 0  # transactions that did not commit
        self._file = _identity(path)
        self.path = path
        self.read_only = read_only

    @classmethod
    def open(cls, path: Path, *, read_only: bool, wait: float | None = None) -> Database:
        """Opens an existing file.

        Args:
            path: The file.
            read_only: Share it with other readers and never write.
            wait: Seconds to wait while another process holds it; ``None`` for the default.

        Raises:
            StoreNotFound: No file there.
            NotAStore: Not a DuckDB file.
            StoreDamaged: Its checksums do not hold.
            StoreLocked: Still held by another process after ``wait`` seconds.
            StoreUnwritable: Missing permission.
        """
        if not os.path.exists(path):
            raise StoreNotFound(
                f"there is no store at '{path}'",
                path=path,
                hint="run `editkit init`, or `editkit add`, which makes one",
            )
        if path.is_dir():
            raise NotAStore(f"'{path}' is a folder, not a store", path=path)
        if not read_only and not os.access(path, os.W_OK):
            raise StoreUnwritable(
                f"the store '{path}' is read-only", path=path, hint="check the file's permissions"
            )
        _check_magic(path)
        deadline = time.monotonic() + (lock_wait_seconds() if wait is None else wait)
        delay = 0.02
        while True:
            found = _identity(path)
            try:
                with _translated(path):
                    connection = duckdb.connect(
                        str(path),
                        read_only=read_only,
                        config={"autoinstall_known_extensions": False},
                    )
                    if _identity(path) == found:
                        if not read_only:
                            connection.execute(_ONE_THREAD)
                        return cls(connection, path, read_only=read_only)
                    # A compaction put another file there after DuckDB had opened the old one.
                    connection.close()
            except StoreLocked as error:
                if error.pid == os.getpid() or time.monotonic() >= deadline:
                    raise
            time.sleep(delay)
            delay = min(0.25, delay * 2)

    @classmethod
    def create(cls, path: Path) -> Database:
        """Makes a new file; ``publish`` gives it its final name.

        Raises:
            StoreNotFound: The folder does not exist.
            StoreUnwritable: No space or no permission.
        """
        with _translated(path):
            return cls(
                duckdb.connect(str(path), config={"default_block_size": BLOCK}),
                path,
                read_only=False,
            )

    @classmethod
    def scratch(cls, path: Path) -> Database:
        """Returns an empty database in memory, to attach files to; ``path`` is for its errors."""
        with _translated(path):
            return cls(
                duckdb.connect(config={"autoinstall_known_extensions": False}),
                path,
                read_only=False,
            )

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def attach(
        self, path: Path, name: str, *, read_only: bool = False, block_size: str | None = None
    ) -> None:
        """Makes a file's tables reachable as ``name.table``.

        Args:
            path: A DuckDB file, or with ``block_size`` one that is made.
            name: Name within this connection.
            read_only: Hold it shared.
            block_size: Bytes.
        """
        options = ["READ_ONLY"] if read_only else []
        options += [f"BLOCK_SIZE {block_size}"] if block_size else []
        where = str(path).replace("'", "''")
        self.execute(
            f"ATTACH '{where}' AS {name}" + (f" ({', '.join(options)})" if options else "")
        )

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Returns all rows of a query."""
        with self.turn:
            if self._gathered:
                self._hand_over()
            with _translated(self.path):
                return self._live().execute(sql, parameters).fetchall()

    def ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Answers somebody's own query; returns the names of the columns, and the rows.

        On a connection that reads only. It is cut off from other files and from its own settings
        first, and stays so.

        Raises:
            QueryFailed: DuckDB refuses the query.
        """
        connection = self._live()
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            found = connection.execute(sql)
            return [column[0] for column in found.description or ()], found.fetchall()
        except duckdb.Error as error:
            said = translate(error, self.path)
            if isinstance(said, StoreDamaged | StoreLocked):
                raise said from error
            raise QueryFailed(
                f"the query failed: {first_line(str(error))}",
                hint="the README lists the views; the store is open to read only",
            ) from error

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Yields the rows of a query in parts; for gigabytes of payloads three times as fast.

        The connection must not be used for anything else until it is through.
        """
        with self.turn, _translated(self.path):
            connection = self._live()
            connection.execute(f"SET memory_limit = '{_STREAM_MEMORY}'; RESET threads")
            try:
                found = connection.execute(sql, parameters)
                while rows := found.fetchmany(_PART):
                    yield rows
            finally:
                connection.execute("RESET memory_limit")
                if not self.read_only:
                    connection.execute(_ONE_THREAD)

    def beside(
        self, pool: Executor, act: Callable[[list[Any]], list[Any]], sql: str, *parameters: Any
    ) -> Future[list[Any]]:
        """Begins to act on what a query of committed rows finds, in a thread that needs no turn."""
        own = self._live().cursor()

        def run() -> list[Any]:
            with _translated(self.path), own:
                parts = iter(functools.partial(own.execute(sql, parameters).fetchmany, _PART), [])
                return [one for part in parts for one in act(part)]

        return pool.submit(run)

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Returns the first row of a query, or ``None``."""
        rows = self.query(sql, parameters)
        return rows[0] if rows else None

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Runs a statement for its effect."""
        self._begin()
        self.query(sql, parameters)

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts ``rows`` into ``table``, columns in the table's order."""
        if len(rows) == 1 and self._in_transaction:
            self._gathered.append((table, rows[0]))
            if len(self._gathered) >= _GATHERED:
                self._hand_over()
        elif rows:
            self._begin()
            self._hand_over()
            self._append(table, rows)

    def _append(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        with _translated(self.path):
            appender = self._live().appender(table)
            appender.append_rows(rows)
            appender.flush()

    def _begin(self) -> None:
        """Tells DuckDB of the transaction. Reading needs none: nobody else can write."""
        if self._in_transaction and not self._has_begun:
            with _translated(self.path):
                self._live().execute("BEGIN TRANSACTION")
            self._has_begun = True

    def _hand_over(self) -> None:
        """Inserts the rows gathered so far, as a part of the transaction."""
        if not self._gathered:
            return
        self._begin()
        if self._is_one_each():
            self._insert_gathered(self._live())
            return
        rows, self._gathered = self._gathered, []
        tables: dict[str, list[Sequence[Any]]] = {}
        for table, row in rows:
            tables.setdefault(table, []).append(row)
        for table, mine in tables.items():
            self._append(table, mine)

    def _is_one_each(self) -> bool:
        """Whether no two of the gathered rows are of one table."""
        return len({table for table, _ in self._gathered}) == len(self._gathered)

    def _insert_gathered(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Inserts rows of different tables in one statement.

        Most of the time of a small statement goes into planning and committing it: five tables in
        five statements and a transaction around them take three times as long.
        """
        rows, self._gathered = self._gathered, []
        key = tuple((table, len(row)) for table, row in rows)
        with _translated(self.path):
            if key not in self._prepared:
                inserts = [f"INSERT INTO {t} VALUES ({', '.join('?' * n)})" for t, n in key]
                parts = [f"i{at} AS ({sql} RETURNING 1)" for at, sql in enumerate(inserts[:-1])]
                sql = (f"WITH {', '.join(parts)} " if parts else "") + inserts[-1]
                (self._prepared[key],) = connection.extract_statements(sql)
            connection.execute(self._prepared[key], [value for _, row in rows for value in row])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits what its body did, or none of it.

        Raises:
            RuntimeError: Transactions do not nest (DuckDB has no savepoints).
            StoreGone: The file has lost its name: somebody removed or replaced it.
            StoreUnwritable: The disk is full; nothing of the body is kept.
        """
        with self.turn:
            yield from self._transaction()

    def _transaction(self) -> Iterator[None]:
        if self._in_transaction:
            raise RuntimeError("a transaction is already open; DuckDB has no savepoints")
        if self._file != _identity(self.path):
            raise StoreGone(
                f"the file of the store '{self.path}' was removed or replaced while it was open; "
                "what would be written now could not be found again",
                path=self.path,
                hint="open the store again; what was done before is in the file that was removed",
            )
        self._in_transaction = True
        try:
            yield
            if self._has_begun or not self._is_one_each():
                self._hand_over()
                self.query("COMMIT")
            elif self._gathered:
                self._insert_gathered(self._write_only())  # a transaction of its own
        except BaseException:
            self.failures += 1
            self._gathered = []
            # After a failed COMMIT there is nothing left to roll back, and DuckDB says so; the
            # error that brought us here is the one to report.
            with contextlib.suppress(EditkitError):
                if self._has_begun:
                    self.query("ROLLBACK")
            raise
        finally:
            self._in_transaction = self._has_begun = False

    def _write_only(self) -> duckdb.DuckDBPyConnection:
        """A second connection to the same database, whose statements are not optimized.

        There is nothing to optimize about inserted rows, and trying takes a third of the time.
        """
        if self._writer is None:
            self._writer = self._live().cursor()
            self._writer.execute("PRAGMA disable_optimizer")
        return self._writer

    def checkpoint(self) -> None:
        """Folds the write-ahead log into the file, so that copying the one file copies all."""
        self.execute("CHECKPOINT")

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Lets go of the file while its body runs; whoever asks or writes meanwhile waits."""
        with self.turn:
            self.close()
            try:
                yield
            finally:
                fresh = Database.open(self.path, read_only=self.read_only, wait=_PATIENCE)
                self._connection, self._file = fresh._connection, fresh._file

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Raises:
            StoreError: The final checkpoint failed; committed operations stay in the log beside
                the file and are there at the next opening.
        """
        with self.turn:
            connection, self._connection = self._connection, None
            writer, self._writer = self._writer, None
            self._prepared.clear()
            if connection is not None:
                with _translated(self.path):
                    if writer is not None:
                        writer.close()
                    connection.close()

    def _live(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise StoreError(f"the store '{self.path}' is closed", path=self.path)
        return self._connection


def _check_magic(path: Path) -> None:
    """Refuses a file that is not DuckDB's before DuckDB looks at it.

    DuckDB would take a SQLite or Parquet file for one to open with an extension of its own.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise StoreUnwritable(
            f"the store '{path}' cannot be read: {error.strerror}", path=path
        ) from error
    if head[8:12] != b"DUCK":
        raise not_duckdb(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns what tells the file at a path from another one that takes its name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside_log(path: Path) -> None:
    """Renames the write-ahead log of a store that is gone, before a new one takes its name.

    DuckDB would take it for the new store's, which would then be damaged. It is kept, for whoever
    finds the store it belongs to.
    """
    log = path.with_name(path.name + ".wal")
    found = _identity(log)
    # In this order: a living store's file is there before its log is.
    if found is None or path.exists():
        return
    aside = log.with_name(log.name + ".left")
    number = 1
    while aside.exists():
        number += 1
        aside = log.with_name(f"{log.name}.left{number}")
    if _identity(log) == found:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.rename(log, aside)


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished new file its name, without ever replacing one that is there.

    Raises:
        StoreExists: Another process was faster.
    """
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise StoreExists(f"'{path}' exists already", path=path) from error
    except OSError:
        # A file system without hard links: the check and the rename are not one step there.
        if path.exists():
            raise StoreExists(f"'{path}' exists already", path=path) from None
        os.rename(temporary, path)
        return
    os.unlink(temporary)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where DuckDB's errors become ours."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, path) from error
    except RuntimeError as error:
        # What Ctrl-C becomes when it arrives inside a query.
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
