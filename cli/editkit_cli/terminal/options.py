"""Option stacks that commands share, and the settings they fill.

Shared options may stand before or after the verb; the later one counts, and a flag counts over
the environment wherever it stands.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from editkit_cli.terminal.output import Output

if TYPE_CHECKING:
    from editkit_cli.service.client.connection import ServerConnection
    from editkit_store.records import Provenance

__all__ = [
    "SHARED",
    "Settings",
    "agent_options",
    "chat_options",
    "check_chat",
    "conflict_option",
    "delivery_option",
    "method",
    "provenance_options",
    "shared_options",
    "text",
    "version_option",
]

DEFAULT_STORE = "history.db"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass
class Settings:
    """The values of the shared options; one object per run.

    Attributes:
        argv: The command line, which the history records.
        store: Path of the DuckDB file.
        model: Name of the model; ``None`` is the one that the store remembers.
        judge: What decides which edit a prompt asks for; ``None`` is what the store remembers.
        allow_pickle: Whether pickled weights may be read; ``None`` if nobody said.
        as_json: Print JSON instead of text.
        as_lines: Print one JSON object per line.
        quiet: Print no status and no progress.
        connection: To the server that holds the store, once it was found.
    """

    argv: tuple[str, ...] = ()
    store: str = DEFAULT_STORE
    model: str | None = None
    judge: str | None = None
    allow_pickle: bool | None = None
    as_json: bool = False
    as_lines: bool = False
    quiet: bool = False
    connection: ServerConnection | None = None
    _flagged: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """The store's file."""
        return Path(self.store)

    @functools.cached_property
    def out(self) -> Output:
        """The printer for these settings; one per run, because it tracks the progress bar."""
        return Output(
            as_json=self.as_json or self.as_lines, as_lines=self.as_lines, quiet=self.quiet
        )

    def take(self, name: str, value: Any, source: ParameterSource | None) -> None:
        """Stores a value. Defaults never count, and flags count over the environment."""
        if source is ParameterSource.COMMANDLINE:
            self._flagged.add(name)
        elif value in (None, False) or name in self._flagged:
            return
        setattr(self, name, value)

    def was_flagged(self, name: str) -> bool:
        """Returns whether the command line gave this setting."""
        return name in self._flagged

    @property
    def is_store_named(self) -> bool:
        """Whether the store was named explicitly; otherwise it is this folder's default."""
        return self.was_flagged("store") or bool(os.environ.get("EDITKIT_STORE"))

    def provenance(self, *, author: str | None = None, reason: str | None = None) -> Provenance:
        """Returns the provenance that the history records for this command line."""
        from editkit_cli import __version__
        from editkit_store.records import Provenance

        return Provenance(
            author=author,
            reason=reason,
            command=shlex.join(["editkit", *self.argv]),
            tool=f"editkit {__version__}",
        )


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    name = parameter.name
    assert name is not None
    context.ensure_object(Settings).take(name, value, context.get_parameter_source(name))


def _shared(*flags: str, **how: Any) -> Callable[[bool], Decorator]:
    def make(hidden: bool) -> Decorator:
        return click.option(*flags, expose_value=False, callback=_keep, hidden=hidden, **how)

    return make


SHARED: dict[str, Callable[[bool], Decorator]] = {
    "store": _shared(
        "--store",
        metavar="PATH",
        envvar="EDITKIT_STORE",
        show_envvar=True,
        help=f"DuckDB file with the history  [default: {DEFAULT_STORE}]",
    ),
    "model": _shared(
        "--model",
        metavar="NAME",
        envvar="EDITKIT_MODEL",
        show_envvar=True,
        help="Alias, hub id, folder or GGUF file  [default: the store's, else smollm2-135m]",
    ),
    "judge": _shared(
        "--judge",
        type=click.Choice(["encoder", "none"]),
        help="What decides whether a prompt asks for an edit: a trained judge over a small "
        "encoder, or the methods' own keys  [default: the store's, else encoder]",
    ),
    "pickle": _shared(
        "--allow-pickle",
        is_flag=True,
        envvar="EDITKIT_ALLOW_PICKLE",
        show_envvar=True,
        help="Read pickled weights where a model has no safetensors; a pickle can run code",
    ),
    "json": _shared(
        "--json", "as_json", is_flag=True, help="Print the result as one JSON document"
    ),
    "nl": _shared(
        "--nl", "as_lines", is_flag=True, help="Print the result as JSON, one object a line"
    ),
    "quiet": _shared(
        "--quiet",
        "-q",
        is_flag=True,
        help="Print no status and no progress (errors always show)",
    ),
}

