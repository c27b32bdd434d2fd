"""`editkit redo`."""

from __future__ import annotations

from editkit_cli.commands.shared.view import change_view
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, provenance_options

__all__ = ["redo"]


@command("redo", example="editkit undo\neditkit redo")
@provenance_options
def redo(settings: Settings, reason: str | None, author: str | None) -> None:
    """Take back the last undo."""
    how = settings.provenance(author=author, reason=reason)
    change_view(settings, how, lambda history: history.redo())
