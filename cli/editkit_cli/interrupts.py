"""Ctrl-C: recognising it, and saying what an interrupted command leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["CarriedOn", "is_interrupt", "keeping"]


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
