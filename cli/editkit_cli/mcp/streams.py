"""Standard input and output as a wire that nothing else reads or writes."""

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
    """Takes standard input and output for the body alone.

    Meanwhile what anybody prints, a library in C too, goes to standard error, and whoever reads
    finds nothing. To be entered before anything is loaded that may print.

    Yields:
        Descriptors of the input and of the output.
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
        # The input stays open: a thread may still be waiting for a line of it.
        os.close(wire[1])


class Lines:
    """The lines of a descriptor, as they come; made in the event loop that takes them.

    They are read in a thread that nobody waits for, by system calls alone: at the end of the
    process it may still be waiting for the next one, and must hold no lock then.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="editkit-wire", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yields them, until the input ends."""
        while (line := await self._queue.get()) is not None:
            yield line

    def _read(self) -> None:
        rest: list[bytes] = []
        with contextlib.suppress(OSError, RuntimeError):  # the loop has ended: nobody takes them
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
