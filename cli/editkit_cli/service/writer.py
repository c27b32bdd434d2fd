"""The queue of changes, and the one thread that makes them.

An accepted change is made even if its client disconnects: no correction is lost to a broken
connection, and the idempotency key lets a client that comes back find its result.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from editkit_cli.service.errors import (
    LOG,
    Failure,
    Refused,
    closing,
    failure_of,
    internal_error,
    too_busy,
)
from editkit_cli.service.events import Events
from editkit_cli.service.limits import Limits
from editkit_cli.service.shares import giving_way, share
from editkit_store.bundle.records import Imported
from editkit_store.errors import EditkitError
from editkit_store.records import (
    Added,
    Adjusted,
    Compacted,
    Provenance,
    Record,
    Replayed,
    ReplayPlan,
    Tagged,
    ViewChanged,
)

if TYPE_CHECKING:
    from editkit import Kit

__all__ = [
    "ChangeProgress",
    "ChangeWriter",
    "OperationKind",
    "OperationResult",
    "OperationStatus",
    "QueuedChange",
    "Work",
    "unknown_operation",
]

_KEPT = 1000
"""Most changes that are remembered, including ended ones."""

_KEPT_BYTES = 8 << 20
"""Most bytes of ended ones, as JSON; the newest is kept whatever its size."""

OperationKind = Literal[
    "add", "adjust", "revert", "rollback", "undo", "redo", "tag", "replay", "import", "compact"
]

OperationResult = (
    Added
    | Adjusted
    | ViewChanged
    | Tagged
    | Replayed
    | ReplayPlan
    | Imported
    | Compacted
    | tuple[Added, ...]
)


class OperationStatus(Record):
    """An operation that clients can follow: a requested change and its outcome."""

    id: str
    kind: OperationKind
    state: Literal["waiting", "running", "done", "failed"]
    time: datetime = Field(description="When it was requested, UTC")
    done: int = Field(default=0, description="Number of edits that are learned")
    total: int = Field(default=1, description="Number of edits to learn")
    result: OperationResult | None = Field(
        default=None, description="With `done`: what the response would have been"
    )
    error: Failure | None = Field(default=None, description="With `failed`: the error")


Work = Callable[["Kit", "ChangeProgress"], OperationResult]
"""Makes a change, in the writer's thread."""


class QueuedChange:
    """A change in the queue.

    Args:
        kind: Kind of the change.
        work: Makes it.
        provenance: Recorded in the log.
        total: Number of edits that it learns.
        caller: Name of the caller's token; ``None`` is the owner.

    Attributes:
        operation: Its state.
        future: Its result.
    """

    def __init__(
        self,
        kind: OperationKind,
        work: Work,
        provenance: Provenance,
        total: int,
        caller: str | None,
    ) -> None:
        self.caller = caller
        self.work = work
        self.provenance = provenance
        self.future: Future[OperationResult] = Future()
        self.future.set_running_or_notify_cancel()  # so that a waiting client cannot cancel it
        self.operation = OperationStatus(
            id="op-" + secrets.token_hex(8), kind=kind, state="waiting", time=datetime.now(UTC),
            total=total,
        )  # fmt: skip

    def become(self, **fields: Any) -> OperationStatus:
        """Replaces the state, by one assignment."""
        self.operation = self.operation.model_copy(update=fields)
        return self.operation


class _EndedChange(NamedTuple):
    """An ended change: its outcome, without the request."""

    operation: OperationStatus
    caller: str | None
    size: int


class ChangeProgress:
    """Progress of a change, published as events."""

    def __init__(self, change: QueuedChange, events: Events) -> None:
        self._change = change
        self._events = events
        self._stages: list[tuple[str, int | None, int]] = []
        self._counts = False  # whether the outermost stage counts edits

    def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
        """Begins a stage; inner stages belong to the method."""
        if not self._stages:
            self._counts = unit == "edits"
            if self._counts and total is not None:
                self._change.become(done=0, total=total)
        self._stages.append((task, total, 0))
        self._tell()

    def advance(self, amount: int = 1) -> None:
        """Advances the innermost stage."""
        if self._stages:
            task, total, done = self._stages.pop()
            self._stages.append((task, total, done + amount))
            if len(self._stages) == 1 and self._counts:
                self._change.become(done=done + amount)
            self._tell()

    def done(self) -> None:
        """Ends the innermost stage."""
        if self._stages:
            self._stages.pop()

    def _tell(self) -> None:
        task, total, done = self._stages[-1]
        operation = self._change.operation.id
        self._events.tell(
            "learning", {"operation": operation, "task": task, "done": done, "total": total}
        )


