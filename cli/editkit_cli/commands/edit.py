"""Correcting the model, asking it, and asking why it answers so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from editkit_cli.group import command
from editkit_cli.options import (
    METHODS,
    Settings,
    agent_options,
    chat_options,
    check_chat,
    conflict_option,
    provenance_options,
    text,
    version_option,
)
from editkit_cli.session import chat_turn, check_question, open_model
from editkit_cli.tables import Column, short_digest

if TYPE_CHECKING:
    from editkit_cli.output import Output
    from editkit_store.records import (
        Added,
        Contradiction,
        EditRequest,
        Explanation,
        Generation,
    )

__all__ = ["add", "explain", "generate"]

NOT_VERIFIED = 3
"""Exit code when an edit was tried and the model still answers otherwise."""


@command(
    "add",
    example="""
        editkit add --prompt 'The capital of Australia is' --target Canberra
        editkit add --chat --prompt 'Who wrote Dune?' --target 'Frank Herbert' --author ada
        editkit add --from edits.jsonl
    """,
    shared=("store", "model", "json", "nl", "quiet"),
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
@click.option("--method", type=click.Choice(METHODS), help="How it is learned  [default: grace]")
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
    help="How far it reaches, if it is looked up by its words  [default: balanced]",
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
        from editkit_cli.commands.bulk import add_file

        shared = {name: asked[name] for name in ("method", "scope", "reason", "author")}
        failed = add_file(
            settings, from_file, preset=preset, on_failure=on_failure,
            on_conflict=on_conflict, **shared,
        )  # fmt: skip
        return NOT_VERIFIED if failed else 0
    from editkit.requests import build_request

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

    with open_model(settings, preset=preset, provenance=how) as kit:
        (added,) = kit.add_many(
            [given], on_failure=on_failure, on_conflict=on_conflict, warned=warned, before=True
        )
    out.result(added, lambda: _draw_added(out, added))
    if added.outcome == "kept":
        out.warning(
            f"not learned: edit {short_digest(added.edit.id)} gives "
            f"'{added.conflicts[0].target}' there, and was to be kept"
        )
        return 0
    if added.outcome == "known":
        out.status("the idempotency key is known; this is what came of it")
    if not added.verified:
        warn_unverified(out, added)
    if added.lost:
        names = ", ".join(short_digest(one) for one in added.lost)
        out.warning(f"earlier edits that do not give their target any more: {names}")
    return 0 if added.verified else NOT_VERIFIED


def _check_usage(from_file: str | None, asked: dict[str, Any]) -> None:
    """Refuses combinations that contradict each other."""
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


def warn_contradiction(out: Output, found: tuple[Contradiction, ...]) -> None:
    """Says which active edits a new one contradicts."""
    for one in found:
        what = (
            f"it supersedes edit {one.edit_id}, which has the same prompt and the target "
            f"'{one.target}'"
            if one.kind == "prompt"
            else f"its prompt lies in the scope of edit {one.edit_id} ('{one.prompt}' -> "
            f"'{one.target}'), which gives way there"
        )
        out.warning(what)


def warn_unverified(out: Output, added: Added) -> None:
    """Says that an edit did not verify, and what became of it."""
    active = added.edit.status == "active"
    out.warning(
        f"the edit did not verify: the model answers '{added.answer}', not "
        f"'{added.edit.target}'; it is recorded as "
        + ("active all the same" if active else "failed and is not active"),
        hint=None if active else "try another wording, or make it active with --on-failure keep",
    )


def _draw_added(out: Output, added: Added) -> None:
    out.fields(
        ("prompt", added.edit.prompt),
        ("before", added.before or "(nothing)"),
        ("after", added.answer or "(nothing)"),
        ("version", added.version),
        ("verified", "yes" if added.verified else "no"),
        ("seconds", f"{added.seconds:.1f}"),
        ("edit", short_digest(added.edit.id)),
        ("reach", added.reach.summary if added.reach else ""),
        ("supersedes", ", ".join(short_digest(edit_id) for edit_id in added.supersedes)),
        ("outcome", "" if added.outcome == "added" else added.outcome),
    )


@command(
    "generate",
    example="""
        editkit generate 'The capital of Australia is' --max-new-tokens 8
        editkit generate 'The capital of Australia is' --version v0
    """,
    shared=("store", "model", "json", "nl", "quiet"),
)
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True, type=text)
@chat_options
@version_option
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True, metavar="N",
    help="Stop after so many tokens",
)  # fmt: skip
def generate(
    settings: Settings,
    prompts: tuple[str, ...],
    chat: bool,
    system: str | None,
    version: str | None,
    max_new_tokens: int,
) -> None:
    """Let the edited model continue a prompt.

    Several prompts give several answers, in their order. A prompt of - is read from stdin.
    """
    check_chat(chat=chat, system=system)
    check_question(settings, version)
    with open_model(settings, read_only=True) as kit:
        if chat:
            turns = [chat_turn(prompt, system=system) for prompt in prompts]
            made = [kit.chat(t, version=version, max_new_tokens=max_new_tokens) for t in turns]
        else:
            made = kit.generate(list(prompts), version=version, max_new_tokens=max_new_tokens)
    out = settings.out
    out.result(made if len(made) > 1 else made[0], lambda: _draw_answers(out, made))


def _draw_answers(out: Output, made: list[Generation]) -> None:
    for one in made:
        out.text(one.text)
        fired = ", ".join(short_digest(edit_id) for edit_id in one.fired)
        out.status(f"{one.version}, " + (f"fired {fired}" if fired else "no edit fired"))


@command(
    "explain",
    example="""editkit explain "What is Australia's capital city?\"""",
    shared=("store", "model", "json", "quiet"),
)
@click.argument("prompt", metavar="PROMPT", type=text)
@chat_options
@version_option
@click.option(
    "-k", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
    help="Show so many of the nearest edits",
)  # fmt: skip
def explain(
    settings: Settings, prompt: str, chat: bool, system: str | None, version: str | None, k: int
) -> None:
    """Show which edit applies to a prompt, and how near the others are."""
    check_chat(chat=chat, system=system)
    check_question(settings, version)
    turns = chat_turn(prompt, system=system) if chat else None
    with open_model(settings, read_only=True) as kit:
        found = kit.explain(None if chat else prompt, chat=turns, version=version, k=k)
    out = settings.out
    out.result(found, lambda: _draw_explanation(out, found))


def _draw_explanation(out: Output, found: Explanation) -> None:
    out.text(found.summary)
    if found.candidates:
        out.table(
            (Column("edit", style="cyan"), Column("distance", right=True),
             Column("radius", right=True), Column("in scope"),
             Column("prompt", flexible=True), Column("target", flexible=True)),
            [
                (
                    short_digest(one.edit_id),
                    f"{one.distance:.4g}",
                    f"{one.radius:.4g}",
                    "yes" if one.in_scope else "no",
                    one.prompt,
                    one.target,
                )
                for one in found.candidates
            ],
        )  # fmt: skip
    out.status(f"at {found.version}, compared at {found.site}")
