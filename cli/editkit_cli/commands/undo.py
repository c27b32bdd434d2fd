"""`editkit undo`."""

from __future__ import annotations

from editkit_cli.commands.shared.view import change_view
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, provenance_options

__all__ = ["undo"]


@command("undo", example="editkit undo")
@provenance_options
def undo(settings: Settings, reason: str | None, author: str | None) -> None:
    """Take back the last change; once more goes one further back."""
    how = settings.provenance(author=author, reason=reason)
    change_view(settings, how, lambda history: history.undo())
