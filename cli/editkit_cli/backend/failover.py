"""The server or alone, whichever it is by the time that something is asked.

A server may end between the moment it was found and the first question, and one may start on a
store that nobody held a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from editkit_cli.service.client.errors import ServerGone
from editkit_store.errors import EditkitError, StoreLocked

__all__ = ["Either"]


class Either:
    """Has the methods of one of two, and changes over to the other, once, where that one cannot.

    What was read, and a change that was not sent, is then asked of the other. A change that was
    sent is not: it may have been made.

    Args:
        first: The server, or what works alone.
        second: Returns the other, or ``None`` where there is none either.
    """

    def __init__(self, first: Any, second: Callable[[], Any]) -> None:
        self._now = first
        self._second: Callable[[], Any] | None = second

    def __getattr__(self, name: str) -> Any:
        if callable(getattr(type(self._now), name, None)):
            return lambda *args, **how: self._tried(lambda: getattr(self._now, name)(*args, **how))
        return self._tried(lambda: getattr(self._now, name))

    def _tried(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except (ServerGone, StoreLocked) as error:
            if self._second is None or _may_be_done(error):
                raise
            second, self._second = self._second, None
            other = second()
            if other is None:
                raise
            self._now = other
        return ask()


def _may_be_done(error: EditkitError) -> bool:
    return isinstance(error, ServerGone) and error.was_sent
