"""`editkit adjust`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import CHECK_FAILED, command
from editkit_cli.terminal.options import Settings, provenance_options, text
from editkit_cli.terminal.tables import short_digest

if TYPE_CHECKING:
    from editkit_cli.terminal.output import Output
    from editkit_store.records import Adjusted

__all__ = ["adjust"]


@command(
    "adjust",
    example="""
        editkit adjust 1f3a0c7e91b2 --also 'How much is the plan?'
        editkit adjust 1f3a0c7e91b2 --not 'Where is it based?' --reason 'another question'
    """,
    shared=("store", "model", "json", "quiet"),
)
@click.argument("edit_id", metavar="EDIT_ID")
@click.option(
    "--also", multiple=True, type=text, metavar="P",
    help="A prompt that the edit should apply to, too (repeatable)",
)  # fmt: skip
@click.option(
    "--not", "exclude", multiple=True, type=text, metavar="P",
    help="A prompt that it should not apply to (repeatable)",
)  # fmt: skip
@click.option(
    "--on-failure", type=click.Choice(["record", "keep"]), default="record", show_default=True,
    help="If its target is not given at an --also prompt: record the attempt only, or adjust the "
    "edit all the same",
)  # fmt: skip
@provenance_options
def adjust(
    settings: Settings,
    edit_id: str,
    also: tuple[str, ...],
    exclude: tuple[str, ...],
    on_failure: Any,
    reason: str | None,
    author: str | None,
) -> int:
    """Correct how far an edit reaches: where else it applies, and where it does not.

    EDIT_ID may be shortened as long as it stays unique.

    With --also the model is loaded and must give the edit's target at the prompt. Capitals, spaces
    and punctuation of a prompt do not matter. It takes effect at once; a later adjustment of the
    same prompt counts instead, and `editkit undo` takes it back.

    Exits with 3 when the target is not given at an --also prompt, unless --on-failure is keep.
    """
    how = settings.provenance(author=author, reason=reason)
    with open_history(settings, provenance=how) as history:
        done = history.adjust(edit_id, also=also, exclude=exclude, on_failure=on_failure)
    out = settings.out
    out.result(done, lambda: _draw_adjusted(out, done))
    for one in done.also:
        if not one.carries:
            out.warning(
                f"at '{one.prompt}' the model answers '{one.answer}', not '{done.edit.target}'"
            )
    if done.outcome == "failed":
        out.warning(
            "the edit's reach is as before; the attempt is recorded",
            hint="add an edit for that prompt, or adjust it all the same with --on-failure keep",
        )
    if done.outcome == "known":
        out.status("the edit reaches so already; nothing was recorded")
    return 0 if done.verified or on_failure == "keep" else CHECK_FAILED


def _draw_adjusted(out: Output, done: Adjusted) -> None:
    said = done.adjustments
    out.fields(
        ("edit", short_digest(done.edit.id)),
        ("prompt", done.edit.prompt),
        ("target", done.edit.target),
        ("version", done.version),
        ("verified", "" if not done.also else "yes" if done.verified else "no"),
        *(("also", prompt) for prompt in said.also),
        *(("not", prompt) for prompt in said.exclude),
    )
