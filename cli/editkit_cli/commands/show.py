"""`editkit show`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.history import count_edits, draw_edits
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import short_digest
from editkit_store.records import Shown

__all__ = ["show"]


@command("show", example="editkit show v3\neditkit show @-\neditkit show 1f3a0c7e91b2")
@click.argument("version", metavar="V")
def show(settings: Settings, version: str) -> None:
    """Show one version in full.

    V is a version (v3, @, @-), a tag, or the id of an edit, which shows the version that added it.
    """
    with open_history(settings) as history:
        shown = history.show(version)
    out = settings.out
    out.result(shown, lambda: _draw_shown(out, shown))


def _draw_shown(out: Output, shown: Shown) -> None:
    rows = [("version", shown.version), ("tags", ", ".join(shown.tags))]
    if shown.operation is not None:
        did = f"{shown.operation.operation} {shown.operation.detail}"
        rows += [("operation", did), ("time", f"{shown.operation.time.astimezone():%c %Z}")]
    if shown.provenance is not None:
        who = shown.provenance
        rows += [("by", who.author or ""), ("reason", who.reason or "")]
        rows += [("command", who.command or ""), ("tool", who.tool or "")]
    if shown.edit is not None:
        rows += [("edit", f"{short_digest(shown.edit.id)} ({shown.edit.status} now)")]
        rows += [("method", f"{shown.edit.method}, {shown.edit.kind}")]
        rows += [("prompt", shown.edit.prompt), ("target", shown.edit.target)]
        rows += [("rephrase", rephrase) for rephrase in shown.edit.rephrases]
    if shown.adjustments is not None:
        rows += [("also", prompt) for prompt in shown.adjustments.also]
        rows += [("not", prompt) for prompt in shown.adjustments.exclude]
    for artifact in shown.artifacts:
        verified = "verified" if artifact.verified else "not verified"
        rows.append(
            ("learned by", f"{artifact.model} [{short_digest(artifact.fingerprint)}], {verified}")
        )
    rows.append(("view", count_edits(shown.view)))
    out.fields(*rows)
    if shown.edits:
        out.text("")
        draw_edits(out, [("", edit) for edit in shown.edits])
