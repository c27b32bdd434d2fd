"""Queries of somebody's own: one SELECT, on a private copy, with an end.

DuckDB cannot be told that nothing may be written. Opened to read only, and cut off from other
files, it still lets ``COPY`` write to the file that it has open, to the log beside it and to its
folder for temporary files. So two walls stand before a store, and neither relies on the other: what
is not exactly one SELECT, as DuckDB's own parser sees it, is refused; and a SELECT is answered from
a copy that is thrown away.
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
"""Of the copy; the last of them keeps the others."""

_AGAIN = 0.05
"""Seconds between two attempts to interrupt: one that comes before DuckDB has begun is lost."""

_HINT = "a copy of the store answers, which cannot be written to; the README lists the views"


def check_query(text: str) -> None:
    """Refuses whatever is not exactly one SELECT, or the plan of one.

    Raises:
        QueryFailed: It is something else, or does not read.
    """
    kinds = Database.statements(text)
    if kinds == ["EXPLAIN"]:
        # With ANALYZE, or options, what follows is carried out, and need not be a SELECT.
        with contextlib.suppress(QueryFailed):
            kinds = Database.statements(Database.behind_first_word(text))
    if kinds != ["SELECT"]:
        what = ", ".join(kind.lower().replace("_", " ") for kind in kinds) or "nothing"
        raise QueryFailed(
            f"the query failed: exactly one SELECT is answered, and this is {what}", hint=_HINT
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
        """Ends the query, or keeps it from beginning."""
        self._stopped.set()

    def run(
        self, database: Database, *, seconds: float | None = None, cells: int | None = None
    ) -> Table:
        """Answers from a copy of a store.

        Args:
            database: The store.
            seconds: Stop it after so many.
            cells: Refuse an answer of more values than so many.

        Raises:
            QueryFailed: DuckDB refuses it, or its answer is too large.
            QueryStopped: It was stopped.
            StoreUnwritable: No room for the copy.
        """
        with private_folder(database.path) as folder:
            copy = folder / database.path.name  # the name counts: it is that of the catalog
            database.copy_to(copy)
            with Database.open(copy, read_only=True) as opened, self._ending(opened, seconds):
                return self._asked(opened, cells)

    def _asked(self, database: Database, most: int | None) -> Table:
        try:
            for setting in _SETTINGS:
                database.query(setting)
            columns, parts = database.ask(self._text)
            rows: list[tuple[Any, ...]] = []
            for part in parts:
                rows += [tuple(map(plain, row)) for row in part]
                if most is not None and len(rows) * len(columns) > most:
                    raise QueryFailed(
                        f"the query failed: the answer has more than {most} values",
                        hint="ask for less: LIMIT, or fewer columns",
                    )
        except KeyboardInterrupt:  # how an interrupted query ends; but it may have been Ctrl-C
            if not self._stopped.is_set():
                raise
            raise QueryStopped(
                "the query failed: it was stopped before its end", hint=_HINT
            ) from None
        except EditkitError as error:
            if self._stopped.is_set():
                raise QueryStopped(
                    "the query failed: it was stopped before its end", hint=_HINT
                ) from error
            if isinstance(error, StoreDamaged | StoreLocked | QueryFailed):
                raise
            cause = error.__cause__ or error
            raise QueryFailed(f"the query failed: {first_line(str(cause))}", hint=_HINT) from error
        return Table(columns=tuple(columns), rows=tuple(rows))

    @contextlib.contextmanager
    def _ending(self, database: Database, seconds: float | None) -> Iterator[None]:
        """Interrupts what the body runs when the query is stopped, or has taken too long."""
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
            self._stopped.set()  # so that it stops waiting
            watcher.join()
