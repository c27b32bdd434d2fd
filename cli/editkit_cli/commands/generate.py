"""`editkit generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from editkit_cli.backend.opening import chat_turn, check_question, open_model
from editkit_cli.terminal.edits import delivery_note
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import (
    Settings,
    chat_options,
    check_chat,
    delivery_option,
    text,
    version_option,
)
from editkit_cli.terminal.tables import short_digest

if TYPE_CHECKING:
    from editkit_cli.terminal.output import Output
    from editkit_store.records import Delivery, Generation

__all__ = ["generate"]


@command(
    "generate",
    example="""
        editkit generate 'The capital of Australia is' --max-new-tokens 8
        editkit generate 'The capital of Australia is' --version v0
    """,
    shared=("store", "model", "judge", "json", "nl", "quiet"),
)
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True, type=text)
@chat_options
@version_option
@delivery_option
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
    delivery: Delivery,
    max_new_tokens: int,
) -> None:
    """Let the edited model continue a prompt.

    Several prompts give several answers, in their order. A prompt of - is read from stdin.
    """
    check_chat(chat=chat, system=system)
    check_question(settings, version)
    with open_model(settings, read_only=True) as backend:
        if chat:
            turns = [chat_turn(prompt, system=system) for prompt in prompts]
            made = [
                backend.chat(one, version=version, max_new_tokens=max_new_tokens, delivery=delivery)
                for one in turns
            ]
        else:
            made = backend.generate(
                prompts, version=version, max_new_tokens=max_new_tokens, delivery=delivery
            )
    out = settings.out
    out.result(made if len(made) > 1 else made[0], lambda: _draw_answers(out, made))


def _draw_answers(out: Output, made: list[Generation]) -> None:
    for one in made:
        out.text(one.text)
        fired = ", ".join(short_digest(edit_id) for edit_id in one.fired)
        note = f"fired {fired}{delivery_note(one)}" if fired else "no edit fired"
        out.status(f"{one.version}, {note}")
