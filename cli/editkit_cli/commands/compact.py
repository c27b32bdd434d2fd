"""`editkit compact`."""

from __future__ import annotations

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.tables import megabytes

__all__ = ["compact"]


@command("compact", example="editkit compact")
def compact(settings: Settings) -> None:
    """Make the file smaller without losing a version.

    Writes the history anew beside the store and puts it in its place in one step, so it needs room
    for a second file. Tensors that no edit needs any more stay behind.
    """
    with open_history(settings) as history:
        done = history.compact()
    out = settings.out
    out.result(
        done, lambda: out.text(f"{done.store}: {megabytes(done.before)}, now "
                               f"{megabytes(done.after)}"),
    )  # fmt: skip
