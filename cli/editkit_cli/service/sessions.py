"""Sessions of the owner: bearer tokens in the server's memory, for programs that cannot sign.

The owner's own token is never sent (see ``owner``). A browser or a generic client, which can only
send bearer tokens, gets a session in exchange for the key of a link or for a signed request. A
session is valid on this machine until the server stops or it has not been used for a while.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["OwnerSessions"]

_IDLE = 12 * 3600.0
"""Seconds without a request after which a session ends."""

_KEPT = 64
"""Most sessions; the least recently used one gives way."""


class OwnerSessions:
    """The sessions of one server.

    Args:
        clock: Returns a time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._used: OrderedDict[str, float] = OrderedDict()  # digest: when

    def begin(self) -> str:
        """Returns the token of a new session."""
        token = "ek-session-" + secrets.token_urlsafe(32)
        with self._lock:
            self._used[_digest(token)] = self._clock()
            while len(self._used) > _KEPT:
                self._used.popitem(last=False)
        return token

    def is_open(self, token: str) -> bool:
        """Returns whether a token belongs to a session; this counts as using it."""
        # Looked up by its digest, so that the duration reveals nothing about the tokens.
        digest, now = _digest(token), self._clock()
        with self._lock:
            used = self._used.get(digest)
            if used is None:
                return False
            if now - used > _IDLE:
                del self._used[digest]
                return False
            self._used[digest] = now
            self._used.move_to_end(digest)
            return True


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
