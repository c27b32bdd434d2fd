"""The only module that calls DuckDB: opening, transactions, and translating its errors.

DuckDB allows one read-write process or several read-only ones on a file, and so does ``holding``.
Opening waits briefly for a held lock, then raises an error with the holder's process id.
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
"""Block size in bytes. It makes a small store a quarter as large as DuckDB's default of 256 KiB;
with less than 64 KiB, tensors of several kilobytes would waste more of each block."""

_ONE_THREAD = "SET threads = 1"
"""Setting for writers. Their queries are small, so passing them to another thread takes longer than
running them, and the cores are needed for the model."""

_PATIENCE = 60.0
"""Seconds to wait to reopen a released file, which another process may be reading."""

_PART = 200  # rows per fetch

_STREAM_MEMORY = "256MB"
"""DuckDB's memory limit while streaming. Every block is read only once; without a limit each would
take new pages, and half of the time of reading gigabytes would be spent in the kernel."""


class Database:
    """One open DuckDB file.

    Rows are always returned as lists: in DuckDB 2 a result streams and owns its connection until it
    is exhausted, so no method returns a cursor. DuckDB refuses a second thread instead of blocking
    it, so this class serializes threads: one query at a time, and one transaction as a whole, so
    that no thread sees a partial one.
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
        self._has_begun = False  # BEGIN was sent to DuckDB
        self._gathered = Gathered()
        self.failures = 0  # transactions that did not commit
        self._hold = hold
        self._left = hold and hold.mark()  # the file as this process left it
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
            StoreNotFound: The file does not exist.
            NotAStore: It is not a DuckDB file.
            StoreDamaged: Its checksums do not match.
            StoreLocked: Still held by another process after ``wait`` seconds.
            StoreUnwritable: Missing permission.
        """
        if not os.path.exists(path):
            raise StoreNotFound(
                f"there is no store at '{path}'",
                path=path,
                hint="run `editkit init`, or `editkit add`, which creates one",
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
                if (found := cls._try_open(path, read_only=read_only)) is not None:
                    return found
            except StoreLocked as error:
                if error.pid == os.getpid() or time.monotonic() >= deadline:
                    raise
            time.sleep(delay)
            delay = min(0.25, delay * 2)

    @classmethod
    def _try_open(cls, path: Path, *, read_only: bool) -> Database | None:
        """Opens a file; ``None`` if another file replaced it meanwhile, e.g. by a compaction."""
        try:
            hold = Hold.take(path, read_only=read_only)
        except FileNotFoundError:
            return None
        connection = None
        try:
            with _translate_errors(path):
                connection = duckdb.connect(
                    str(path),
                    read_only=read_only,
                    config={"autoinstall_known_extensions": False},
                )
                if identity(path) == hold.identity:
                    if not read_only:
                        connection.execute(_ONE_THREAD)
                    found = cls(connection, path, read_only=read_only, hold=hold)
                    connection = hold = None  # type: ignore[assignment]  # owned by the new object
                    return found
        finally:
            if connection is not None:
                connection.close()
            if hold is not None:
                hold.release()
        return None

    @classmethod
    def create(cls, path: Path) -> Database:
        """Creates a new file; ``publish`` gives it its final name.

        Raises:
            StoreNotFound: The folder does not exist.
            StoreUnwritable: No space or no permission.
        """
        with _translate_errors(path):
            return cls(
                duckdb.connect(str(path), config={"default_block_size": BLOCK}),
                path,
                read_only=False,
            )

    @classmethod
    def scratch(cls, path: Path) -> Database:
        """Returns an empty in-memory database to attach files to; ``path`` is for its errors."""
        with _translate_errors(path):
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
        """Attaches a file, so that its tables are available as ``name.table``.

        Args:
            path: A DuckDB file; with ``block_size`` it is created.
            name: Name within this connection.
            read_only: Open it shared.
            block_size: Block size of a new file, bytes.
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
                self._flush()
            with _translate_errors(self.path):
                return self._live().execute(sql, parameters).fetchall()

    def ask(self, sql: str, part: int = _PART) -> tuple[list[str], Iterator[list[tuple[Any, ...]]]]:
        """Returns the column names of a query, and its rows in batches."""
        with _translate_errors(self.path):
            found = self._live().execute(sql)
            names = [column[0] for column in found.description or ()]

        def parts() -> Iterator[list[tuple[Any, ...]]]:
            with _translate_errors(self.path):
                while rows := found.fetchmany(part):
                    yield rows

        return names, parts()

    def interrupt(self) -> None:
        """Interrupts the running query, if there is one; may be called from any thread."""
        self._live().interrupt()

    @staticmethod
    def statements(sql: str) -> list[str]:
        """Returns the kinds of statements in a text, in order, as parsed by DuckDB.

        Raises:
            QueryFailed: The text cannot be parsed.
        """
        try:
            return [one.type.name for one in duckdb.extract_statements(sql)]
        except duckdb.Error as error:
            raise QueryFailed(f"the query failed: {first_line(str(error))}") from error

    @staticmethod
    def behind_first_word(sql: str) -> str:
        """Returns a statement without its first word and the comments around it."""
        data, comment = sql.encode(), duckdb.token_type.comment
        places = [offset for offset, kind in duckdb.tokenize(sql) if kind != comment]
        return data[places[1] :].decode() if len(places) > 1 else ""

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Yields the rows of a query in batches; three times as fast for gigabytes of payloads.

        The connection must not be used for anything else until the iterator is exhausted.
        """
        with self.turn, _translate_errors(self.path):
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
        """Runs a query of committed rows, and ``act`` on its batches, in another thread."""
        own = self._live().cursor()

        def run() -> list[Any]:
            with _translate_errors(self.path), own:
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
                self._record_mark()

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Inserts ``rows`` into ``table``, columns in the table's order."""
        if len(rows) == 1 and self._in_transaction:
            if self._gathered.add(table, rows[0]):
                self._flush()
        elif rows:
            self._begin()
            self._flush()
            with _translate_errors(self.path):
                append(self._live(), table, rows)

    def _begin(self) -> None:
        """Begins the transaction in DuckDB. Reading needs none: no other process can write."""
        if self._in_transaction and not self._has_begun:
            with _translate_errors(self.path):
                self._live().execute("BEGIN TRANSACTION")
            self._has_begun = True

    def _flush(self) -> None:
        """Inserts the rows gathered so far, within the transaction."""
        if self._gathered:
            self._begin()
            with _translate_errors(self.path):
                self._gathered.insert(self._live())

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Runs its body as one transaction.

        Raises:
            RuntimeError: Transactions do not nest (DuckDB has no savepoints).
            StoreGone: The file was removed or replaced.
            StoreUnwritable: The disk is full; the transaction was rolled back.
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
                self._flush()
                self.query("COMMIT")
            elif self._gathered:
                with _translate_errors(self.path):  # one statement, so no explicit transaction
                    self._gathered.insert_at_once(self._write_only())
        except BaseException:
            self.failures += 1
            self._gathered.clear()
            # After a failed COMMIT, ROLLBACK raises because there is nothing to roll back; the
            # original error is the one to report.
            with contextlib.suppress(EditkitError):
                if self._has_begun:
                    self.query("ROLLBACK")
            raise
        finally:
            self._in_transaction = self._has_begun = False
            self._record_mark()

    def _record_mark(self) -> None:
        """Records the state of the file after this process wrote to it."""
        self._left = self._hold and self._hold.mark()

    def check_own(self) -> None:
        """Raises if the file is not as this process left it.

        Raises:
            StoreGone: The file was removed or replaced.
            StoreChanged: Another process wrote to it, or to its log.
        """
        if self._hold is None:
            return
        if self._hold.identity != identity(self.path):
            raise StoreGone(
                f"the file of the store '{self.path}' was removed or replaced while it was open; "
                "anything written now would be lost",
                path=self.path,
                hint="open the store again; earlier changes are in the file that was removed",
            )
        if self._hold.mark() != self._left:
            raise _changed(self.path)

    def read_file(self, offset: int, length: int) -> bytes:
        """Returns bytes of the file without reopening it: closing it would drop DuckDB's lock."""
        return self._hold.read(offset, length) if self._hold is not None else b""

    def copy_to(self, target: Path) -> None:
        """Copies all committed data, while other threads wait.

        Raises:
            StoreGone, StoreChanged: See ``check_own``.
            StoreUnwritable: There is no space.
        """
        with self.turn:
            if self.read_only:
                self.check_own()
            else:
                self.checkpoint()
            if self._hold is not None:
                self._hold.copy(target)

    def _write_only(self) -> duckdb.DuckDBPyConnection:
        """Returns a second connection to the same database, without the query optimizer.

        Inserts have nothing to optimize, and trying takes a third of the time.
        """
        if self._writer is None:
            self._writer = self._live().cursor()
            self._writer.execute("PRAGMA disable_optimizer")
        return self._writer

    def checkpoint(self) -> None:
        """Merges the write-ahead log into the file, so that copying the file copies everything.

        Raises:
            StoreGone, StoreChanged: See ``check_own``.
        """
        with self.turn:
            self.check_own()
            self.execute("CHECKPOINT")

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Releases the file while its body runs; other threads wait meanwhile."""
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
                self._record_mark()

    def close(self) -> None:
        """Closes the file; a second call does nothing.

        Raises:
            StoreChanged: Another process wrote to the file. Its data is left as it is.
            StoreError: The final checkpoint failed; committed operations stay in the log next to
                the file and are available at the next opening.
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
                with _translate_errors(self.path):
                    if has_changed:
                        # DuckDB would overwrite what the other process wrote.
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
        f"another process wrote to the store '{path}' while it was open here; nothing more is "
        "written, so that none of its changes are lost",
        path=path,
        hint="close it everywhere, keep a copy of the file and of its .wal file, and run "
        "`editkit verify`",
    )


@contextlib.contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Translates DuckDB's errors to those of editkit."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, path) from error
    except RuntimeError as error:
        # How Ctrl-C surfaces during a query.
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
