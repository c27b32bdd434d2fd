"""Commands: imported lazily, documented with an example, guarded by one error boundary."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from editkit_cli.terminal.interrupts import is_interrupt
from editkit_cli.terminal.options import Settings, shared_options
from editkit_cli.terminal.output import Output

__all__ = ["CHECK_FAILED", "KEPT", "ExampleCommand", "LazyGroup", "RootGroup", "command"]

CHECK_FAILED = 3
"""Exit code of a command that checked something, and the answer is no."""


KEPT = "every finished operation is kept; the interrupted one left no trace"
"""What an interrupted command leaves behind, unless it says more."""


class ExampleCommand(click.Command):
    """A command whose help ends with an example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = inspect.cleandoc(example)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the example below the options, without rewrapping it."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def command(
    name: str, *, example: str, shared: Sequence[str] = ("store", "json", "quiet")
) -> Callable[[Callable[..., Any]], ExampleCommand]:
    """Returns a decorator that makes a function a command; its docstring is the help.

    Args:
        name: The verb.
        example: Useful command lines, one per line.
        shared: The shared options that it takes, see ``options.SHARED``.
    """

    def decorate(function: Callable[..., Any]) -> ExampleCommand:
        head, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
        made = click.command(
            name,
            cls=ExampleCommand,
            example=example,
            help="\n\n".join(filter(None, [head.rstrip("."), rest])),
        )(shared_options(*shared)(function))
        assert isinstance(made, ExampleCommand)
        made.params.sort(key=lambda param: not param.expose_value)  # its own options first
        return made

    return decorate


class LazyGroup(click.Group):
    """A group that imports the module of a command when it is named.

    Args:
        members: Names of commands, in the order of the help, and ``module:attribute`` of each.
    """

    def __init__(self, *args: Any, members: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.members = dict(members or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names without importing anything."""
        return list(self.members)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command, after importing its module."""
        place = self.members.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the named command; for an unknown one, raises an error with similar names."""
        name = args[0]
        if name not in self.members and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.members, n=3)
            ctx.fail(f"there is no command '{name}'" + _did_you_mean(near))
        return super().resolve_command(ctx, args)


def _did_you_mean(near: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(near)}?" if near else ""


class RootGroup(LazyGroup):
    """The whole program: keeps the command line, and is the only place that catches errors."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Returns the context, with new settings that hold the command line."""
        extra.setdefault("obj", Settings(argv=tuple(args)))
        return super().make_context(info_name, args, parent, **extra)

    def main(  # type: ignore[override]  # click's overloads only say when it returns
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the program and exits with its code.

        0 done; 1 a known error; 2 wrong usage; 3 checked, and the answer is no; 130 interrupted.
        An unexpected exception is a bug and keeps its traceback.
        """
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            result = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt) as stopped:
            Output().interrupted(_what_is_kept(stopped))
            sys.exit(130)
        except Exception as error:
            if is_interrupt(error):
                Output().interrupted(KEPT)
                sys.exit(130)
            # Imported here: whatever raised one has imported it, but `--help` need not.
            from editkit_store.errors import EditkitError

            if not isinstance(error, EditkitError):
                raise
            Output().error(error)
            sys.exit(1)
        sys.exit(result if isinstance(result, int) else 0)


def _what_is_kept(stopped: BaseException) -> str:
    """Returns what an interrupted command says is kept; click wraps its exception."""
    origin = stopped.__cause__ if isinstance(stopped, click.Abort) else stopped
    said = str(origin or "")
    return said or KEPT
