"""`editkit sql`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, text
from editkit_cli.terminal.tables import Column

__all__ = ["sql"]


@command("sql", example="editkit sql 'SELECT prompt, target FROM active_edits'")
@click.argument("query", type=text)
def sql(settings: Settings, query: str) -> None:
    """Ask the history in SQL; it is open to read only.

    The views: active_edits, edit_history, operation_log, codebook_rows. With --json the rows are
    objects by the names of their columns. A query of - is read from stdin.
    """
    with open_history(settings) as history:
        found = history.sql(query)
    out = settings.out
    if out.as_json:
        out.json([dict(zip(found.columns, row, strict=True)) for row in found.rows])
        return
    flexible = [Column(name, flexible=True) for name in found.columns]
    rows = [["NULL" if cell is None else str(cell) for cell in row] for row in found.rows]
    out.table(flexible, rows)
