"""The web page: its files, and the keys of links that open it signed in.

*The link.* `editkit serve` prints one on the owner's terminal: ``http://127.0.0.1:8377/#key=...``.
Browsers never send what follows ``#``, so no log of requests holds it. The page removes it from the
address bar and exchanges it for a session, whose token it keeps for its tab only. The link does not
contain that token, because terminals are recorded and copied from, and browsers write addresses to
their history before a page can change them. A key is valid once, for a quarter of an hour, and like
a session only from loopback.

*The files.* A few small ones, kept in memory. They are the same for everybody and need no token;
the data that they show needs one. There are no cookies that another site could make a browser use.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

__all__ = ["FILES", "PATHS", "File", "PageKeys"]

SECONDS = 900.0
"""Seconds that a key is valid."""

_KEPT = 32
"""Most unused keys; the oldest gives way."""

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class File(NamedTuple):
    """One file of the page.

    Attributes:
        content: Its bytes.
        kind: Its media type.
        etag: Identifies the content, so that a browser that has it need not load it again.
    """

    content: bytes
    kind: str
    etag: str


def _files() -> dict[str, File]:
    found = {}
    for entry in files("editkit_cli.http").joinpath("web").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            name = "/" if entry.name == "index.html" else f"/web/{entry.name}"
            found[name] = File(content, kind, etag)
    return found


FILES = _files()
"""The page's files by their paths."""

PATHS = frozenset(FILES)
"""Paths that need no token."""


class PageKeys:
    """Keys that open the page, each of them once.

    Args:
        clock: Returns a time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}  # of a key's digest

    def link(self) -> str:
        """Returns the path of a link with a new key."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._ends[_digest(key)] = self._clock() + SECONDS
            while len(self._ends) > _KEPT:
                del self._ends[next(iter(self._ends))]
        return f"/#key={key}"

    def take(self, key: str) -> bool:
        """Returns whether a key is valid, and uses it up."""
        # Looked up by its digest, so that the duration reveals nothing about the keys.
        with self._lock:
            return self._clock() < self._ends.pop(_digest(key), 0.0)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
