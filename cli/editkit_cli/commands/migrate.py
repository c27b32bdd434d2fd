"""`editkit migrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, text
from editkit_cli.terminal.output import Output

if TYPE_CHECKING:
    from editkit_store.records import Migrated

__all__ = ["migrate"]

_SHOWN = 20


@command(
    "migrate",
    example="editkit migrate --dry-run --probe 'where are you based?'\neditkit migrate",
    shared=("store", "model", "judge", "json", "quiet"),
)
@click.option("--dry-run", is_flag=True, help="Only show what would be decided otherwise")
@click.option(
    "--probe", "probes", multiple=True, type=text, metavar="PROMPT",
    help="Ask this prompt too (repeatable)",
)  # fmt: skip
def migrate(settings: Settings, dry_run: bool, probes: tuple[str, ...]) -> None:
    """Let a judge decide which edits a history's prompts ask for.

    For histories that were begun before there was a judge; nothing is learned anew. It shows which
    prompts are decided otherwise: those of the active edits, and the probes.
    """
    from editkit.kit.migrating import migrate as run

    done = run(
        settings.path,
        judge=settings.judge or "encoder",
        probes=probes,
        dry_run=dry_run,
        model=settings.model,
        allow_pickle=settings.allow_pickle,
        progress=settings.out.progress(),
    )
    settings.out.result(done, lambda: _print(settings.out, done))


def _print(out: Output, done: Migrated) -> None:
    out.text(
        f"{done.from_} -> {done.to}: {len(done.changes)} of {done.asked} prompts of {done.edits} "
        f"edits are decided otherwise{'' if done.changed else '; nothing was changed'}"
    )
    for one in done.changes[:_SHOWN]:
        before, after = (name[:12] if name else "no edit" for name in (one.before, one.after))
        out.text(f"  {one.prompt}: {before} -> {after}")
    if len(done.changes) > _SHOWN:
        out.text(f"  and {len(done.changes) - _SHOWN} more; --json has all")
