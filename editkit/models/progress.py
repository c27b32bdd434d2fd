"""How long work reports that it is getting on; the library itself never prints."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Progress", "SilentProgress", "task", "watched"]

POLL_SECONDS = 0.1


class Progress(Protocol):
    """Receives the stages of a fetch or a conversion, one after the other.

    A stage is one ``start``, any number of ``advance`` and one ``done``; stages do not nest.
    ``advance`` may be called from another thread than ``start``.
    """

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a stage.

        Args:
            task: What is being done, e.g. ``Downloading smollm2-135m``.
            total: Amount of work in `unit`, or ``None`` where nobody knows it beforehand.
            unit: ``bytes``, ``tensors`` or ``steps``.
        """

    def advance(self, amount: int) -> None:
        """Add `amount` units to what is finished."""

    def done(self) -> None:
        """End the stage, finished or not."""


class SilentProgress:
    """The progress of callers that asked for none."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Ignore the stage."""

    def advance(self, amount: int) -> None:
        """Ignore the amount."""

    def done(self) -> None:
        """Ignore the end."""


@contextmanager
def task(
    progress: Progress, name: str, *, total: int | None = None, unit: str = "steps"
) -> Iterator[None]:
    """A stage that ends however its body ends."""
    progress.start(name, total, unit)
    try:
        yield
    finally:
        progress.done()


@contextmanager
def watched(
    progress: Progress, name: str, *, total: int, measure: Callable[[], int]
) -> Iterator[None]:
    """A stage in bytes whose amount is read off the disk from time to time.

    Asking the disk works with every version of pip and huggingface_hub; their own progress
    interfaces change from release to release, or (pip) do not exist.

    Args:
        progress: Who is told.
        name: Name of the stage.
        total: Bytes expected; never more than this is reported.
        measure: Gives the bytes that have arrived since the beginning.
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
        # Only a body that succeeded is complete; on an error the bar stays where it was.
        if seen < total:
            progress.advance(total - seen)
