"""Ctrl-C: recognising it, and saying what an interrupted command leaves behind."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["CarriedOn", "Wish", "is_interrupt", "keeping"]


class CarriedOn(KeyboardInterrupt):
    """Ctrl-C reached a command whose change a server has taken and carries out."""

    def __init__(self) -> None:
        super().__init__("the server carries out what it was asked; `editkit log` shows it then")


def is_interrupt(error: BaseException) -> bool:
    """Returns whether an exception is a Ctrl-C, in whatever guise.

    DuckDB reports one that reaches it in the middle of a query as a ``RuntimeError``.
    """
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, RuntimeError) and "query interrupted" in str(error).lower()
    )


@contextlib.contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Lets an interrupt of the body say what is kept; the error boundary prints it."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error):
            raise
        if isinstance(error, CarriedOn):
            raise KeyboardInterrupt(f"{error}. {kept()}") from None
        raise KeyboardInterrupt(kept()) from None


class Wish:
    """The wish to stop an answer, which somebody may have while it is given.

    Attributes:
        is_asked: Somebody has it.
    """

    def __init__(self) -> None:
        self.is_asked = False

    @contextlib.contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Takes the first Ctrl-C of the body as the wish to stop; a second one interrupts."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        before = signal.getsignal(signal.SIGINT)

        def ask(number: int, frame: Any) -> None:
            if self.is_asked:
                raise KeyboardInterrupt
            self.is_asked = True

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
