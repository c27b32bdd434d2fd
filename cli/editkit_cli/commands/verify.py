"""`editkit verify`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import CHECK_FAILED, command
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.output import Output
from editkit_store.records import Verified

__all__ = ["verify"]

SHOWN = 20
"""Problems that are printed."""


@command("verify", example="editkit verify\neditkit verify --head sha256:4f0c...")
@click.option("--head", metavar="DIGEST", help="A head noted earlier; the log must still hold it")
def verify(settings: Settings, head: str | None) -> int:
    """Derive every digest of the history anew, and name what was altered or is missing.

    Needs no model. The head it prints stands for the whole history: whoever keeps it elsewhere can
    tell any later change of the past.

    Exits with 3 when something is wrong.
    """
    with open_history(settings) as history:
        found = history.verify(head=head)
    out = settings.out
    out.result(found, lambda: _draw_verified(out, found))
    return 0 if found.ok else CHECK_FAILED


def _draw_verified(out: Output, found: Verified) -> None:
    for problem in found.problems[:SHOWN]:
        out.text(f"{problem.name}: {problem.message}")
    if len(found.problems) > SHOWN:
        out.text(f"... and {len(found.problems) - SHOWN} more; --json lists them all")
    out.fields(
        ("verified", "everything holds" if found.ok else f"{len(found.problems)} problems"),
        ("checked", f"{found.checked} rows"),
        ("head", found.head or "none: the history is empty"),
    )
