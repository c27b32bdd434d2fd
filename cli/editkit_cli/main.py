"""The entry point: global options and the commands."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from editkit_cli.terminal.group import RootGroup
from editkit_cli.terminal.options import shared_options
from editkit_cli.terminal.output import Output

__all__ = ["COMMANDS", "ORDER", "cli", "main"]

ORDER = (
    "init", "add", "adjust", "generate", "chat", "explain", "log", "show", "status", "diff",
    "rollback", "revert", "undo", "redo", "tag", "replay", "migrate", "verify", "compact", "sql",
    "export", "import", "codebook", "serve", "mcp", "token", "models", "methods", "eval",
)  # fmt: skip
"""Order of the help; commands that are not named come last."""


def _commands() -> dict[str, str]:
    """Returns ``module:attribute`` of every module of ``commands``, by verb; imports none."""
    folder = Path(__file__).with_name("commands")
    modules = sorted(one.name for one in pkgutil.iter_modules([str(folder)]) if not one.ispkg)
    found = {name.rstrip("_"): f"editkit_cli.commands.{name}:{name}" for name in modules}
    ranks = {name: rank for rank, name in enumerate(ORDER)}
    return dict(sorted(found.items(), key=lambda one: ranks.get(one[0], len(ranks))))


COMMANDS = _commands()


def _show_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from editkit_cli import __version__

        Output().text(f"editkit {__version__}")
        context.exit()


@click.group(
    cls=RootGroup,
    members=COMMANDS,
    help="Correct a language model while it runs, and keep every correction in one DuckDB file",
    epilog="Where `editkit serve` holds the store, commands go through it by themselves.  "
    "Exit codes: 0 done, 1 a known error, 2 wrong usage, 3 checked and the answer is no.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version of editkit",
)
@shared_options("store", "model", "json", "quiet")
def cli(_settings: Any) -> None:
    """The root of all commands."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs ``editkit`` on a command line (by default the process's own) and exits."""
    cli.main(args=None if argv is None else list(argv), prog_name="editkit")
