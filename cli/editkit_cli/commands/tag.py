"""`editkit tag`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, provenance_options

__all__ = ["tag"]


@command("tag", example="editkit tag v3 prod\neditkit tag @ before-import")
@click.argument("version", metavar="V")
@click.argument("name", metavar="NAME")
@provenance_options
def tag(
    settings: Settings, version: str, name: str, reason: str | None, author: str | None
) -> None:
    """Name a version; a name in use moves there."""
    how = settings.provenance(author=author, reason=reason)
    with open_history(settings, provenance=how) as history:
        tagged = history.tag(version, name)
    out = settings.out
    out.result(tagged, lambda: out.text(f"{tagged.version} is '{tagged.tag}'"))
