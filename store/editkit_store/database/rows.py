"""Rows of a transaction that wait, so that they go in together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Gathered"]

_MOST = 1000  # rows that wait

Row = Sequence[Any]


class Gathered:
    """Rows that DuckDB does not know yet.

    Connections are DuckDB's; whoever calls translates their errors.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, Row]] = []
        self._prepared: dict[tuple[tuple[str, int], ...], Any] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, table: str, row: Row) -> bool:
        """Takes a row; returns whether so many wait that they should go in."""
        self._rows.append((table, row))
        return len(self._rows) >= _MOST

    def clear(self) -> None:
        """Forgets the rows."""
        self._rows = []

    def forget(self) -> None:
        """Forgets what a connection that is closed had prepared."""
        self._prepared.clear()

    def is_one_each(self) -> bool:
        """Returns whether no two rows are of one table."""
        return len({table for table, _ in self._rows}) == len(self._rows)

    def insert(self, connection: Any) -> None:
        """Inserts the rows, in as few steps as there are tables."""
        if self.is_one_each():
            self.insert_at_once(connection)
            return
        rows, self._rows = self._rows, []
        tables: dict[str, list[Row]] = {}
        for table, row in rows:
            tables.setdefault(table, []).append(row)
        for table, mine in tables.items():
            append(connection, table, mine)

    def insert_at_once(self, connection: Any) -> None:
        """Inserts rows of different tables in one statement.

        Most of the time of a small statement goes into planning and committing it: five tables in
        five statements and a transaction around them take three times as long.
        """
        rows, self._rows = self._rows, []
        key = tuple((table, len(row)) for table, row in rows)
        if key not in self._prepared:
            inserts = [f"INSERT INTO {t} VALUES ({', '.join('?' * n)})" for t, n in key]
            parts = [f"i{at} AS ({sql} RETURNING 1)" for at, sql in enumerate(inserts[:-1])]
            sql = (f"WITH {', '.join(parts)} " if parts else "") + inserts[-1]
            (self._prepared[key],) = connection.extract_statements(sql)
        connection.execute(self._prepared[key], [value for _, row in rows for value in row])


def append(connection: Any, table: str, rows: Sequence[Row]) -> None:
    """Appends rows to a table, columns in the table's order."""
    appender = connection.appender(table)
    appender.append_rows(rows)
    appender.flush()
