"""Ctrl-C: recognising it, and telling the user what an interrupted command leaves behind."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Cancellation", "ServerContinues", "is_interrupt", "keeping"]


class ServerContinues(KeyboardInterrupt):
    """Ctrl-C ended a command whose change a server has accepted and carries out."""

    def __init__(self) -> None:
        super().__init__("the server carries out what it was asked; `editkit log` shows it then")


def is_interrupt(error: BaseException) -> bool:
    """Returns whether an exception was caused by Ctrl-C.

    DuckDB raises a ``RuntimeError`` if one interrupts a query.
    """
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, RuntimeError) and "query interrupted" in str(error).lower()
    )


@contextlib.contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Adds to an interrupt of the body what was kept; the error boundary prints it."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error):
            raise
        if isinstance(error, ServerContinues):
            raise KeyboardInterrupt(f"{error}. {kept()}") from None
        raise KeyboardInterrupt(kept()) from None


class Cancellation:
    """Cooperative cancellation of a running answer.

    Attributes:
        is_requested: Whether the answer should end.
    """

    def __init__(self) -> None:
        self.is_requested = False

    @contextlib.contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Makes the first Ctrl-C in the body request it; a second one interrupts."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread receives signals
            return
        before = signal.getsignal(signal.SIGINT)

        def request(number: int, frame: Any) -> None:
            if self.is_requested:
                raise KeyboardInterrupt
            self.is_requested = True

        signal.signal(signal.SIGINT, request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