EVERYWHERE = ("store", "model", "pickle", "json", "quiet")
"""Shared options that every command takes; a script may pass them to all of its commands."""


def shared_options(*names: str) -> Decorator:
    """Returns a decorator: these shared options, and the ``Settings`` as first argument.

    Those of ``EVERYWHERE`` that a command has no use for are taken too, but not shown in its help.
    Which weights may be read goes with the choice of a model.
    """
    pass_settings: Any = click.make_pass_decorator(Settings, ensure=True)
    if "model" in names:
        at = names.index("model") + 1
        names = (*names[:at], "pickle", *names[at:])

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        wrapped: Callable[..., Any] = pass_settings(function)
        unshown = [name for name in EVERYWHERE if name not in names]
        for name in reversed([*names, *unshown]):
            wrapped = SHARED[name](name in unshown)(wrapped)
        return wrapped

    return decorate


class Text(click.ParamType[str]):
    """Text that may come from standard input (``-``), and that is whole Unicode."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text, reading standard input for ``-``."""
        if value == "-":
            value = sys.stdin.read().removesuffix("\n")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("the text is not valid UTF-8", param, ctx)
        return value


text = Text()


class Method(click.ParamType[str]):
    """Name of an installed editing method. Packages register them, so no list of names is here."""

    name = "method"

    def names(self) -> list[str]:
        """Returns the names that may be given, without importing any method."""
        from importlib.metadata import entry_points

        return sorted({point.name for point in entry_points(group="editkit.methods")})

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Returns the names, for the help."""
        return f"[{'|'.join(self.names())}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name, unless there is no such method or it cannot be used."""
        from editkit.errors import UnsupportedMethod
        from editkit.methods.registry import find_method

        try:
            return find_method(value).name
        except UnsupportedMethod as error:
            self.fail("; ".join(filter(None, [str(error), error.hint])), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the names that begin with what was typed."""
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


method = Method()


def provenance_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--reason`` and ``--author``, which the history keeps."""
    function = click.option(
        "--author", metavar="WHO", help="Who asks for it  [env: EDITKIT_AUTHOR; default: the user]"
    )(function)
    return click.option("--reason", metavar="WHY", help="Why, kept in the history")(function)


def agent_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a program that corrects a model says about itself and its request."""
    for flag, shown, words in (
        ("--idempotency-key", "KEY", "The same key twice is one edit"),
        ("--source", "S", "Where the request comes from, e.g. an id in a data file"),
        ("--conversation", "ID", "Conversation in which the wrong answer was seen"),
        ("--agent", "NAME", "Program that asks for it, where it is not a person"),
    ):
        function = click.option(flag, metavar=shown, type=text, help=words)(function)
    return function


def conflict_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--on-conflict``."""
    return click.option(
        "--on-conflict", type=click.Choice(["supersede", "error", "keep"]), default="supersede",
        show_default=True, help="Where an active edit gives another target for the prompt: the new "
        "one wins, is refused, or is left out",
    )(function)  # fmt: skip


def chat_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--chat`` and ``--system``."""
    function = click.option(
        "--system", type=text, metavar="TEXT", help="System message before the turn, with --chat"
    )(function)
    return click.option(
        "--chat", is_flag=True, help="Take the prompt as a user turn, through the chat template"
    )(function)


def check_chat(*, chat: bool, system: str | None) -> None:
    """Refuses a system message where there is no conversation."""
    if system is not None and not chat:
        raise click.UsageError("--system needs --chat")


def delivery_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--delivery``: whether answers are held to the targets of the edits that fire."""
    return click.option(
        "--delivery", type=click.Choice(["exact", "free"]), default="exact", show_default=True,
        help="Where an edit fires: hold the answer to its target, or leave the model alone",
    )(function)  # fmt: skip


def version_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--version``, the version of the history to answer at."""
    return click.option(
        "--version", "--at", "version", metavar="V", help="Answer as at this version: v3, @-, a tag"
    )(function)
