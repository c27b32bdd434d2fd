"""`editkit add --from`: one transaction per edit, so that a run can be interrupted and resumed."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from editkit.errors import MalformedLine, UnsupportedMethod, UnsupportedModel
from editkit_cli.backend.opening import open_model
from editkit_cli.terminal.interrupts import keeping
from editkit_cli.terminal.options import Settings
from editkit_store.errors import InvalidRequest
from editkit_store.records import Added, Contradiction, EditRequest, MethodName

if TYPE_CHECKING:
    from editkit_cli.backend.base import Backend

__all__ = ["TOGETHER", "add_file"]

TOGETHER = 8
"""Edits that are learned and committed together, each as an operation of its own."""


def add_file(
    settings: Settings,
    source: str,
    *,
    method: MethodName | None,
    reason: str | None,
    author: str | None,
    preset: Literal["default", "paper"],
    scope: Literal["strict", "balanced", "broad"] | None,
    on_failure: Literal["record", "keep"],
    on_conflict: Literal["supersede", "error", "keep"],
) -> int:
    """Adds the edits of a JSON lines file and prints the outcome of each.

    Args:
        settings: The shared options.
        source: Path of the file; ``-`` is standard input.
        method: Method of lines that name none.
        reason: Recorded in the history, but not part of the edits, so that a run with another one
            still skips what is done.
        author: Likewise.
        preset: Constants of the methods.
        scope: Scope of lines that name none.
        on_failure: What to do with an edit that does not verify.
        on_conflict: What to do with an edit that contradicts an active one.

    Returns:
        Number of edits that did not verify.

    Raises:
        MalformedLine: A line has no valid edit; the lines before it are done.
    """
    from editkit.editing.files import read_requests

    run = _Run(settings, on_failure, on_conflict)
    try:
        with keeping(run.kept):
            lines = read_requests(source, method=method, scope=scope)
            first = next(lines, None)  # a bad first line is reported before a model is loaded
            if first is None:
                settings.out.warning(f"there are no edits in '{source}'")
            else:
                how = settings.provenance(author=author, reason=reason)
                with (
                    open_model(settings, preset=preset, provenance=how) as backend,
                    run.bar(source),
                ):
                    run.through(backend, itertools.chain([first], lines), source)
    finally:
        run.report()
    return run.failed


class _Run:
    """The outcomes of the lines so far."""

    def __init__(
        self,
        settings: Settings,
        on_failure: Literal["record", "keep"],
        on_conflict: Literal["supersede", "error", "keep"],
    ) -> None:
        self._out = settings.out
        self._on_failure = on_failure
        self._on_conflict = on_conflict
        self._progress = settings.out.progress()
        self._results: list[Added] = []
        self._skipped = 0
        self._kept = 0
        self._again = shlex.join(["editkit", *settings.argv])
        self.failed = 0

    def kept(self) -> str:
        """Returns what an interrupted run leaves behind, and how to resume it."""
        done = len(self._results) - self.failed - self._kept
        edits = f"{done} new edit{'' if done == 1 else 's'}"
        return f"{edits} in the history; the same command resumes here: {self._again}"

    @contextlib.contextmanager
    def bar(self, source: str) -> Iterator[None]:
        """Shows a progress bar."""
        from editkit.editing.files import count_edits

        self._progress.start("Adding edits", count_edits(source), "edits")
        try:
            yield
        finally:
            self._progress.done()

    def through(
        self, backend: Backend, lines: Iterable[tuple[int, EditRequest]], source: str
    ) -> None:
        """Adds the lines in batches; the lines before a bad one are done before it is reported."""
        seen: Counter[EditRequest] = Counter()
        waiting: list[EditRequest] = []
        try:
            for number, request in lines:
                # A file may hold the same line twice, with another target in between.
                seen[request] += 1
                if backend.count_requests(request) >= seen[request]:
                    self.skip()
                    continue
                with _blamed_on(source, number):
                    backend.check(request)
                waiting.append(request)
                if len(waiting) == TOGETHER:
                    batch, waiting = waiting, []
                    self._add(backend, batch)
        except MalformedLine:
            self._add(backend, waiting)
            raise
        self._add(backend, waiting)

    def _add(self, backend: Backend, batch: list[EditRequest]) -> None:
        backend.add_many(
            batch,
            on_failure=self._on_failure,
            on_conflict=self._on_conflict,
            told=self.take,
            warned=self.warn,
        )

    def warn(self, request: EditRequest, found: tuple[Contradiction, ...]) -> None:
        """Warns about what a line contradicts, before it is learned."""
        for one in found:
            self._out.warning(
                f"'{request.prompt}' → '{request.target}' contradicts edit {one.edit_id}, with the "
                f"target '{one.target}'"
            )

    def skip(self) -> None:
        """Counts a line that is already in the history."""
        self._skipped += 1
        self._progress.advance(1)

    def take(self, added: Added) -> None:
        """Counts a finished edit, and prints it unless the output is one JSON list."""
        self._results.append(added)
        self._kept += added.outcome == "kept"
        self.failed += not added.verified and added.outcome != "kept"
        out = self._out
        if out.as_lines or not out.as_json:
            out.result(added, lambda: out.text(_line(added)))
        self._progress.advance(1)

    def report(self) -> None:
        """Prints the list and the summary, however the run ended."""
        if self._out.as_json and not self._out.as_lines:
            self._out.result(self._results, lambda: None)
        done = len(self._results) - self.failed - self._kept
        kept = f", {self._kept} left out to keep another edit" if self._kept else ""
        self._out.status(
            f"{done} verified, {self.failed} not verified, "
            f"{self._skipped} skipped (already in the history){kept}"
        )


def _line(added: Added) -> str:
    from editkit_cli.terminal.tables import clean, short_digest

    verified = "verified" if added.verified else "FAILED  "
    if added.outcome == "kept":
        verified = "KEPT    "
    said = "" if added.verified else f", not '{clean(added.answer)}'"
    return (
        f"{added.version:<6} {verified} {added.seconds:5.1f} s  {short_digest(added.edit.id)}  "
        f"{clean(added.edit.prompt)} → {clean(added.edit.target)}{said}"
    )


@contextlib.contextmanager
def _blamed_on(source: str, number: int) -> Iterator[None]:
    """Adds the number of the line to its error."""
    from editkit.editing.files import HINT, EditSource

    try:
        yield
    except (InvalidRequest, UnsupportedMethod, UnsupportedModel) as error:
        raise EditSource(source, error.hint or HINT).malformed(number, str(error)) from error
