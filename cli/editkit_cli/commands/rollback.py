"""`editkit rollback`."""

from __future__ import annotations

import click

from editkit_cli.commands.shared.view import change_view
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, provenance_options

__all__ = ["rollback"]


@command("rollback", example="editkit rollback v2\neditkit rollback prod --reason 'bad batch'")
@click.argument("version", metavar="V")
@provenance_options
def rollback(settings: Settings, version: str, reason: str | None, author: str | None) -> None:
    """Make the edits of an older version the active ones again.

    This makes a new version, so it can itself be taken back: nothing is lost.
    """
    how = settings.provenance(author=author, reason=reason)
    change_view(settings, how, lambda history: history.rollback(version))
