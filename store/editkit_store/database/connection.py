"""The only place that talks to DuckDB: opening, transactions, and the translation of its errors.

DuckDB allows one read-write process or several read-only ones on a file, and so does ``holding``. A
lock that is held is waited for briefly, then reported with the holder's process id.
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

from editkit_store.database.errors import first_line, translate
from editkit_store.database.holding import Hold, identity, lock_wait_seconds
from editkit_store.database.rows import Gathered, append
from editkit_store.errors import (
    EditkitError,
    NotAStore,
    QueryFailed,
    StoreChanged,
    StoreError,
    StoreGone,
    StoreLocked,
    StoreNotFound,
    StoreUnwritable,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = ["BLOCK", "Database"]

BLOCK = "65536"
"""Bytes of a block. A small store is a quarter of what it is with DuckDB's default of 256 KiB; with
less than 64, tensors of several kilobytes would waste more of each."""

_ONE_THREAD = "SET threads = 1"
"""For whoever appends. What it asks is small, and handing it to another thread takes longer than
doing it; and the cores have a model to run."""

_PATIENCE = 60.0
"""Seconds to wait for a file that was released: somebody else may be reading it by then."""

_PART = 200  # rows fetched at a time

_STREAM_MEMORY = "256MB"
"""DuckDB's memory while it streams. Every block is read once; with all of the memory to fill, each
would take new pages, and half of the time of reading gigabytes would be the system's."""


