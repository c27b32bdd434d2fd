"""`editkit codebook`."""

from __future__ import annotations

from pathlib import Path

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, version_option

__all__ = ["codebook"]


@click.group("codebook", help="Look at the keys and radii behind a version")
def codebook() -> None:
    """The noun whose verb is below."""


@command(
    "plot",
    example="editkit codebook plot\neditkit codebook plot --version v12 --out v12.png",
    shared=("store", "json", "quiet"),
)
@version_option
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default="codebook.png",
    show_default=True, metavar="FILE", help="The picture to write",
)  # fmt: skip
def plot(settings: Settings, version: str | None, out: Path) -> None:
    """Draw radii, distances, conflicts and a map of the keys to a PNG file.

    Needs no model. Discs on the map are the edits' balls, to scale.
    """
    with open_history(settings) as history:
        drawn = history.plot_codebook(out, version=version or "@")
    shown = settings.out
    shown.result(
        drawn,
        lambda: shown.text(
            f"{drawn.path}: {drawn.rows} rows at {drawn.version}, {drawn.shrunk} with a smaller "
            f"radius, {drawn.conflicts} conflicts"
        ),
    )


codebook.add_command(plot)
