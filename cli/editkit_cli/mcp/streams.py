"""Standard input and output, reserved for the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator

__all__ = ["Lines", "claimed"]

_CHUNK = 1 << 16


@contextlib.contextmanager
def claimed() -> Iterator[tuple[int, int]]:
    """Reserves standard input and output for the body.

    Whatever else prints, even a C library, prints to standard error, and whatever else reads gets
    nothing. Enter it before loading anything that may print.

    Yields:
        File descriptors of the input and the output.
    """
    wire = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        yield wire
    finally:
        os.dup2(wire[0], 0)
        os.dup2(wire[1], 1)
        os.close(nothing)
        # The input stays open, because a thread may still be reading it.
        os.close(wire[1])


class Lines:
    """The lines of a file descriptor; created in the event loop that reads them.

    A daemon thread reads them by system calls only: when the process ends it may still be waiting
    for a line, and must hold no lock then.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="editkit-wire", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yields the lines until the input ends."""
        while (line := await self._queue.get()) is not None:
            yield line

    def _read(self) -> None:
        rest: list[bytes] = []
        with contextlib.suppress(OSError, RuntimeError):  # the loop has ended
            while chunk := os.read(self._number, _CHUNK):
                *whole, last = chunk.split(b"\n")
                for line in whole:
                    self._give(b"".join([*rest, line]).decode(errors="replace"))
                    rest = []
                rest.append(last)
        with contextlib.suppress(RuntimeError):
            self._give(None)

    def _give(self, line: str | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, line)
