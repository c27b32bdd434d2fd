"""Sandboxed user queries: one SELECT, on a private copy, with limits.

DuckDB has no setting that prevents all writes. Even if opened read-only and without access to other
files, it lets ``COPY`` write to the open file, to its log and to its folder for temporary files. So
there are two independent defences: anything but exactly one SELECT, according to DuckDB's own
parser, is rejected; and a SELECT runs on a copy that is then deleted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from editkit_store.database.connection import Database
from editkit_store.database.errors import first_line
from editkit_store.database.files import private_folder
from editkit_store.database.size import plain
from editkit_store.errors import EditkitError, QueryFailed, QueryStopped, StoreDamaged, StoreLocked
from editkit_store.records import Table

__all__ = ["SqlQuery", "check_query"]

_SETTINGS = (
    "SET memory_limit = '1GB'",
    "SET max_temp_directory_size = '4GB'",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
"""Settings of the copy; the last one locks the others."""

_AGAIN = 0.05
"""Seconds between attempts to interrupt: one before DuckDB has started has no effect."""

_HINT = "queries run on a read-only copy of the store; the README lists the views"


def check_query(text: str) -> None:
    """Raises unless a text is exactly one SELECT, or the EXPLAIN of one.

    Raises:
        QueryFailed: It is something else, or cannot be parsed.
    """
    kinds = Database.statements(text)
    if kinds == ["EXPLAIN"]:
        # With ANALYZE or options the statement is executed, and need not be a SELECT.
        with contextlib.suppress(QueryFailed):
            kinds = Database.statements(Database.behind_first_word(text))
    if kinds != ["SELECT"]:
        what = ", ".join(kind.lower().replace("_", " ") for kind in kinds) or "nothing"
        raise QueryFailed(
            f"the query failed: it must be exactly one SELECT, and this is {what}", hint=_HINT
        )


class SqlQuery:
    """One query. ``run`` it in one thread; ``stop`` it from any, at any time.

    Args:
        text: The SQL.

    Raises:
        QueryFailed: It is not exactly one SELECT.
    """

    def __init__(self, text: str) -> None:
        check_query(text)
        self._text = text
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stops the query, or prevents it from starting."""
        self._stopped.set()

    def run(
        self, database: Database, *, seconds: float | None = None, cells: int | None = None
    ) -> Table:
        """Runs the query on a copy of a store.

        Args:
            database: The store.
            seconds: Time limit.
            cells: Maximum number of values in the result.

        Raises:
            QueryFailed: DuckDB rejects it, or its result is too large.
            QueryStopped: It was stopped.
            StoreUnwritable: There is no space for the copy.
        """
        with private_folder(database.path) as folder:
            copy = folder / database.path.name  # keeps the name, which is also the catalog's
            database.copy_to(copy)
            with Database.open(copy, read_only=True) as opened, self._interrupting(opened, seconds):
                return self._execute(opened, cells)

    def _execute(self, database: Database, most: int | None) -> Table:
        try:
            for setting in _SETTINGS:
                database.query(setting)
            columns, parts = database.ask(self._text)
            rows: list[tuple[Any, ...]] = []
            for part in parts:
                rows += [tuple(map(plain, row)) for row in part]
                if most is not None and len(rows) * len(columns) > most:
                    raise QueryFailed(
                        f"the query failed: the result has more than {most} values",
                        hint="reduce it with LIMIT, or select fewer columns",
                    )
        except KeyboardInterrupt:  # raised by an interrupted query, but also by Ctrl-C
            if not self._stopped.is_set():
                raise
            raise QueryStopped(
                "the query failed: it was stopped before it finished", hint=_HINT
            ) from None
        except EditkitError as error:
            if self._stopped.is_set():
                raise QueryStopped(
                    "the query failed: it was stopped before it finished", hint=_HINT
                ) from error
            if isinstance(error, StoreDamaged | StoreLocked | QueryFailed):
                raise
            cause = error.__cause__ or error
            raise QueryFailed(f"the query failed: {first_line(str(cause))}", hint=_HINT) from error
        return Table(columns=tuple(columns), rows=tuple(rows))

    @contextlib.contextmanager
    def _interrupting(self, database: Database, seconds: float | None) -> Iterator[None]:
        """Interrupts the query in its body when it is stopped or exceeds the time limit."""
        ended = threading.Event()

        def watch() -> None:
            self._stopped.wait(seconds)
            self._stopped.set()
            while not ended.wait(_AGAIN):
                with contextlib.suppress(EditkitError):
                    database.interrupt()

        watcher = threading.Thread(target=watch, name="editkit-query", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            self._stopped.set()  # wakes the watcher
            watcher.join()
