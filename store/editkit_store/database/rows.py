"""Buffered rows of a transaction, to insert them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Gathered"]

_MOST = 1000  # maximum buffered rows

Row = Sequence[Any]


class Gathered:
    """Buffered rows that are not in DuckDB yet.

    Connections are DuckDB's; the caller translates their errors.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, Row]] = []
        self._prepared: dict[tuple[tuple[str, int], ...], Any] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, table: str, row: Row) -> bool:
        """Adds a row; returns whether the buffer is full."""
        self._rows.append((table, row))
        return len(self._rows) >= _MOST

    def clear(self) -> None:
        """Discards the rows."""
        self._rows = []

    def forget(self) -> None:
        """Discards the prepared statements of a closed connection."""
        self._prepared.clear()

    def is_one_each(self) -> bool:
        """Returns whether all rows are for different tables."""
        return len({table for table, _ in self._rows}) == len(self._rows)

    def insert(self, connection: Any) -> None:
        """Inserts the rows, in one step per table."""
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

        Planning and committing take most of the time of a small statement: five statements for five
        tables in one transaction take three times as long.
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
