"""`editkit chat`: reads the lines of a conversation, from a terminal or a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from editkit_cli.backend.opening import check_store, open_model
from editkit_cli.terminal.group import KEPT, command
from editkit_cli.terminal.interrupts import ServerContinues, is_interrupt
from editkit_cli.terminal.options import (
    Settings,
    delivery_option,
    provenance_options,
    text,
    version_option,
)
from editkit_cli.terminal.output import Output

if TYPE_CHECKING:
    from editkit_cli.backend.base import Backend
    from editkit_cli.commands.shared.conversation import Conversation
    from editkit_store.records import Delivery

__all__ = ["chat"]

PROMPT = "> "


@command(
    "chat",
    example="""
        editkit chat
        editkit chat --model smollm2-135m --system 'Answer in one sentence.'
        editkit chat --quiet < turns.txt > answers.txt
    """,
    shared=("store", "model", "judge", "nl", "quiet"),
)
@click.option("--system", type=text, metavar="TEXT", help="System message before the conversation")
@version_option
@delivery_option
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, metavar="N",
    help="Stop an answer after so many tokens",
)  # fmt: skip
@click.option(
    "--scope", type=click.Choice(["strict", "balanced", "broad"]),
    help="How far corrections reach  [default: balanced]",
)  # fmt: skip
@provenance_options
def chat(
    settings: Settings,
    system: str | None,
    version: str | None,
    delivery: Delivery,
    max_new_tokens: int,
    scope: Any,
    reason: str | None,
    author: str | None,
) -> int:
    """Talk to the model, and correct what it says.

    /fix TEXT corrects the last answer, /why says which edit gave it, /undo takes the last change
    back; /help lists all commands. Corrections hold in other conversations too.

    Ctrl-C stops an answer, Ctrl-D leaves.

    From a pipe, every line is a turn or a command; answers go to stdout, all else to stderr. The
    exit code is then that of the first line that went wrong: 3 of a correction that did not verify.
    """
    if version is not None:
        check_store(settings, version)
    settings.as_lines |= settings.as_json  # answers are many documents: one a line
    is_new = not settings.path.exists()
    how = settings.provenance(author=author, reason=reason)
    with open_model(settings, provenance=how) as backend:
        from editkit_cli.commands.shared.conversation import Conversation

        talk = Conversation(
            backend,
            settings.out,
            Output(quiet=settings.quiet, is_aside=True),
            system=system,
            version=version,
            max_new_tokens=max_new_tokens,
            delivery=delivery,
            streams=sys.stdout.isatty() and not settings.out.as_json,
            about={"author": author, "reason": reason, "scope": scope},
        )
        if not talk.has_template:
            settings.out.warning(
                f"'{backend.name}' has no chat template: the model continues each line as a "
                "prompt, and does not remember the lines before"
            )
        if not sys.stdin.isatty():
            return _piped(talk)
        _greet(settings, backend, is_new=is_new)
        _typed(talk, settings.out)
    return 0


def _greet(settings: Settings, backend: Backend, *, is_new: bool) -> None:
    edits = backend.status().edits
    count = f"{edits} active edit{'' if edits == 1 else 's'}"
    where = f"a new history in '{settings.store}'" if is_new else f"'{settings.store}'"
    settings.out.status(
        f"{backend.name} at {backend.version} of {where}, {count}; "
        "/help lists the commands, Ctrl-D leaves"
    )


def _piped(talk: Conversation) -> int:
    first = 0
    try:
        for line in sys.stdin:
            line.encode()
            code = talk.take(line.removesuffix("\n"))
            first = first or code
            if talk.is_over:
                break
    except UnicodeError as error:
        raise click.UsageError("standard input is not valid UTF-8") from error
    return first


def _typed(talk: Conversation, out: Output) -> None:
    """Reads lines from a terminal. An error ends the line, not the conversation."""
    with _line_editing():
        while not talk.is_over:
            try:
                line = _read_line()
            except KeyboardInterrupt:  # discards the line, as a shell does
                out.status("\n(Ctrl-D leaves)")
                continue
            except EOFError:
                out.status("")
                break
            except UnicodeError:
                out.warning("that was not valid UTF-8")
                continue
            try:
                talk.take(line)
            except (KeyboardInterrupt, RuntimeError) as error:
                if not is_interrupt(error):
                    raise
                out.interrupted(str(error) if isinstance(error, ServerContinues) else KEPT)


def _read_line() -> str:
    """Returns the line that the user types; with readline if both ends are a terminal."""
    if sys.stdout.isatty():
        return input(PROMPT)
    click.echo(PROMPT, err=True, nl=False)
    return input()


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Enables line editing and a history of lines, if there is readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    # Makes a paste of several lines one message; Python disables that by default.
    is_gnu = "libedit" not in (readline.__doc__ or "")
    if is_gnu:
        readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        yield
    finally:
        if is_gnu:
            readline.parse_and_bind("set enable-bracketed-paste off")
