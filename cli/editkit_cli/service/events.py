"""Events of the running model, for clients that listen.

Events are stored once for all listeners; each listener has a position among them. So slow listeners
take no memory, and one is too far behind when its next event is not stored any more.
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
"""Most events that are stored, for listeners that are behind or reconnect."""

_KEPT_BYTES = 8 << 20
"""Most bytes of them; the newest is stored whatever its size."""

EventKind = Literal["operation", "learning", "version"]


@dataclass(frozen=True)
class Event:
    """Something that happened.

    `operation`: a requested change has a new state; `data` is the operation, as
    `/v1/operations/{id}` gives it. `learning`: progress; `data` has `operation`, `task`, `done` and
    `total`. `version`: there is a new version; `data` is its entry of the log.

    Attributes:
        id: Counts from 1 since the server started.
        event: Kind of the event.
        data: What happened, as JSON.
        redacted: The same for callers who may not see the machine's user.
    """

    id: int
    event: EventKind
    data: bytes
    redacted: bytes


class Events:
    """Passes events from the writer's thread to the listeners in the event loop.

    Args:
        loop: The event loop of the listeners.
        listeners: Most listeners.
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
        """Number of listeners."""
        return len(self._listeners)

    def tell(
        self, kind: EventKind, data: Mapping[str, Any], redacted: Mapping[str, Any] | None = None
    ) -> None:
        """Publishes an event, from any thread.

        Args:
            kind: Kind of the event.
            data: What happened.
            redacted: The same for callers who may not see all of it.
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
        """Adds a listener, which must ``leave`` in the end; called in the event loop.

        Args:
            caller: Name of the caller's token; ``None`` is the owner.
            after: Begin with the stored events after this one; by default with the next event.

        Raises:
            Refused: There are too many listeners, and none of them would fairly give way.
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
        """Removes a listener; a second call does nothing."""
        self._listeners.pop(listener, None)

    def after(self, last: int) -> Event | None:
        """Returns the event after another one, or the oldest stored one; ``None`` if none yet."""
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
            if theirs <= len(own) + 1:  # otherwise they would be left with fewer than this caller
                out = own[0] if own else None
        if out is None:
            raise too_busy("listeners", 5)
        self.leave(out)
        out.end()

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.wake()


class Listener:
    """One client that listens.

    Args:
        events: The events.
        caller: Name of the caller's token; ``None`` is the owner.
        last: Id of the last event that it has received.
    """

    def __init__(self, events: Events, caller: str | None, last: int) -> None:
        self._events = events
        self.caller = caller
        self._last = last
        self._end: int | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Signals that there is a new event."""
        self._woken.set()

    def end(self) -> None:
        """Ends the stream after the events that happened until now."""
        self._end = self._events.newest
        self._woken.set()

    def leave(self) -> None:
        """Stops listening."""
        self._events.leave(self)

    async def follow(self, *, pause: float) -> AsyncIterator[Event | None]:
        """Yields events as they happen, and ``None`` after some silence.

        Args:
            pause: Seconds of silence.
        """
        while self._end is None or self._last < self._end:
            self._woken.clear()
            found = self._events.after(self._last)
            if found is not None:
                if found.id != self._last + 1:
                    return  # too far behind: the events in between are not stored any more
                self._last = found.id
                yield found
            else:
                try:
                    await asyncio.wait_for(self._woken.wait(), pause)
                except TimeoutError:
                    yield None
