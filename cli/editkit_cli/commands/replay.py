"""`editkit replay`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from editkit_cli.backend.opening import check_store, open_model
from editkit_cli.terminal.group import CHECK_FAILED, command
from editkit_cli.terminal.interrupts import keeping
from editkit_cli.terminal.options import Settings, provenance_options
from editkit_cli.terminal.options import method as method_name
from editkit_cli.terminal.tables import Column, short_digest

if TYPE_CHECKING:
    from editkit_cli.terminal.output import Output
    from editkit_store.records import MethodName, Replayed, ReplayPlan

__all__ = ["replay"]


@command(
    "replay",
    example="""
        editkit replay history.db --model gemma3-270m
        editkit replay --model gpt2 --to prod --dry-run
        editkit replay --model gpt2 --only checked
    """,
    shared=("store", "model", "json", "quiet"),
)
@click.argument("history", metavar="[HISTORY]", required=False)
@click.option("--to", metavar="V", help="Replay up to this version  [default: @]")
@click.option("--method", type=method_name, help="Learn with this method instead")
@click.option(
    "--only", metavar="V", help="Replay only edits that are active at this version too, e.g. a tag"
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be done and how long it would take; do nothing"
)
@provenance_options
def replay(
    settings: Settings,
    history: str | None,
    to: str | None,
    method: MethodName | None,
    only: str | None,
    dry_run: bool,
    reason: str | None,
    author: str | None,
) -> int:
    """Bring the active edits of a history to a model.

    What this model learned before is restored without training; the rest is learned again, in
    batches. Each batch is stored as a whole, so an interrupted replay resumes after the last one
    when it is started again.

    With --only, just the edits that are active both at that version and at --to are replayed. The
    others stay unlearned: while one of them is active, other commands refuse to run this model.

    --dry-run loads the model too, to know which one it is, but writes nothing. Its estimate is the
    median time of earlier edits, on this model where there are any, else on others as it was.

    Exits with 3 when the model did not learn every edit.
    """
    if history is not None:
        _use_store(settings, history)
    check_store(settings, to, only)
    out = settings.out
    if dry_run:
        with open_model(settings, read_only=True, missing="skip", any_model=True) as backend:
            planned = backend.plan_replay(to=to, method=method, only=only)
        out.result(planned, lambda: _draw_plan(out, planned))
        return 0
    how = settings.provenance(author=author, reason=reason)
    again = shlex.join(["editkit", *settings.argv])
    kept = f"what was learned so far is stored; the same command resumes here: {again}"
    with (
        keeping(lambda: kept),
        open_model(settings, missing="skip", provenance=how, any_model=True) as backend,
    ):
        done = backend.replay(to=to, method=method, only=only, progress=out.progress())
    out.result(done, lambda: _draw_replayed(out, done))
    return CHECK_FAILED if done.failed else 0


def _use_store(settings: Settings, history: str) -> None:
    """Uses the positional store, unless an option names another one."""
    if settings.was_flagged("store") and settings.store != history:
        raise click.UsageError(f"'{history}' and --store '{settings.store}' name two stores")
    settings.take("store", history, ParameterSource.COMMANDLINE)


def _draw_plan(out: Output, planned: ReplayPlan) -> None:
    if planned.seconds is None:
        about = "unknown: nothing was learned yet"
    elif planned.measured_on == "this model":
        about = f"about {planned.seconds:.1f}"
    else:
        about = f"about {planned.seconds:.1f}, if this model takes as long as others did"
    out.fields(
        ("model", f"{planned.model} [{short_digest(planned.fingerprint)}]"),
        ("version", planned.version),
        ("to restore", str(planned.restored)),
        ("to learn", str(planned.to_learn)),
        ("seconds", about),
    )
    if planned.edits:
        out.table(
            (Column("action"), Column("edit", style="cyan"), Column("prompt", flexible=True),
             Column("target", flexible=True)),
            [
                (one.action, short_digest(one.edit_id), one.prompt, one.target)
                for one in planned.edits
            ],
        )  # fmt: skip
    out.status("nothing was written")


def _draw_replayed(out: Output, done: Replayed) -> None:
    out.fields(
        ("model", f"{done.model} [{short_digest(done.fingerprint)}]"),
        ("version", done.version),
        ("restored", str(done.restored)),
        ("learned", str(done.learned)),
        ("failed", str(done.failed)),
        ("seconds", f"{done.seconds:.1f}"),
    )
    if done.failures:
        out.table(
            (Column("failed edit", style="red"), Column("prompt", flexible=True),
             Column("target", flexible=True), Column("answer", flexible=True),
             Column("reason", flexible=True)),
            [
                (short_digest(one.edit_id), one.prompt, one.target, one.answer, one.reason)
                for one in done.failures
            ],
        )  # fmt: skip
