"""The only printer: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

from editkit_cli.terminal.tables import (
    Column,
    clean,
    fields,
    fit,
    keep_filled,
    plain_table,
    visible,
)

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from editkit_store.errors import EditkitError
    from editkit_store.records import Record

__all__ = ["Bar", "Output", "Silent"]

PIPE_WIDTH = 120
"""Width of tables that are not printed on a terminal, unless COLUMNS is set."""


ESTIMATE_SECONDS = 3600.0
"""Seconds of progress from which a bar estimates the remaining time."""


class Output:
    """Prints results as text or JSON, and everything about them on stderr.

    Args:
        as_json: Results as JSON documents.
        as_lines: Results as JSON, one object per line.
        quiet: No status and no progress.
        is_aside: Print results to stderr, too.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        as_lines: bool = False,
        quiet: bool = False,
        is_aside: bool = False,
    ) -> None:
        self.as_json = as_json
        self.as_lines = as_lines
        self.quiet = quiet
        self._is_aside = is_aside
        self._bar: Bar | None = None

    # Results, on stdout -----------------------------------------------------------------------

    def result(self, record: Record | Sequence[Record], draw: Callable[[], None]) -> None:
        """Prints a record (or a list of them): as JSON, or by calling ``draw``."""
        if not self.as_json:
            draw()
            return
        if not isinstance(record, Sequence):
            self._write(_dump(record.model_dump(mode="json"), indent=not self.as_lines))
        elif self.as_lines:
            for one in record:
                self._write(_dump(one.model_dump(mode="json"), indent=False))
        else:
            self._write(_dump([one.model_dump(mode="json") for one in record], indent=True))

    def json(self, data: object) -> None:
        """Prints data other than records as JSON."""
        self._write(_dump(data, indent=not self.as_lines))

    def text(self, text: str) -> None:
        """Prints text on stdout; without control characters on a terminal."""
        self._write(visible(text) if self._is_drawn else text)

    def piece(self, text: str) -> None:
        """Prints a part of a line on stdout at once, for streamed text."""
        _echo(visible(text) if self._is_drawn else text, newline=False)

    def fields(self, *rows: tuple[str, str]) -> None:
        """Prints names and values below each other."""
        self._write(fields(rows))

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Prints a table: with rich on a terminal, plain elsewhere."""
        if self._is_drawn:
            self._rich_table(columns, rows)
        else:
            self._write(plain_table(columns, rows, _pipe_width()))

    def _rich_table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False, stderr=self._is_aside)
        columns, cells = keep_filled(columns, rows)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                style=column.style,
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in fit(columns, cells, console.width):
            table.add_row(
                *(Text(cell) for cell in row)
            )  # Text: brackets in a prompt are not markup
        console.print(table)

    def _write(self, text: str) -> None:
        # A bar on the same terminal makes room for the line.
        if self._bar is not None and self._is_drawn:
            with self._bar.aside():
                _echo(text, err=self._is_aside)
        else:
            _echo(text, err=self._is_aside)

    @property
    def _is_drawn(self) -> bool:
        """Whether results go to a terminal."""
        return _is_terminal(sys.stderr if self._is_aside else sys.stdout)

    # Everything else, on stderr ---------------------------------------------------------------

    def status(self, message: str) -> None:
        """Prints what was done, and the state now."""
        if not self.quiet:
            self._note(visible(message))

    def confide(self, message: str) -> None:
        """Prints a secret: only on a terminal, so that it does not end up in a file."""
        if _is_terminal(sys.stderr):
            self.status(message)

    def warning(self, message: str, *, hint: str | None = None) -> None:
        """Prints what deserves attention while the command goes on."""
        self._note(_label("warning", "yellow") + clean(message))
        if hint:
            self._note(_label("hint", "cyan") + clean(hint))

    def error(self, error: EditkitError) -> None:
        """Prints the message of an error on one line, and its hint on another."""
        self._note(_label("error", "red") + clean(str(error)))
        if error.hint:
            self._note(_label("hint", "cyan") + clean(error.hint))

    def interrupted(self, kept: str) -> None:
        """Prints what an interrupted command leaves behind."""
        self._note(_label("interrupted", "yellow") + clean(kept))

    def _note(self, text: str) -> None:
        if self._bar is not None:
            with self._bar.aside():
                _echo(text, err=True)
        else:
            _echo(text, err=True)

    def progress(self) -> Bar | Silent:
        """Returns a progress bar, or on no terminal a silent one."""
        if self.quiet or not _is_terminal(sys.stderr):
            return Silent()
        self._bar = self._bar or Bar()
        return self._bar


def _echo(text: str, *, err: bool = False, newline: bool = True) -> None:
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed by the parent process
        return
    try:
        click.echo(text, err=err, nl=newline)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err, nl=newline)
    except BrokenPipeError:
        raise
    except OSError as error:
        if err:
            return  # there is nowhere else to print it
        raise click.ClickException(f"the result cannot be written: {error.strerror}") from error


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _label(word: str, color: str) -> str:
    plain = os.environ.get("NO_COLOR") or not _is_terminal(sys.stderr)
    return f"{word}: " if plain else click.style(f"{word}:", fg=color, bold=True) + " "


def _dump(data: Any, *, indent: bool) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2 if indent else None)


def _pipe_width() -> int:
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns


class Silent:
    """Progress that is not shown."""

    def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
        """Ignores the stage."""

    def advance(self, amount: int = 1) -> None:
        """Ignores the amount."""

    def done(self) -> None:
        """Ignores the end."""


class Bar:
    """A progress bar on stderr, with the remaining time.

    A stage inside another one (an adapter fetched while edits are replayed) gets its own bar.
    """

    def __init__(self) -> None:
        self._live: RichProgress | None = None
        self._tasks: list[TaskID] = []
        self._lock = threading.RLock()

    def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
        """Begins a stage."""
        with self._lock:
            if self._live is None:
                self._live = _bars()
                self._live.start()
            self._tasks.append(self._live.add_task(task, total=total, amount="", unit=unit))
            # A first sample: without it, the first batch would give no estimate.
            self._live.advance(self._tasks[-1], 0)
            self._refresh(self._tasks[-1])

    def advance(self, amount: int = 1) -> None:
        """Advances the innermost stage."""
        with self._lock:
            if self._live is not None and self._tasks:
                self._live.advance(self._tasks[-1], amount)
                self._refresh(self._tasks[-1])

    def done(self) -> None:
        """Ends the innermost stage; the last one removes the bar."""
        with self._lock:
            if self._live is None or not self._tasks:
                return
            self._live.remove_task(self._tasks.pop())
            if not self._tasks:
                self._live.stop()
                self._live = None

    def aside(self) -> _Aside:
        """Returns a context in which a line can be printed."""
        return _Aside(self._live)

    def _refresh(self, number: TaskID) -> None:
        assert self._live is not None
        task = next(task for task in self._live.tasks if task.id == number)
        self._live.update(number, amount=_amount(task.completed, task.total, task.fields["unit"]))


class _Aside:
    def __init__(self, live: RichProgress | None) -> None:
        self._live = live

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.stop()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.start()


def _amount(completed: float, total: float | None, unit: str) -> str:
    if total is None and not completed:
        return ""
    if unit == "bytes":
        done = f"{completed / 1e6:.0f}"
        return f"{done} MB" if total is None else f"{done}/{total / 1e6:.0f} MB"
    return f"{completed:.0f}" if total is None else f"{completed:.0f}/{total:.0f}"


def _bars() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
        # Batches may be minutes apart, so rich's 30 seconds would cover at most one of them.
        speed_estimate_period=ESTIMATE_SECONDS,
        # Results belong on stdout; rich would redirect them to stderr.
        redirect_stdout=False,
        redirect_stderr=False,
    )
