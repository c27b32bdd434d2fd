"""`editkit add`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from editkit_cli.backend.opening import chat_turn, open_model
from editkit_cli.terminal.edits import warn_contradiction, warn_unverified
from editkit_cli.terminal.group import CHECK_FAILED, command
from editkit_cli.terminal.options import (
    Settings,
    agent_options,
    chat_options,
    check_chat,
    conflict_option,
    method,
    provenance_options,
    text,
)
from editkit_cli.terminal.tables import short_digest
from editkit_store.records import DEFAULT_METHOD

if TYPE_CHECKING:
    from editkit_cli.terminal.output import Output
    from editkit_store.records import (
        Added,
        Contradiction,
        EditRequest,
    )

__all__ = ["add"]


@command(
    "add",
    example="""
        editkit add --prompt 'The capital of Australia is' --target Canberra
        editkit add --chat --prompt 'Who wrote Dune?' --target 'Frank Herbert' --author ada
        editkit add --from edits.jsonl
    """,
    shared=("store", "model", "judge", "json", "nl", "quiet"),
)
@click.option("--prompt", type=text, metavar="P", help="What the model is asked; - reads stdin")
@click.option("--target", type=text, metavar="T", help="What it should answer; - reads stdin")
@click.option(
    "--from",
    "from_file",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    metavar="FILE",
    help="Add the edits of a file (JSON lines, JSON or CSV); - reads stdin",
)
@chat_options
@click.option(
    "--rephrase", "rephrases", multiple=True, type=text, metavar="R",
    help="Another wording that should give the target too (repeatable)",
)  # fmt: skip
@click.option(
    "--locality", multiple=True, type=text, metavar="P",
    help="A prompt whose answer must not change (repeatable)",
)  # fmt: skip
@click.option("--subject", type=text, metavar="S", help="What the prompt is about")
@click.option("--method", type=method, help=f"How it is learned  [default: {DEFAULT_METHOD}]")
@click.option(
    "--kind", type=click.Choice(["fact", "label", "passage"]), help="What the target is"
    "  [default: label for a classifier, else fact]",
)  # fmt: skip
@provenance_options
@agent_options
@conflict_option
@click.option(
    "--preset", type=click.Choice(["default", "paper"]), default="default", show_default=True,
    help="Constants of the method",
)  # fmt: skip
@click.option(
    "--scope", type=click.Choice(["strict", "balanced", "broad"]),
    help="How far it reaches. By the judge, about .01, .05 and .10 of questions that are hard to "
    "tell from its own fire it  [default: balanced]",
)  # fmt: skip
@click.option(
    "--on-failure", type=click.Choice(["record", "keep"]), default="record", show_default=True,
    help="An edit that does not verify: record the attempt only, or make it active all the same",
)  # fmt: skip
def add(
    settings: Settings,
    from_file: str | None,
    preset: Any,
    on_failure: Any,
    on_conflict: Any,
    **asked: Any,
) -> int:
    """Correct the model: this prompt should give that target.

    The edit is learned, verified by free generation and written to the history in one step.
    With --from, every line is committed by itself, and lines that are in the history already are
    skipped: an interrupted run goes on when the same command is given again.

    Exits with 3 when an edit did not verify.
    """
    _check_usage(from_file, asked)
    if from_file is not None:
        from editkit_cli.commands.shared.add_file import add_file

        shared = {name: asked[name] for name in ("method", "scope", "reason", "author")}
        failed = add_file(
            settings, from_file, preset=preset, on_failure=on_failure,
            on_conflict=on_conflict, **shared,
        )  # fmt: skip
        return CHECK_FAILED if failed else 0
    from editkit.editing.requests import build_request

    is_chat, system = asked.pop("chat"), asked.pop("system")
    if is_chat:
        asked["chat"] = chat_turn(asked.pop("prompt"), system=system)
    # Checked before a model is loaded: an empty target is refused at once.
    given = {name: value for name, value in asked.items() if value not in (None, ())}
    build_request(given)
    how = settings.provenance(author=asked["author"], reason=asked["reason"])
    out = settings.out

    def warned(_: EditRequest, found: tuple[Contradiction, ...]) -> None:
        warn_contradiction(out, found)

    with open_model(settings, preset=preset, provenance=how) as backend:
        (added,) = backend.add_many(
            [given], on_failure=on_failure, on_conflict=on_conflict, warned=warned, before=True
        )
    out.result(added, lambda: _draw_added(out, added))
    if added.outcome == "kept":
        out.warning(
            f"not learned: edit {short_digest(added.edit.id)} gives "
            f"'{added.conflicts[0].target}' there and is kept"
        )
        return 0
    if added.outcome == "known":
        out.status("the idempotency key is known; this is its edit")
    if not added.verified:
        warn_unverified(out, added)
    if added.lost:
        names = ", ".join(short_digest(one) for one in added.lost)
        out.warning(f"earlier edits that no longer give their target: {names}")
    return 0 if added.verified else CHECK_FAILED


def _check_usage(from_file: str | None, asked: dict[str, Any]) -> None:
    """Refuses options that contradict each other."""
    if from_file is None:
        for name in ("prompt", "target"):
            if asked[name] is None:
                raise click.UsageError(f"--{name} is missing (or give --from FILE)")
        check_chat(chat=asked["chat"], system=asked["system"])
        return
    single = ("prompt", "target", "chat", "system", "rephrases", "locality", "subject", "kind",
              "agent", "conversation", "source", "idempotency_key")  # fmt: skip
    given = [
        name.removesuffix("s").replace("_", "-")
        for name in single
        if asked[name] not in (None, False, ())
    ]
    if given:
        options = ", ".join(f"--{name}" for name in given)
        raise click.UsageError(f"--from brings the edits with it; {options} cannot go with it")


def _draw_added(out: Output, added: Added) -> None:
    out.fields(
        ("prompt", added.edit.prompt),
        ("before", added.before or "(nothing)"),
        ("after", added.answer or "(nothing)"),
        ("version", added.version),
        ("verified", "yes" if added.verified else "no"),
        ("seconds", f"{added.seconds:.1f}"),
        ("edit", short_digest(added.edit.id)),
        ("carries", f"{added.carries.right} of {added.carries.of}" if added.carries else ""),
        ("reach", added.reach.summary if added.reach else ""),
        ("supersedes", ", ".join(short_digest(edit_id) for edit_id in added.supersedes)),
        ("outcome", "" if added.outcome == "added" else added.outcome),
    )
