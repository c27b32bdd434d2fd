"""Changes that tools make: queued behind others, with progress for clients that ask for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from editkit_cli.mcp.tool import Call
from editkit_cli.service.changes import submit
from editkit_cli.service.schemas import Body
from editkit_cli.service.writer import (
    ChangeProgress,
    OperationKind,
    OperationStatus,
    Work,
)
from editkit_store.errors import EditkitError
from editkit_store.records import (
    Added,
    AddPlan,
    Adjusted,
    Record,
    Replayed,
    ReplayPlan,
    ViewChanged,
    ViewPlan,
)

__all__ = [
    "AddOutcome",
    "AdjustOutcome",
    "DryRunFields",
    "OperationSummary",
    "ReplayOutcome",
    "State",
    "ViewOutcome",
    "run_change",
]

State = Literal["done", "planned", "pending"]

_Step = tuple[float, float | None, str]


class DryRunFields(Body):
    """Arguments of every change."""

    dry_run: bool = Field(
        default=False, description="Only report what would happen; change nothing"
    )


class OperationSummary(Record):
    """A change that was accepted; `operation` tells more."""

    id: str
    kind: OperationKind
    state: Literal["waiting", "running", "done", "failed"]
    done: int = Field(description="Edits that are learned")
    total: int = Field(description="Edits to learn")

    @classmethod
    def of(cls, status: OperationStatus) -> OperationSummary:
        """Returns the state of a change without its result."""
        return cls(**{name: getattr(status, name) for name in cls.model_fields})


class _Outcome(Record):
    """Outcome of a change, in the field that belongs to `state`."""

    state: State = Field(
        description="`done`: see `result`. `planned`: a dry run, see `plan`; nothing was changed. "
        "`pending`: it takes longer, follow it by `operation` with the id in `pending`"
    )
    pending: OperationSummary | None = None


class AddOutcome(_Outcome):
    """Outcome of `add`."""

    result: Added | None = Field(
        default=None, description="Check `verified`: an edit that did not verify is not active"
    )
    plan: AddPlan | None = None


class AdjustOutcome(_Outcome):
    """Outcome of `adjust`."""

    result: Adjusted | None = Field(
        default=None, description="Check `verified`: one that did not verify changes nothing"
    )
    plan: Adjusted | None = None


class ViewOutcome(_Outcome):
    """Outcome of `revert`, `rollback` or `undo`."""

    result: ViewChanged | None = None
    plan: ViewPlan | None = None


class ReplayOutcome(_Outcome):
    """Outcome of `replay`."""

    result: Replayed | None = None
    plan: ReplayPlan | None = None


async def run_change(
    call: Call,
    kind: OperationKind,
    work: Work,
    *,
    wait: bool = True,
    total: int = 1,
    **provenance: str | None,
) -> dict[str, Any]:
    """Queues a change; returns the fields of its outcome.

    Like over HTTP, it goes on if it takes longer than the time limit, and if the client disconnects
    or cancels.

    Args:
        call: The call of the tool.
        kind: Kind of the change.
        work: Makes the change, in the writer's thread.
        wait: Whether to wait for the result.
        total: Number of edits to learn.
        **provenance: Fields of its provenance; ``None`` leaves one as it is.

    Raises:
        EditkitError: The change failed, or too many are waiting.
    """
    runner = call.runner
    command = f"mcp {kind}"
    if call.caller.name is not None:
        command += f" (token '{call.caller.name}')"
    known = {"author": call.caller.name, "agent": call.agent, "command": command, **provenance}
    steps: asyncio.Queue[_Step | None] = asyncio.Queue()
    if call.tell is not None:
        loop = asyncio.get_running_loop()

        def report(step: _Step) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(steps.put_nowait, step)

        work = _reporting(work, report)
    telling = asyncio.ensure_future(_tell(call, steps))
    try:
        try:
            result = await submit(
                runner,
                kind,
                work,
                provenance=runner.provenance.model_copy(
                    update={name: value for name, value in known.items() if value is not None}
                ),
                caller=call.caller.name,
                total=total,
                wait=wait,
            )
        finally:
            steps.put_nowait(None)
        if wait:
            await telling
    except EditkitError:
        await telling  # the last progress is sent before the error
        raise
    finally:
        telling.cancel()
    if isinstance(result, OperationStatus):
        return {"state": "pending", "pending": OperationSummary.of(result)}
    return {"state": "done", "result": result}


async def _tell(call: Call, steps: asyncio.Queue[_Step | None]) -> None:
    while (step := await steps.get()) is not None:
        assert call.tell is not None
        await call.tell(*step)


def _reporting(work: Work, report: Callable[[_Step], Any]) -> Work:
    """Returns work whose progress is also passed to a callback."""
    return lambda kit, progress: work(kit, _ForwardedProgress(progress, report))


class _ForwardedProgress(ChangeProgress):
    """Progress of a change; that of its outermost stage is also passed to a callback."""

    def __init__(self, progress: ChangeProgress, report: Callable[[_Step], Any]) -> None:
        self._progress = progress
        self._report = report
        self._depth = 0
        self._outer: tuple[str, int | None, int] = ("", None, 0)

    def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
        """Begins a stage."""
        self._progress.start(task, total, unit)
        self._depth += 1
        if self._depth == 1:
            self._outer = (task, total, 0)
            self._send()

    def advance(self, amount: int = 1) -> None:
        """Moves the innermost stage on."""
        self._progress.advance(amount)
        if self._depth == 1:
            task, total, done = self._outer
            self._outer = (task, total, done + amount)
            self._send()

    def done(self) -> None:
        """Ends the innermost stage."""
        self._progress.done()
        self._depth -= 1

    def _send(self) -> None:
        task, total, done = self._outer
        self._report((done, total, task))
