"""What happens on the running model, told to whoever listens.

Events are kept once, for all: a listener has a place among them, and moves on from it. So what
slow listeners are behind takes no memory of its own, and one is behind too far when what comes next
for it is not kept any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from editkit_cli.service.errors import too_busy
from editkit_cli.service.shares import giving_way, share

__all__ = ["Event", "EventKind", "Events", "Listener"]

_KEPT = 1000
"""Events that are kept, for listeners who are behind or were away."""

_KEPT_BYTES = 8 << 20
"""Bytes of them; the newest is kept however large it is."""

EventKind = Literal["operation", "learning", "version"]


@dataclass(frozen=True)
class Event:
    """Something that happened.

    `operation`: what was asked for changed its state; `data` is the operation, as
    `/v1/operations/{id}` gives it. `learning`: progress; `data` has `operation`, `task`, `done` and
    `total`. `version`: there is a new version; `data` is its entry of the log.

    Attributes:
        id: Counts from 1 since the server began.
        event: What kind of thing.
        data: What it was, as JSON.
        redacted: Likewise, for whom the machine's user is none of their business.
    """

    id: int
    event: EventKind
    data: bytes
    redacted: bytes


class Events:
    """Hands events from the writer's thread to the listeners of the event loop.

    Args:
        loop: Where listeners run.
        listeners: How many there may be.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listeners: int) -> None:
        self._loop = loop
        self._most = listeners
        self._kept: deque[Event] = deque()
        self._bytes = 0  # of those
        self._count = 0
        self._lock = threading.Lock()
        self._listeners: dict[Listener, None] = {}  # oldest first
        self._is_open = True

    @property
    def newest(self) -> int:
        """Id of the last event; 0 before the first."""
        return self._count

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def tell(
        self, kind: EventKind, data: Mapping[str, Any], redacted: Mapping[str, Any] | None = None
    ) -> None:
        """Tells everybody, from any thread.

        Args:
            kind: What kind of thing.
            data: What it was.
            redacted: What it was, for those who may not know all of it.
        """
        said = to_json(data, inf_nan_mode="null")
        kept = said if redacted is None else to_json(redacted, inf_nan_mode="null")
        with self._lock:
            self._count += 1
            self._kept.append(Event(self._count, kind, said, kept))
            self._bytes += len(said)
            while len(self._kept) > 1 and (len(self._kept) > _KEPT or self._bytes > _KEPT_BYTES):
                self._bytes -= len(self._kept.popleft().data)
            if self._is_open:
                self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Ends every listener's stream; called in the event loop."""
        with self._lock:
            self._is_open = False
        for listener in self._listeners:
            listener.end()

    def listen(self, caller: str | None, after: int | None = None) -> Listener:
        """Takes one more listener, who is to ``leave`` in the end; called in the event loop.

        Args:
            caller: Whose it is: the name of a token, ``None`` for the owner.
            after: Begin with the events after this one that are still known; by default with the
                next.

        Raises:
            Refused: Too many listen already, and none of them would give way fairly.
        """
        self._make_room(caller)
        with self._lock:
            last = self._count
            if after is not None and self._kept:
                last = min(max(after, self._kept[0].id - 1), last)
        listener = Listener(self, caller, last)
        self._listeners[listener] = None
        if not self._is_open:
            listener.end()
        return listener

    def leave(self, listener: Listener) -> None:
        """Makes room for somebody else; a second call does nothing."""
        self._listeners.pop(listener, None)

    def after(self, last: int) -> Event | None:
        """Returns the event behind another one, or the first that is kept; ``None``: none yet."""
        with self._lock:
            if last >= self._count:
                return None
            return self._kept[max(0, last + 1 - self._kept[0].id)]

    def _make_room(self, caller: str | None) -> None:
        own = [one for one in self._listeners if one.caller == caller]
        crowd = list(self._listeners) if len(self._listeners) >= self._most else []
        if len(own) >= share(self._most):
            crowd = own
        out = giving_way(crowd, lambda one: one.caller)
        if out is None:
            return
        if out.caller != caller:
            theirs = sum(one.caller == out.caller for one in crowd)
            if theirs <= len(own) + 1:  # they would have no more than we then
                out = own[0] if own else None
        if out is None:
            raise too_busy("listeners", 5)
        self.leave(out)
        out.end()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.wake()


class Listener:
    """Somebody who listens, from the moment that there was room for one.

    Args:
        events: What happens.
        caller: Whose it is.
        last: Id of the event that it has heard last.
    """

    def __init__(self, events: Events, caller: str | None, last: int) -> None:
        self._events = events
        self.caller = caller
        self._last = last
        self._end: int | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something new."""
        self._woken.set()

    def end(self) -> None:
        """Ends the stream, behind what has happened until now."""
        self._end = self._events.newest
        self._woken.set()

    def leave(self) -> None:
        """Makes room for somebody else."""
        self._events.leave(self)

    async def follow(self, *, pause: float) -> AsyncIterator[Event | None]:
        """Yields events as they happen, and ``None`` where nothing did for a while.

        Args:
            pause: Seconds of silence.
        """
        while self._end is None or self._last < self._end:
            self._woken.clear()
            found = self._events.after(self._last)
            if found is not None:
                if found.id != self._last + 1:
                    return  # too far behind: what came in between is not known any more
                self._last = found.id
                yield found
            else:
                try:
                    await asyncio.wait_for(self._woken.wait(), pause)
                except TimeoutError:
                    yield None
