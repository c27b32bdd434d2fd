"""The entry point: global options, and the table of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from editkit_cli.terminal.group import RootGroup
from editkit_cli.terminal.options import shared_options
from editkit_cli.terminal.output import Output

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
    "init": "editkit_cli.commands.init:init",
    "add": "editkit_cli.commands.add:add",
    "generate": "editkit_cli.commands.generate:generate",
    "chat": "editkit_cli.commands.chat:chat",
    "explain": "editkit_cli.commands.explain:explain",
    "log": "editkit_cli.commands.log:log",
    "show": "editkit_cli.commands.show:show",
    "status": "editkit_cli.commands.status:status",
    "diff": "editkit_cli.commands.diff:diff",
    "rollback": "editkit_cli.commands.rollback:rollback",
    "revert": "editkit_cli.commands.revert:revert",
    "undo": "editkit_cli.commands.undo:undo",
    "redo": "editkit_cli.commands.redo:redo",
    "tag": "editkit_cli.commands.tag:tag",
    "replay": "editkit_cli.commands.replay:replay",
    "verify": "editkit_cli.commands.verify:verify",
    "compact": "editkit_cli.commands.compact:compact",
    "sql": "editkit_cli.commands.sql:sql",
    "export": "editkit_cli.commands.export:export",
    "import": "editkit_cli.commands.import_bundle:import_",
    "codebook": "editkit_cli.commands.codebook:codebook",
    "serve": "editkit_cli.commands.serve:serve",
    "mcp": "editkit_cli.commands.mcp:mcp",
    "token": "editkit_cli.commands.token:token",
    "models": "editkit_cli.commands.models:models",
    "methods": "editkit_cli.commands.methods:methods",
    "eval": "editkit_cli.commands.evaluate:evaluate",
}


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
