"""The web page: its files, and the keys by which a link opens it signed in.

*The link.* `editkit serve` shows one on the owner's terminal: ``http://127.0.0.1:8377/#key=...``.
What follows ``#`` is never sent to a server, so it is in nobody's log of requests; the page takes
it out of the address bar and exchanges it for a session, whose token it keeps for its tab only.
That token itself is not in the link: terminals are recorded and pasted from, and browsers write
addresses into their histories before a page can change them. A key is worth nothing once it was
used, or a quarter of an hour later, and like a session it is taken from loopback only.

*The files.* A few small ones, held in memory. They are the same for everybody and need no token;
what they show needs one. There are no cookies, so no other site can make a browser act for anybody.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from importlib.resources import files
from typing import NamedTuple

__all__ = ["FILES", "PATHS", "File", "PageKeys"]

SECONDS = 900.0
"""How long a key is good for."""

_KEPT = 32
"""Keys that may wait to be used; the oldest gives way."""

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
        etag: Names the content: a browser that has it need not load it again.
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
    """Keys that open the page, each of them once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[str, float] = {}  # of a key's digest, on ``time.monotonic``

    def link(self) -> str:
        """Returns what follows the server's address in a link, with a new key."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._ends[_digest(key)] = time.monotonic() + SECONDS
            while len(self._ends) > _KEPT:
                del self._ends[next(iter(self._ends))]
        return f"/#key={key}"

    def take(self, key: str) -> bool:
        """Returns whether a key opens the page; it does so once."""
        # Looked up by its digest, so that the time a lookup takes tells nothing of the keys.
        with self._lock:
            return time.monotonic() < self._ends.pop(_digest(key), 0.0)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
