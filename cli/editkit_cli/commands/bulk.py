"""Many edits from a file: one transaction each, so that a run can stop anywhere and go on."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from editkit.errors import MalformedLine, UnsupportedMethod, UnsupportedModel
from editkit_cli.interrupts import keeping
from editkit_cli.options import Settings
from editkit_cli.session import open_model
from editkit_store.errors import InvalidRequest
from editkit_store.records import Added, Contradiction, EditRequest, MethodName

if TYPE_CHECKING:
    from editkit import Kit

__all__ = ["TOGETHER", "add_file"]

TOGETHER = 8
"""Edits learned together, and appended together: each an operation, all durable or none."""


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
    """Adds the edits of a JSON lines file and prints what became of each.

    Args:
        settings: The shared options.
        source: Path of the file; ``-`` for standard input.
        method: For lines that name none.
        reason: Why, for the history. It does not enter the edits, so that a run with another one
            still skips what is done.
        author: Who, likewise.
        preset: Constants of the methods.
        scope: How far those reach whose lines do not say it.
        on_failure: What becomes of an edit that does not verify.
        on_conflict: What becomes of an edit that contradicts an active one.

    Returns:
        How many did not verify.

    Raises:
        MalformedLine: A line holds no edit, or one that cannot be made; the lines before it are
            done.
    """
    from editkit.editing.files import read_requests

    run = _Run(settings, on_failure, on_conflict)
    try:
        with keeping(run.kept):
            lines = read_requests(source, method=method, scope=scope)
            first = next(lines, None)  # a bad first line shows before a model is loaded
            if first is None:
                settings.out.warning(f"there are no edits in '{source}'")
            else:
                how = settings.provenance(author=author, reason=reason)
                with (
                    open_model(settings, preset=preset, provenance=how) as kit,
                    run.bar(source),
                ):
                    run.through(kit, itertools.chain([first], lines), source)
    finally:
        run.report()
    return run.failed


class _Run:
    """What became of the lines so far."""

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
        """Returns what an interrupted run leaves behind, and how to go on."""
        done = len(self._results) - self.failed - self._kept
        edits = f"{done} new edit{'' if done == 1 else 's'}"
        return f"{edits} in the history; the same command goes on from here: {self._again}"

    @contextlib.contextmanager
    def bar(self, source: str) -> Iterator[None]:
        """Shows the progress through the lines."""
        from editkit.editing.files import count_edits

        self._progress.start("Adding edits", count_edits(source), "edits")
        try:
            yield
        finally:
            self._progress.done()

    def through(self, kit: Kit, lines: Iterable[tuple[int, EditRequest]], source: str) -> None:
        """Adds the lines, a few at a time; those before a bad one are done when it is met."""
        seen: Counter[EditRequest] = Counter()
        waiting: list[EditRequest] = []
        try:
            for number, request in lines:
                # The same line may stand in a file twice, with another answer in between.
                seen[request] += 1
                if kit.count_requests(request) >= seen[request]:
                    self.skip()
                    continue
                with _blamed_on(source, number):
                    kit.check(request)
                waiting.append(request)
                if len(waiting) == TOGETHER:
                    batch, waiting = waiting, []
                    self._add(kit, batch)
        except MalformedLine:
            self._add(kit, waiting)
            raise
        self._add(kit, waiting)

    def _add(self, kit: Kit, batch: list[EditRequest]) -> None:
        kit.add_many(
            batch,
            on_failure=self._on_failure,
            on_conflict=self._on_conflict,
            told=self.take,
            warned=self.warn,
        )

    def warn(self, request: EditRequest, found: tuple[Contradiction, ...]) -> None:
        """Says what a line contradicts, before it is learned."""
        for one in found:
            self._out.warning(
                f"'{request.prompt}' → '{request.target}' contradicts edit {one.edit_id}, with the "
                f"target '{one.target}'"
            )

    def skip(self) -> None:
        """Counts a line that is in the history already."""
        self._skipped += 1
        self._progress.advance(1)

    def take(self, added: Added) -> None:
        """Counts a finished edit; prints it, unless a JSON list is to hold them all."""
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
        kept = f", {self._kept} left out for an edit that was to be kept" if self._kept else ""
        self._out.status(
            f"{done} verified, {self.failed} not verified, "
            f"{self._skipped} skipped (in the history already){kept}"
        )


def _line(added: Added) -> str:
    from editkit_cli.tables import clean, short_digest

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
    """Adds the line's number to what is wrong with the edit in it."""
    from editkit.editing.files import HINT, Source

    try:
        yield
    except (InvalidRequest, UnsupportedMethod, UnsupportedModel) as error:
        raise Source(source, error.hint or HINT).malformed(number, str(error)) from error
