"""`editkit revert`."""

from __future__ import annotations

import click

from editkit_cli.commands.shared.view import change_view
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, provenance_options

__all__ = ["revert"]


@command(
    "revert",
    example="""
        editkit revert 1f3a0c7e91b2 --reason 'the source was wrong'
        editkit revert 1f3a0c7e91b2 --defer-only
    """,
    shared=("store", "model", "json", "quiet"),
)
@click.argument("edit_id", metavar="EDIT_ID")
@click.option(
    "--defer-only",
    is_flag=True,
    help="Of an edit that shares its weights: at once and without a model; no prompt reaches it "
    "any more, but the weights stay as they are",
)
@provenance_options
def revert(
    settings: Settings, edit_id: str, defer_only: bool, reason: str | None, author: str | None
) -> None:
    """Take back one edit; later ones stay.

    EDIT_ID may be shortened as long as it stays unique.

    Where edits share their weights (the method elder), the model is loaded, the weights from before
    the edit are restored, and the edits that came later are learned again.
    """
    how = settings.provenance(author=author, reason=reason)
    bar = settings.out.progress()
    change_view(
        settings,
        how,
        lambda history: history.revert(edit_id, defer_only=defer_only, progress=bar),
    )
