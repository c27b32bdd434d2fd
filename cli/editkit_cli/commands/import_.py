"""`editkit import`."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, provenance_options
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import Column, short_digest
from editkit_store.bundle.records import Clash, Imported, OnConflict

__all__ = ["import_"]

SHOWN = 20
"""Edits that are printed."""


@command(
    "import",
    example="editkit import fixes --dry-run\neditkit import fixes --on-conflict supersede",
)
@click.argument("folder", metavar="DIR")
@click.option(
    "--on-conflict",
    type=click.Choice(("keep", "supersede", "error")),
    default="keep",
    help="Where an active edit here corrects the same prompt: keep ours active, let theirs "
    "supersede it, or refuse everything  [default: keep]",
)
@click.option("--dry-run", is_flag=True, help="Say what would happen, and write nothing")
@provenance_options
def import_(
    settings: Settings,
    folder: str,
    on_conflict: OnConflict,
    dry_run: bool,
    reason: str | None,
    author: str | None,
) -> None:
    """Bring the edits of a bundle into the history, as one operation.

    All of the bundle is checked first. Edits keep their ids and times; those that are here already
    stay as they are. `editkit undo` takes the whole import back.
    """
    how = settings.provenance(author=author, reason=reason)
    with open_history(settings, provenance=how) as history:
        done = history.import_bundle(folder, on_conflict=on_conflict, dry_run=dry_run)
        remembered = history.fingerprint()
    out = settings.out
    _tell(out, done, remembered)
    out.result(done, lambda: _draw_imported(out, done))


def _tell(out: Output, done: Imported, remembered: str | None) -> None:
    """Prints what happened, and what is left to do."""
    would = "would bring" if done.dry_run else "brought"
    if not done.edits and not done.artifacts:
        out.status("nothing new: everything in the bundle is here already")
    elif not done.edits:
        out.status(f"import: {would} {done.artifacts} artifacts of edits that are here already")
    else:
        out.status(
            f"import: {would} {len(done.edits)} edits, {len(done.active)} active; "
            f"{'then' if done.dry_run else 'now'} at {done.version}"
        )
    if done.elsewhere:
        out.warning(
            f"{done.elsewhere} artifacts were learned at another module than those here, and were "
            "left out",
            hint="`editkit replay` learns their edits",
        )
    if done.unplaced:
        out.warning(
            f"{len(done.unplaced)} of the models have weights that edits share, which stay",
            hint="`editkit replay` learns the bundle's edits on them",
        )
    missing = len(done.active) - done.learned.get(remembered or "", 0)
    if remembered is not None and missing:
        out.warning(
            f"the model of this store has not learned {missing} of the edits that became active",
            hint="`editkit replay` learns them",
        )


def _draw_imported(out: Output, done: Imported) -> None:
    out.fields(
        ("version", f"{done.version}, {done.view} active edit{'' if done.view == 1 else 's'}"),
        ("brought", str(len(done.edits))),
        ("active", str(len(done.active))),
        ("known", str(len(done.known))),
        ("adjusted", str(len(done.adjusted)) if done.adjusted else ""),
        ("artifacts", str(done.artifacts)),
        ("head", done.head or "none: it was made from an empty history"),
    )
    _draw_clashes(out, "kept ours", done.kept)
    _draw_clashes(out, "superseded ours", done.superseded)
    _draw_clashes(out, "same idempotency key, left out", done.same_key)


def _draw_clashes(out: Output, title: str, clashes: tuple[Clash, ...]) -> None:
    if not clashes:
        return
    out.text("")
    out.table(
        (Column(title, style="cyan"), Column("theirs", style="cyan"),
         Column("prompt", flexible=True), Column("our target", flexible=True),
         Column("their target", flexible=True)),
        [
            (short_digest(one.ours), short_digest(one.edit_id), one.prompt, one.our_target,
             one.target)
            for one in clashes[:SHOWN]
        ],
    )  # fmt: skip
    if len(clashes) > SHOWN:
        out.text(f"... and {len(clashes) - SHOWN} more; --json lists them all")
