"""Carrying a change out: in line behind others, with progress for whoever waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from editkit_cli.mcp.tool import Call
from editkit_cli.service.schemas import Body
from editkit_cli.service.writer import Act, Change, Learning, Pending, PendingKind, Result
from editkit_store.records import (
    Added,
    AddPlan,
    Record,
    Replayed,
    ReplayPlan,
    ViewChanged,
    ViewPlan,
)

__all__ = [
    "AddOutcome",
    "Changing",
    "ReplayOutcome",
    "State",
    "ViewOutcome",
    "Waiting",
    "carried_out",
]

State = Literal["done", "planned", "pending"]

_Step = tuple[float, float | None, str]


class Changing(Body):
    """Arguments that all changes have."""

    dry_run: bool = Field(default=False, description="Only say what would happen; change nothing")


class Waiting(Record):
    """A change that was taken; `operation` tells more."""

    id: str
    kind: PendingKind
    state: Literal["waiting", "running", "done", "failed"]
    done: int = Field(description="Edits that are learned")
    total: int = Field(description="Edits to learn")

    @classmethod
    def of(cls, pending: Pending) -> Waiting:
        """Returns where a change stands, without what came of it."""
        return cls(**{name: getattr(pending, name) for name in cls.model_fields})


class _Outcome(Record):
    """What became of a change: the field that `state` names holds it."""

    state: State = Field(
        description="`done`: see `result`. `planned`: a dry run, see `plan`; nothing was changed. "
        "`pending`: it takes longer, follow it by `operation` with the id in `pending`"
    )
    pending: Waiting | None = None


class AddOutcome(_Outcome):
    """What became of `add`."""

    result: Added | None = Field(
        default=None, description="Check `verified`: an edit that did not verify is not active"
    )
    plan: AddPlan | None = None


class ViewOutcome(_Outcome):
    """What became of `revert`, `rollback` or `undo`."""

    result: ViewChanged | None = None
    plan: ViewPlan | None = None


class ReplayOutcome(_Outcome):
    """What became of `replay`."""

    result: Replayed | None = None
    plan: ReplayPlan | None = None


async def carried_out(
    call: Call,
    kind: PendingKind,
    act: Act,
    *,
    wait: bool = True,
    total: int = 1,
    **said: str | None,
) -> dict[str, Any]:
    """Puts a change in line; returns the fields of its outcome.

    Where it takes longer than the time limit, it goes on, and so it does if the client leaves or
    cancels: what was taken is carried out, as over HTTP.

    Args:
        call: Who asks.
        kind: What it is.
        act: Does it, in the writer's thread.
        wait: Wait for what comes of it.
        total: Edits that it learns.
        **said: Fields of its provenance; those that are None are left as they are.

    Raises:
        EditkitError: It failed, or too many wait already.
    """
    runner = call.runner
    command = f"mcp {kind}"
    if call.caller.name is not None:
        command += f" (token '{call.caller.name}')"
    known = {"author": call.caller.name, "agent": call.agent, "command": command, **said}
    provenance = runner.provenance.model_copy(
        update={name: value for name, value in known.items() if value is not None}
    )
    steps: asyncio.Queue[_Step | None] = asyncio.Queue()
    if call.tell is not None:
        loop = asyncio.get_running_loop()

        def hear(step: _Step) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(steps.put_nowait, step)

        act = _heard(act, hear)
    change = Change(kind, act, provenance, total, call.caller.name)
    runner.writer.put(change)
    if not wait:
        return {"state": "pending", "pending": Waiting.of(change.pending)}
    future = asyncio.wrap_future(change.future)
    future.add_done_callback(_forgiven)
    telling = asyncio.ensure_future(_tell(call, steps))
    try:
        done, _ = await asyncio.wait({future}, timeout=runner.limits.seconds)
        steps.put_nowait(None)
        await telling
    finally:
        telling.cancel()
    if not done:
        return {"state": "pending", "pending": Waiting.of(change.pending)}
    return {"state": "done", "result": future.result()}


def _forgiven(future: asyncio.Future[Result]) -> None:
    """Whoever waited may have left; what went wrong is in the operation all the same."""
    if not future.cancelled():
        future.exception()


async def _tell(call: Call, steps: asyncio.Queue[_Step | None]) -> None:
    while (step := await steps.get()) is not None:
        assert call.tell is not None
        await call.tell(*step)


def _heard(act: Act, hear: Callable[[_Step], Any]) -> Act:
    """Returns an act whose progress is told to one more listener."""
    return lambda kit, learning: act(kit, _Heard(learning, hear))


class _Heard(Learning):
    """Progress of a change, told to its events and, of the outermost stage, to a listener."""

    def __init__(self, learning: Learning, hear: Callable[[_Step], Any]) -> None:
        self._learning = learning
        self._hear = hear
        self._depth = 0
        self._outer: tuple[str, int | None, int] = ("", None, 0)

    def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
        """Begins a stage."""
        self._learning.start(task, total, unit)
        self._depth += 1
        if self._depth == 1:
            self._outer = (task, total, 0)
            self._say()

    def advance(self, amount: int = 1) -> None:
        """Moves the innermost stage on."""
        self._learning.advance(amount)
        if self._depth == 1:
            task, total, done = self._outer
            self._outer = (task, total, done + amount)
            self._say()

    def done(self) -> None:
        """Ends the innermost stage."""
        self._learning.done()
        self._depth -= 1

    def _say(self) -> None:
        task, total, done = self._outer
        self._hear((done, total, task))
