"""Progress reporting for long operations; the library itself never prints."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "SilentProgress", "task", "watched"]

POLL_SECONDS = 0.1


class Progress(Protocol):
    """Receives the stages of an operation, one after the other.

    A stage is one ``start``, any number of ``advance`` and one ``done``; stages do not nest.
    ``advance`` may be called from another thread than ``start``.
    """

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begins a stage.

        Args:
            task: Name of the stage, e.g. ``Downloading smollm2-135m``.
            total: Amount of work in `unit`, or ``None`` if it is not known in advance.
            unit: ``bytes``, ``tensors`` or ``steps``.
        """

    def advance(self, amount: int) -> None:
        """Adds `amount` finished units."""

    def done(self) -> None:
        """Ends the stage, finished or not."""


class SilentProgress:
    """A progress that ignores everything."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Ignores the stage."""

    def advance(self, amount: int) -> None:
        """Ignores the amount."""

    def done(self) -> None:
        """Ignores the end."""


@contextmanager
def task(
    progress: Progress, name: str, *, total: int | None = None, unit: str = "steps"
) -> Iterator[None]:
    """Runs its body as a stage, which always ends."""
    progress.start(name, total, unit)
    try:
        yield
    finally:
        progress.done()


@contextmanager
def watched(
    progress: Progress, name: str, *, total: int, measure: Callable[[], int]
) -> Iterator[None]:
    """Runs its body as a stage in bytes, whose amount is polled from the disk.

    Polling works with every version of pip and huggingface_hub; their own progress interfaces
    change between releases, or (pip) do not exist.

    Args:
        progress: Receives the stage.
        name: Name of the stage.
        total: Expected bytes; at most this many are reported.
        measure: Returns the bytes that have arrived since the start.
    """
    stop = threading.Event()
    seen = 0

    def report() -> None:
        nonlocal seen
        amount = min(measure(), total)
        if amount > seen:
            progress.advance(amount - seen)
            seen = amount

    def poll() -> None:
        while not stop.wait(POLL_SECONDS):
            report()

    with task(progress, name, total=total, unit="bytes"):
        thread = threading.Thread(target=poll, name="editkit-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        # Completes the bar only if the body succeeded.
        if seen < total:
            progress.advance(total - seen)
