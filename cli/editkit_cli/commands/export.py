"""`editkit export`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.output import Output
from editkit_store.bundle.records import Exported

__all__ = ["export"]


@command(
    "export",
    example="editkit export fixes\neditkit export fixes-of-may --from april --to may",
)
@click.argument("folder", metavar="DIR")
@click.option("--to", metavar="V", default="@", help="Edits of this version  [default: @]")
@click.option("--from", "since", metavar="V", help="Without those active at this version")
@click.option("--only", metavar="V", help="Only those active at this version (a tag) too")
def export(settings: Settings, folder: str, to: str, since: str | None, only: str | None) -> None:
    """Write edits, and what models learned of them, into a new folder.

    The folder, a bundle, holds JSON lines and safetensors files; the README describes every byte.
    `editkit import` brings it into another history. The same history makes the same bytes.

    The head that it prints stands for the history that the edits come from: whoever got it another
    way can tell whether the bundle was altered. Nothing is signed.
    """
    with open_history(settings) as history:
        done = history.export(folder, to=to, since=since, only=only)
    out = settings.out
    if not done.edits:
        out.warning("the bundle holds no edits", hint="`editkit log` shows the versions")
    out.result(done, lambda: _draw_exported(out, done))


def _draw_exported(out: Output, done: Exported) -> None:
    out.fields(
        ("bundle", f"{done.bundle} ({done.bytes / 1e6:.1f} MB)"),
        ("version", done.version),
        ("edits", str(done.edits)),
        ("artifacts", str(done.artifacts)),
        ("tensors", str(done.tensors)),
        ("head", done.head or "none: the history is empty"),
        ("manifest", done.manifest),
    )
