"""`editkit log`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.history import draw_log
from editkit_cli.terminal.options import Settings

__all__ = ["log"]


@command(
    "log",
    example="editkit log -n 5\neditkit log --json",
    shared=("store", "json", "nl", "quiet"),
)
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="At most so many")
@click.option("--at", metavar="V", help="The log as it stood at this version: v3, @-, a tag")
def log(settings: Settings, limit: int | None, at: str | None) -> None:
    """List the operations, newest first.

    In the table, @ marks the current version.
    """
    with open_history(settings) as history:
        found = history.log_page(limit=limit, at=at)
    entries = found.entries
    origin = limit is None or len(entries) < limit  # the list goes back to the beginning
    tags = found.first_tags if origin else None
    out = settings.out
    out.result(entries, lambda: draw_log(out, entries, found.version, tags))
