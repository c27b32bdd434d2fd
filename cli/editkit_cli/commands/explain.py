"""`editkit explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from editkit_cli.backend.opening import chat_turn, check_question, open_model
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import (
    Settings,
    chat_options,
    check_chat,
    text,
    version_option,
)
from editkit_cli.terminal.tables import Column, short_digest

if TYPE_CHECKING:
    from editkit_cli.terminal.output import Output
    from editkit_store.records import (
        Explanation,
    )

__all__ = ["explain"]


@command(
    "explain",
    example="""editkit explain "What is Australia's capital city?\"""",
    shared=("store", "model", "judge", "json", "quiet"),
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
    with open_model(settings, read_only=True) as backend:
        found = backend.explain(None if chat else prompt, chat=turns, version=version, k=k)
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
                    ("yes" if one.in_scope else "no") + (", adjusted" if one.adjusted else ""),
                    one.prompt,
                    one.target,
                )
                for one in found.candidates
            ],
        )  # fmt: skip
    out.status(f"at {found.version}, compared at {found.site}")
