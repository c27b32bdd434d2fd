"""Running methods over a stream of edits, resumable at any point.

In the output folder::

    run.json             identifies the run; results of other runs are not mixed with it
    base.json            answers of the unedited model
    METHOD/points.jsonl  one line per point: the scores, and the success of each edit so far
    METHOD/cases.jsonl   one line per prompt of the last point
    METHOD/...           what the method learned
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from editkit.evaluation.cases import Case, contradicted
from editkit.evaluation.contestants import Contestant
from editkit.evaluation.judging import Base, Judge
from editkit.evaluation.records import CaseResult, Point
from editkit.models.progress import Progress
from editkit_store.database.outputs import replace_output
from editkit_store.errors import InvalidRequest
from editkit_store.records import Record

__all__ = ["Plan", "Stream", "checkpoints"]


class Plan(Record):
    """The identity of a run: scores are comparable only if these values are equal."""

    tool: str
    fingerprint: str
    data: tuple[str, ...] = Field(description="Digests of the files")
    edits: int
    checkpoints: tuple[int, ...]
    judged: int | None = Field(description="Most cases that are judged at a point; null: all")
    general: str = Field(description="Digest of the general text")
    seed: int
    judge: str | None = Field(default=None, description="What decides; null: the default")


class _Line(Record):
    """A line of a method's points."""

    point: Point
    success: tuple[bool, ...]
    seconds: float


def checkpoints(edits: int) -> tuple[int, ...]:
    """Returns the powers of ten up to a number of edits, and the number itself."""
    found = [10**power for power in range(len(str(edits))) if 10**power < edits]
    return (*found, edits)


class Stream:
    """One stream of cases, for any number of methods.

    Args:
        cases: The edits, in order.
        general: Prompts and continuations of ordinary text.
        plan: The identity of the run.
        folder: Folder of the results.
        progress: Reports the progress.

    Raises:
        InvalidRequest: The folder contains another run, or is not writable.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        general: Sequence[tuple[str, str]],
        plan: Plan,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._cases = cases
        self._general = general
        self._plan = plan
        self._folder = folder
        self._progress = progress
        self._skipped = contradicted(cases)
        self._claim()

    def run(
        self, name: str, make: Callable[[Path], Contestant]
    ) -> tuple[list[Point], dict[str, str]]:
        """Runs a method to the end of the stream, resuming where it stopped.

        Args:
            name: Name of the method.
            make: Creates it in a folder of its own.

        Returns:
            Its points, and a description of its settings.
        """
        place = self._folder / name.replace(":", "-")
        lines = _lines(place)
        settings = place / "settings.json"
        if lines and lines[-1].point.edits == self._plan.edits and settings.exists():
            return [line.point for line in lines], json.loads(settings.read_text("utf-8"))
        contestant = make(place)
        try:
            judge = Judge(self._cases, self._skipped, self._general, self._base(contestant))
            if lines:
                done = lines[-1].point.edits
                contestant.restore([case.request for case in self._cases[:done]])
            for count in self._plan.checkpoints[len(lines) :]:
                lines.append(self._advanced(contestant, judge, lines[-1] if lines else None, count))
            described = contestant.settings()
            replace_output(settings, json.dumps(described, indent=1).encode())
        finally:
            contestant.close()
        return [line.point for line in lines], described

    def cases(self, name: str) -> list[CaseResult]:
        """Returns the result of each prompt at a method's last point."""
        path = self._folder / name.replace(":", "-") / "cases.jsonl"
        return [CaseResult.model_validate_json(line) for line in _read(path)]

    def _advanced(
        self, contestant: Contestant, judge: Judge, last: _Line | None, count: int
    ) -> _Line:
        """Makes the edits up to a point, judges them, and stores the results."""
        success = list(last.success) if last else []
        seconds = last.seconds if last else 0.0
        fresh = [case.request for case in self._cases[len(success) : count]]
        chosen = self._chosen(count)
        work = len(fresh) + judge.asks(chosen)
        self._progress.start(f"{contestant.name}, {count} edits", work, "prompts")
        try:
            for start in range(0, len(fresh), contestant.together):
                part = fresh[start : start + contestant.together]
                started = time.monotonic()
                answers = contestant.edit(part)
                seconds += time.monotonic() - started
                success += [
                    answer == request.target.strip()
                    for answer, request in zip(answers, part, strict=True)
                ]
                self._progress.advance(len(part))
            point, cases = judge.point(
                contestant, chosen, success=success, seconds=seconds, advance=self._progress.advance
            )
        finally:
            self._progress.done()
        contestant.save()
        line = _Line(point=point, success=tuple(success), seconds=seconds)
        _write(contestant.folder / "cases.jsonl", cases)
        # The point is written last, when everything it refers to is stored.
        _write(contestant.folder / "points.jsonl", [*_lines(contestant.folder), line])
        return line

    def _chosen(self, count: int) -> list[int]:
        """Returns the cases to judge after a number of edits, the same for every method."""
        limit = self._plan.judged
        if limit is None or limit >= count:
            return list(range(count))
        return sorted(random.Random(f"{self._plan.seed} {count}").sample(range(count), limit))

    def _base(self, contestant: Contestant) -> Base:
        """Returns the unedited model's answers, computing them if they are not stored."""
        path = self._folder / "base.json"
        try:
            return Base.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            pass
        if contestant.kit.version != "v0":
            raise InvalidRequest(
                f"'{path}' is missing, and the model that would recreate it is edited",
                field="out",
                hint="remove the folder, or name another one",
            )
        probes = {p.prompt for case in self._cases for p in (*case.probes, *case.neighbours)}
        self._progress.start("The unedited model", len(probes), "prompts")
        try:
            found = Judge.base(contestant, self._cases, self._general, self._progress.advance)
        finally:
            self._progress.done()
        replace_output(path, found.model_dump_json().encode())
        return found

    def _claim(self) -> None:
        path = self._folder / "run.json"
        wanted = self._plan.model_dump_json(indent=1)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = path.read_text("utf-8") if path.exists() else None
            if found is None:
                replace_output(path, wanted.encode())
        except OSError as error:
            raise InvalidRequest(
                f"the folder '{self._folder}' cannot be written to: {error.strerror}", field="out"
            ) from error
        if found is not None and found != wanted:
            raise InvalidRequest(
                f"'{self._folder}' holds the results of another evaluation: "
                f"{_difference(found, wanted)}",
                field="out",
                hint="name another folder with --out, or remove this one",
            )


def _difference(found: str, wanted: str) -> str:
    try:
        old, new = json.loads(found), json.loads(wanted)
        names = [name for name in new if old.get(name) != new[name]]
    except (ValueError, AttributeError):
        names = []
    return f"its {', '.join(names)} differ{'s' if len(names) == 1 else ''}" if names else "damaged"


def _lines(place: Path) -> list[_Line]:
    return [_Line.model_validate_json(line) for line in _read(place / "points.jsonl")]


def _read(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        return []


def _write(path: Path, records: Iterable[Record]) -> None:
    lines = "".join(record.model_dump_json() + "\n" for record in records)
    replace_output(path, lines.encode())
