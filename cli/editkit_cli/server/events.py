"""What happens on the running model, told to whoever listens."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from editkit_cli.server.errors import too_busy
from editkit_store.records import Record

__all__ = ["Event", "EventKind", "Events", "Listener"]

_KEPT = 256
"""Past events that a listener who was away can still get."""

_BEHIND = 1000
"""Events that a slow listener may be behind before it is let go."""

EventKind = Literal["operation", "learning", "version"]


class Event(Record):
    """Something that happened.

    `operation`: what was asked for changed its state; `data` is the operation, as
    `/v1/operations/{id}` gives it. `learning`: progress; `data` has `operation`, `task`, `done` and
    `total`. `version`: there is a new version; `data` is its entry of the log.
    """

    id: int = Field(description="Counts from 1 since the server began")
    event: EventKind
    data: dict[str, Any]


class Events:
    """Hands events from the writer's thread to the listeners of the event loop.

    Args:
        loop: Where listeners run.
        listeners: How many there may be.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, listeners: int) -> None:
        self._loop = loop
        self._most = listeners
        self._past: deque[Event] = deque(maxlen=_KEPT)
        self._count = 0
        self._lock = threading.Lock()
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._is_open = True

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._queues)

    def tell(self, kind: EventKind, data: dict[str, Any]) -> None:
        """Tells everybody, from any thread."""
        with self._lock:
            self._count += 1
            event = Event(id=self._count, event=kind, data=data)
            self._past.append(event)
            if self._is_open:
                self._loop.call_soon_threadsafe(self._spread, event)

    def close(self) -> None:
        """Ends every listener's stream; called in the event loop."""
        with self._lock:
            self._is_open = False
        for queue in self._queues:
            queue.put_nowait(None)

    def listen(self, after: int | None = None) -> Listener:
        """Takes one more listener, who is to ``leave`` in the end; called in the event loop.

        Args:
            after: Begin with the events after this one that are still known; by default with the
                next.

        Raises:
            Refused: Too many listen already.
        """
        if len(self._queues) >= self._most:
            raise too_busy("listeners", 5)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.add(queue)
        with self._lock:
            past = [] if after is None else [one for one in self._past if one.id > after]
            last = self._count
            if not self._is_open:
                queue.put_nowait(None)
        return Listener(queue, past, last, lambda: self._queues.discard(queue))

    def _spread(self, event: Event) -> None:
        for queue in list(self._queues):
            if queue.qsize() < _BEHIND:
                queue.put_nowait(event)
            else:
                self._queues.discard(queue)
                queue.put_nowait(None)


class Listener:
    """Somebody who listens, from the moment that there was room for one.

    Args:
        queue: What comes; ``None`` at the end.
        past: What comes before that.
        last: Id of the last event that may be among those.
        leave: Makes room for somebody else.
    """

    def __init__(
        self,
        queue: asyncio.Queue[Event | None],
        past: Sequence[Event],
        last: int,
        leave: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._past = past
        self._last = last
        self.leave = leave

    async def follow(self, *, pause: float) -> AsyncIterator[Event | None]:
        """Yields events as they happen, and ``None`` where nothing did for a while.

        Args:
            pause: Seconds of silence.
        """
        for event in self._past:
            yield event
        while True:
            try:
                found = await asyncio.wait_for(self._queue.get(), pause)
            except TimeoutError:
                yield None
                continue
            if found is None:
                return
            if found.id > self._last:  # else it was among the past ones
                yield found