class ChangeWriter:
    """Makes changes one after the other, in a thread of its own.

    Args:
        kit: The running model; nobody else writes through it.
        limits: How many changes may wait.
        events: Where changes are published.
        counted: Called with every ended change and its duration in seconds.
    """

    def __init__(
        self,
        kit: Kit,
        limits: Limits,
        events: Events,
        counted: Callable[[QueuedChange, float], None],
    ) -> None:
        self._kit = kit
        self._limits = limits
        self._events = events
        self._counted = counted
        self._line: deque[QueuedChange] = deque()
        self._known: OrderedDict[str, QueuedChange | _EndedChange] = OrderedDict()
        self._changed = threading.Condition()
        self._is_open = True
        self._is_cut = False
        self._seconds = 1.0  # of a recent change, on average
        self._thread = threading.Thread(target=self._work, name="editkit-writer", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of changes in the queue."""
        return len(self._line)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, change: QueuedChange) -> None:
        """Queues a change.

        Raises:
            Refused: The queue is full, or the server is closing.
        """
        with self._changed:
            if not self._is_open:
                raise closing()
            most = self._limits.waiting_writes
            own = sum(one.caller == change.caller for one in self._line)
            if len(self._line) >= most or own >= share(most):
                raise too_busy("changes", self._seconds * len(self._line) / 2)
            self._line.append(change)
            self._known[change.operation.id] = change
            self._tell(change.operation)  # here, so that it is published before its beginning
            self._changed.notify()

    def find(self, name: str) -> OperationStatus:
        """Returns the state of a change that is waiting, running or recently ended.

        Raises:
            Refused: It is not known, or not any more.
        """
        with self._changed:
            found = self._known.get(name)
        if found is None:
            raise unknown_operation(name)
        return found.operation

    def all(self) -> list[OperationStatus]:
        """Returns the known changes, newest first."""
        with self._changed:
            return [one.operation for one in reversed(self._known.values())]

    def close(self, grace: float) -> int:
        """Accepts no more changes; makes those that wait, for up to ``grace`` seconds.

        The change that is being made is always finished. Changes that are given up leave no trace
        in the history, and their clients get an error.

        Returns:
            How many were given up.
        """
        deadline = time.monotonic() + grace
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            while self._line and not self._is_cut and time.monotonic() < deadline:
                self._changed.wait(min(0.2, max(0.0, deadline - time.monotonic())))
            left = list(self._line)
            self._line.clear()
            self._changed.notify_all()
        for change in left:
            self._fail(change, closing())
        if self._thread.is_alive():
            self._thread.join()
        return len(left)

    def cut(self) -> None:
        """Gives up the waiting changes at once, if the writer is closing."""
        self._is_cut = True

    def _forget(self, newest: _EndedChange) -> None:
        """Forgets ended changes if there are too many: the oldest of the caller with the most."""
        ended = [one for one in self._known.values() if isinstance(one, _EndedChange)]
        while len(ended) > 1:
            is_large = sum(one.size for one in ended) > _KEPT_BYTES
            if not is_large and len(self._known) <= _KEPT:
                return
            out = giving_way(
                ended, lambda one: one.caller, may=lambda one: one is not newest,
                weigh=(lambda one: one.size) if is_large else (lambda _: 1),
            )  # fmt: skip
            assert out is not None
            ended.remove(out)
            del self._known[out.operation.id]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._line:
                    if not self._is_open:
                        return
                    self._changed.wait()
                change = self._line.popleft()
                self._changed.notify_all()
            start = time.monotonic()
            try:
                self._carry_out(change)
                self._counted(change, time.monotonic() - start)
            except Exception as error:  # changes need this thread, so nothing may end it
                LOG.error("a change failed", exc_info=error)
                if not change.future.done():
                    self._fail(change, internal_error())
            self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - start)
            del change  # it may hold a large request until the next change arrives

    def _carry_out(self, change: QueuedChange) -> None:
        self._tell(change.become(state="running"))
        # The kit records this with its next operation; only this thread writes.
        self._kit.provenance = change.provenance
        before = None
        try:
            before = self._kit.store.history.count()
            result = change.work(self._kit, ChangeProgress(change, self._events))
        except EditkitError as error:
            self._fail(change, error)
        except Exception as error:
            LOG.error("a change failed", exc_info=error)
            self._fail(change, internal_error())
        else:
            self._end(change, state="done", done=change.operation.total, result=result)
            change.future.set_result(result)
        if before is not None:
            self._tell_versions(before)

    def _fail(self, change: QueuedChange, error: EditkitError) -> None:
        self._end(change, state="failed", error=failure_of(error)[1])
        change.future.set_exception(error)

    def _end(self, change: QueuedChange, **fields: Any) -> None:
        operation = change.become(**fields)
        ended = _EndedChange(operation, change.caller, len(operation.model_dump_json()))
        with self._changed:
            self._known[operation.id] = ended
            self._forget(ended)
        self._tell(operation)

    def _tell(self, operation: OperationStatus) -> None:
        self._events.tell("operation", operation.model_dump(mode="json"))

    def _tell_versions(self, before: int) -> None:
        """Publishes what was appended to the log since it had so many entries."""
        try:
            new = self._kit.store.history.count() - before
            if new > 0:
                full, redacted = (self._kit.log(limit=new, redacted=one) for one in (False, True))
                for entry, other in reversed([*zip(full, redacted, strict=True)]):
                    self._events.tell(
                        "version", entry.model_dump(mode="json"), other.model_dump(mode="json")
                    )
        except EditkitError as error:  # the change itself was published already
            LOG.error("the log could not be read", exc_info=error)


def unknown_operation(name: str) -> Refused:
    """Returns the error for an operation that is not known, or not any more."""
    return Refused(
        f"there is no operation '{name}', or not any more", status=404, code="unknown_operation",
        hint="operations are forgotten when the server restarts, and after many later ones; the "
        "log shows what was done",
    )  # fmt: skip