class Database:
    """One open DuckDB file.

    Rows always come back as lists: in DuckDB 2 a result streams and owns its connection until it
    is exhausted, so nothing here hands out a cursor. It refuses a second thread instead of letting
    it wait, so threads take turns here: a query at a time, and a transaction as a whole, of which
    nobody sees a part.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path,
        *,
        read_only: bool,
        hold: Hold | None = None,
    ) -> None:
        self.turn = threading.RLock()
        self._connection: duckdb.DuckDBPyConnection | None = connection
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._in_transaction = False
        self._has_begun = False  # DuckDB knows of it
        self._gathered = Gathered()
        self.failures = 0  # transactions that did not commit
        self._hold = hold
        self._left = hold and hold.mark()  # what we left in the file
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
        deadline = time.monotonic() + (lock_wait_seconds() if wait is None else wait)
        delay = 0.02
        while True:
            try:
                if (found := cls._opened(path, read_only=read_only)) is not None:
                    return found
            except StoreLocked as error:
                if error.pid == os.getpid() or time.monotonic() >= deadline:
                    raise
            time.sleep(delay)
            delay = min(0.25, delay * 2)

    @classmethod
    def _opened(cls, path: Path, *, read_only: bool) -> Database | None:
        """Opens a file; ``None`` where another one took its name meanwhile (a compaction does)."""
        try:
            hold = Hold.take(path, read_only=read_only)
        except FileNotFoundError:
            return None
        connection = None
        try:
            with _translated(path):
                connection = duckdb.connect(
                    str(path),
                    read_only=read_only,
                    config={"autoinstall_known_extensions": False},
                )
                if identity(path) == hold.identity:
                    if not read_only:
                        connection.execute(_ONE_THREAD)
                    found = cls(connection, path, read_only=read_only, hold=hold)
                    connection = hold = None  # type: ignore[assignment]  # they are its own now
                    return found
        finally:
            if connection is not None:
                connection.close()
            if hold is not None:
                hold.release()
        return None

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

    def ask(self, sql: str, part: int = _PART) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
        """Returns the names of a query's columns, and its rows in parts."""
        with _translated(self.path):
            found = self._live().execute(sql)
            names = [column[0] for column in found.description or ()]

        def parts() -> Iterator[list[tuple[Any, ...]]]:
            with _translated(self.path):
                while rows := found.fetchmany(part):
                    yield rows

        return names, parts()

    def interrupt(self) -> None:
        """Ends the query that runs, if one does; from any thread."""
        self._live().interrupt()

    @staticmethod
    def statements(sql: str) -> list[str]:
        """Returns what kinds of statements a text has, in their order, as DuckDB's parser tells.

        Raises:
            QueryFailed: It does not read.
        """
        try:
            return [one.type.name for one in duckdb.extract_statements(sql)]
        except duckdb.Error as error:
            raise QueryFailed(f"the query failed: {first_line(str(error))}") from error

    @staticmethod
    def behind_first_word(sql: str) -> str:
        """Returns a statement without its first word, and without comments around that."""
        data, comment = sql.encode(), duckdb.token_type.comment
        places = [offset for offset, kind in duckdb.tokenize(sql) if kind != comment]
        return data[places[1] :].decode() if len(places) > 1 else ""

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
        with self.turn:
            self._begin()
            self.query(sql, parameters)
            if not self._in_transaction:
                self._note()

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts ``rows`` into ``table``, columns in the table's order."""
        if len(rows) == 1 and self._in_transaction:
            if self._gathered.add(table, rows[0]):
                self._hand_over()
        elif rows:
            self._begin()
            self._hand_over()
            with _translated(self.path):
                append(self._live(), table, rows)

    def _begin(self) -> None:
        """Tells DuckDB of the transaction. Reading needs none: nobody else can write."""
        if self._in_transaction and not self._has_begun:
            with _translated(self.path):
                self._live().execute("BEGIN TRANSACTION")
            self._has_begun = True

    def _hand_over(self) -> None:
        """Inserts the rows gathered so far, as a part of the transaction."""
        if self._gathered:
            self._begin()
            with _translated(self.path):
                self._gathered.insert(self._live())

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
        self.check_own()
        self._in_transaction = True
        try:
            yield
            if self._has_begun or not self._gathered.is_one_each():
                self._hand_over()
                self.query("COMMIT")
            elif self._gathered:
                with _translated(self.path):  # a transaction of its own
                    self._gathered.insert_at_once(self._write_only())
        except BaseException:
            self.failures += 1
            self._gathered.clear()
            # After a failed COMMIT there is nothing left to roll back, and DuckDB says so; the
            # error that brought us here is the one to report.
            with contextlib.suppress(EditkitError):
                if self._has_begun:
                    self.query("ROLLBACK")
            raise
        finally:
            self._in_transaction = self._has_begun = False
            self._note()

    def _note(self) -> None:
        """Notes what we left in the file."""
        self._left = self._hold and self._hold.mark()

    def check_own(self) -> None:
        """Refuses to go on with a file that is not as this process left it.

        Raises:
            StoreGone: The file has lost its name: somebody removed or replaced it.
            StoreChanged: Somebody else wrote to it, or to its log.
        """
        if self._hold is None:
            return
        if self._hold.identity != identity(self.path):
            raise StoreGone(
                f"the file of the store '{self.path}' was removed or replaced while it was open; "
                "what would be written now could not be found again",
                path=self.path,
                hint="open the store again; what was done before is in the file that was removed",
            )
        if self._hold.mark() != self._left:
            raise _changed(self.path)

    def read_file(self, offset: int, length: int) -> bytes:
        """Returns bytes of the file, without opening it: closing it would lose DuckDB's lock."""
        return self._hold.read(offset, length) if self._hold is not None else b""

    def copy_to(self, target: Path) -> None:
        """Copies all that is committed, while nobody else has a turn.

        Raises:
            StoreGone, StoreChanged: See ``check_own``.
            StoreUnwritable: There is no room.
        """
        with self.turn:
            if self.read_only:
                self.check_own()
            else:
                self.checkpoint()
            if self._hold is not None:
                self._hold.copy(target)

    def _write_only(self) -> duckdb.DuckDBPyConnection:
        """A second connection to the same database, whose statements are not optimized.

        There is nothing to optimize about inserted rows, and trying takes a third of the time.
        """
        if self._writer is None:
            self._writer = self._live().cursor()
            self._writer.execute("PRAGMA disable_optimizer")
        return self._writer

    def checkpoint(self) -> None:
        """Folds the write-ahead log into the file, so that copying the one file copies all.

        Raises:
            StoreGone, StoreChanged: See ``check_own``.
        """
        with self.turn:
            self.check_own()
            self.execute("CHECKPOINT")

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Lets go of the file while its body runs; whoever asks or writes meanwhile waits."""
        with self.turn:
            hold, self._hold = self._hold, None
            try:
                self.close()
                if hold is not None:
                    hold.share()
                yield
            finally:
                if hold is not None:
                    hold.release()
                fresh = Database.open(self.path, read_only=self.read_only, wait=_PATIENCE)
                self._connection, self._hold = fresh._connection, fresh._hold
                self._note()

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Raises:
            StoreChanged: Somebody else wrote to the file. What they wrote is left as it is.
            StoreError: The final checkpoint failed; committed operations stay in the log beside
                the file and are there at the next opening.
        """
        with self.turn:
            connection, self._connection = self._connection, None
            writer, self._writer = self._writer, None
            hold, self._hold = self._hold, None
            self._gathered.forget()
            if connection is None:
                return
            has_changed = hold is not None and not self.read_only and hold.mark() != self._left
            try:
                with _translated(self.path):
                    if has_changed:
                        # DuckDB would write what it holds over what somebody else wrote.
                        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
                    if writer is not None:
                        writer.close()
                    connection.close()
            finally:
                if hold is not None:
                    hold.release()
            if has_changed:
                raise _changed(self.path)

    def _live(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            raise StoreError(f"the store '{self.path}' is closed", path=self.path)
        return self._connection


def _changed(path: Path) -> StoreChanged:
    return StoreChanged(
        f"somebody else wrote to the store '{path}' while it was open here; nothing more is "
        "written, so that nothing of theirs is lost",
        path=path,
        hint="close it everywhere, keep a copy of the file and of the .wal beside it, and run "
        "`editkit verify`",
    )


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
