"""The owner's file beside a store: which server holds it, where, and the token to enter with.

Whoever can read the file (``history.db.server``, mode 0600) owns the store anyway, so it holds a
token for everything, good on loopback only and only as long as that server lives.

A server that was killed leaves its file behind. It is recognised: nothing answers at its port, or
what answers there cannot prove that it knows the token. The proof comes before the token is sent,
so a stranger who took over the port never sees it. It names the address that was connected to, as
the server saw it, and only callers on loopback get one: a stranger at another address of this
machine who passes the question on to the true server passes back what proves the wrong address.
(Against one at the *same* address in another network namespace, who can reach the true server at
its own, there is no such help: keep stores that containers share for one of them.) Process ids
prove nothing: they are used again, and mean something else in another container.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from editkit_store.files import is_private, write_private
from editkit_store.records import Record

__all__ = [
    "TIMEOUT",
    "Owner",
    "find_server",
    "is_proved",
    "new_owner",
    "owner_path",
    "proof",
    "read_owner",
]

TIMEOUT = 2.0
"""Seconds for a server on this machine to say that it is there."""


class Owner(Record):
    """What the owner's file says."""

    pid: int
    host: str = Field(description="Address to connect to")
    port: int
    token: str = Field(repr=False, description="Good for everything, from loopback")
    store: str = Field(description="Full path of the store")
    tool: str = Field(description="Tool and version, e.g. `editkit 0.1.0`")
    started: datetime = Field(description="UTC")

    @property
    def url(self) -> str:
        """Where the server answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def write(self) -> None:
        """Puts the file beside the store.

        Raises:
            StoreUnwritable: It cannot be written.
        """
        write_private(owner_path(Path(self.store)), self.model_dump_json(indent=1) + "\n")

    def remove(self) -> None:
        """Takes the file away, if it is still this server's."""
        path = owner_path(Path(self.store))
        if read_owner(Path(self.store)) == self:
            with contextlib.suppress(OSError):
                os.unlink(path)


def owner_path(store: Path) -> Path:
    """Returns where the owner's file of a store is; one for all names of the store."""
    real = Path(os.path.realpath(store))
    return real.with_name(real.name + ".server")


def new_owner(store: Path, *, host: str, port: int, tool: str) -> Owner:
    """Returns what this process would write, with a new token."""
    return Owner(
        pid=os.getpid(),
        host=host,
        port=port,
        token="ek-owner-" + secrets.token_urlsafe(32),
        store=os.path.realpath(store),
        tool=tool,
        started=datetime.now(UTC),
    )


def read_owner(store: Path) -> Owner | None:
    """Returns what the owner's file says; one that others could have written says nothing."""
    path = owner_path(store)
    if not is_private(path):
        return None
    try:
        return Owner.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def find_server(store: Path, *, timeout: float = TIMEOUT) -> Owner | None:
    """Returns the server that holds a store, if one is there and answers.

    Args:
        store: The store's file.
        timeout: Seconds to wait for its answer.
    """
    owner = read_owner(store)
    if owner is None:
        return None
    connection = http.client.HTTPConnection(owner.host, owner.port, timeout=timeout)
    try:
        return owner if is_proved(connection, owner) else None
    finally:
        connection.close()


def is_proved(connection: http.client.HTTPConnection, owner: Owner) -> bool:
    """Returns whether what is at the other end of a connection knows the token. It is not sent."""
    nonce = secrets.token_hex(16)
    try:
        connection.request("GET", f"/healthz?nonce={nonce}")
        answer = connection.getresponse()
        said = json.loads(answer.read(10_000))
        told = said["proof"] if answer.status == 200 else ""
        expected = proof(owner.token, nonce, owner.host, owner.port)
        return hmac.compare_digest(str(told), expected)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False  # nobody there, or somebody else: either way, not this store's server


def proof(token: str, nonce: str, host: str, port: int) -> str:
    """Returns what only somebody who knows the token can say about a nonce and an address.

    Args:
        token: The owner's.
        nonce: What was asked.
        host: Address that the client connected to.
        port: Its port.
    """
    said = f"editkit server {nonce} at {ipaddress.ip_address(host)} port {port}"
    return hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest()
