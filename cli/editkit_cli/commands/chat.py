"""Talking to the model and correcting it: where lines come from, a terminal or a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from editkit_cli.backend.opening import check_store, open_model, voice_of
from editkit_cli.terminal.group import KEPT, command
from editkit_cli.terminal.interrupts import CarriedOn, is_interrupt
from editkit_cli.terminal.options import Settings, provenance_options, text, version_option
from editkit_cli.terminal.output import Output

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_cli.commands.conversation import Chat

__all__ = ["chat"]

PROMPT = "> "


@command(
    "chat",
    example="""
        editkit chat
        editkit chat --model smollm2-135m --system 'Answer in one sentence.'
        editkit chat --quiet < turns.txt > answers.txt
    """,
    shared=("store", "model", "nl", "quiet"),
)
@click.option("--system", type=text, metavar="TEXT", help="System message before the conversation")
@version_option
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
    with open_model(settings, provenance=how) as kit:
        from editkit_cli.commands.conversation import Chat

        talk = Chat(
            kit,
            settings.out,
            Output(quiet=settings.quiet, is_aside=True),
            system=system,
            version=version,
            max_new_tokens=max_new_tokens,
            streams=sys.stdout.isatty() and not settings.out.as_json,
            about={"author": author, "reason": reason, "scope": scope},
            voice=voice_of(settings, kit),
        )
        if not talk.has_template:
            settings.out.warning(
                f"'{kit.name}' has no chat template: each line is a prompt of its own, which the "
                "model continues, and it does not remember those before"
            )
        if not sys.stdin.isatty():
            return _piped(talk)
        _greet(settings, kit, is_new=is_new)
        _typed(talk, settings.out)
    return 0


def _greet(settings: Settings, kit: Kit, *, is_new: bool) -> None:
    edits = kit.status().edits
    where = f"a new history in '{settings.store}'" if is_new else f"'{settings.store}'"
    settings.out.status(
        f"{kit.name} at {kit.version} of {where}, {edits} active edit{'' if edits == 1 else 's'}; "
        "/help lists the commands, Ctrl-D leaves"
    )


def _piped(talk: Chat) -> int:
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


def _typed(talk: Chat, out: Output) -> None:
    """Takes lines from a terminal. What goes wrong with one was told; the next may do better."""
    with _line_editing():
        while not talk.is_over:
            try:
                line = _asked_for()
            except KeyboardInterrupt:  # the line is thrown away, as a shell does
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
                out.interrupted(str(error) if isinstance(error, CarriedOn) else KEPT)


def _asked_for() -> str:
    """Returns the line that somebody types; with readline's keys where both ends are a terminal."""
    if sys.stdout.isatty():
        return input(PROMPT)
    click.echo(PROMPT, err=True, nl=False)
    return input()


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Lets lines be edited, and called back with the arrow keys, where there is readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    # A paste of several lines is then one message; Python switches that off by default.
    is_gnu = "libedit" not in (readline.__doc__ or "")
    if is_gnu:
        readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        yield
    finally:
        if is_gnu:
            readline.parse_and_bind("set enable-bracketed-paste off")
