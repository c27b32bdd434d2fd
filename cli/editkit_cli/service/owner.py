"""The owner's file beside a store: which server holds it, where, and the secret to enter with.

Whoever can read the file (``history.db.server``, mode 0600) owns the store anyway, so it holds a
secret for everything, as long as that server lives. It is called a token, but it is never sent:

*The server proves that it knows it.* A server that was killed leaves its file behind. It is
recognised: nothing answers at its port, or what answers there cannot prove that it knows the token.
The proof names the address that was connected to, as the server saw it, and only callers on
loopback get one: a stranger at another address of this machine who passes the question on to the
true server passes back what proves the wrong address. (Against one at the *same* address in
another network namespace, who can reach the true server at its own, there is no such help: keep
stores that containers share for one of them.) Process ids prove nothing: they are used again, and
mean something else in another container.

*Each request of the owner proves it, too* (``sign``). The signature covers method, path and body,
and both ends of the connection as the client sees them. What comes through a proxy has other ends,
so it is not the owner's, whether or not the proxy says that it is one; and nobody on the way learns
a secret that would be good again.
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
import time
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from editkit_store.database.files import is_private, write_private
from editkit_store.database.holding import is_locked
from editkit_store.errors import EditkitError
from editkit_store.records import Record

__all__ = [
    "SCHEME",
    "TIMEOUT",
    "Owner",
    "ServerBusy",
    "find_server",
    "is_signed",
    "new_owner",
    "owner_path",
    "proof",
    "proved",
    "read_owner",
    "sign",
]

SCHEME = "Editkit-Owner"
"""Of the header ``Authorization``."""

Address = tuple[str, int]
"""Host and port."""

TIMEOUT = 2.0
"""Seconds for a server on this machine to say that it is there."""

_PATIENCE = 30.0
"""Seconds to ask again where a server is there, and too busy to say more."""

_AGAIN = 0.2
"""Seconds between two attempts."""


class ServerBusy(EditkitError):
    """Somebody answers where the server of a store should be, and is too busy to prove who it is.

    That is not the same as nobody: the store is in use.
    """

    code = "server_busy"


class Owner(Record):
    """What the owner's file says."""

    pid: int
    host: str = Field(description="Address to connect to")
    port: int
    token: str = Field(repr=False, description="Proves who one is, and is never sent")
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

    Raises:
        ServerBusy: One answers, and is too busy to say more.
    """
    owner = read_owner(store)
    if owner is None:
        return None
    connection = proved(owner, timeout=timeout)
    if connection is None:
        return None
    connection.close()
    return owner


def proved(owner: Owner, *, timeout: float = TIMEOUT) -> http.client.HTTPConnection | None:
    """Returns a new connection to a server that has proved who it is; ``None`` if none does.

    Args:
        owner: What the owner's file says.
        timeout: Seconds to wait for its answer.

    Raises:
        ServerBusy: One answers, and is too busy to say more.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        connection = http.client.HTTPConnection(owner.host, owner.port, timeout=timeout)
        busy: ServerBusy | None = None
        try:
            connection.connect()
            connection.auto_open = 0  # it must not connect again by itself: that proves nothing
            if _is_proved(connection, owner) and connection.sock is not None:
                return connection
        except TimeoutError as error:
            # Somebody is there. Whoever does not hold the store either is no server of it.
            if is_locked(Path(owner.store)):
                busy = _busy(owner)
                busy.__cause__ = error
        except OSError:
            pass
        except ServerBusy as error:
            busy = error
        connection.close()
        if busy is None:
            return None
        if time.monotonic() + _AGAIN > end:
            raise busy
        time.sleep(_AGAIN)


def _is_proved(connection: http.client.HTTPConnection, owner: Owner) -> bool:
    """Returns whether what is at the other end of a connection knows the token. It is not sent."""
    nonce = secrets.token_hex(16)
    try:
        connection.request("GET", f"/healthz?nonce={nonce}")
        answer = connection.getresponse()
        data = answer.read(10_000)
        if answer.status in (429, 503):
            raise _busy(owner)
        said = json.loads(data)
        told = said["proof"] if answer.status == 200 else ""
        expected = proof(owner.token, nonce, owner.host, owner.port)
        return hmac.compare_digest(str(told), expected)
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False  # nobody there, or somebody else: either way, not this store's server


def _busy(owner: Owner) -> ServerBusy:
    return ServerBusy(
        f"what answers at {owner.url} is too busy to say whether it holds the store",
        hint="try again in a while",
    )


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


def sign(
    token: str,
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None = None,
) -> str:
    """Returns the header ``Authorization`` of a request of the owner's.

    Args:
        token: The owner's.
        connection: What the request is sent over; connected.
        method: HTTP method.
        target: Path and query, as they are sent.
        body: What is sent.
    """
    content = hashlib.sha256(body or b"").hexdigest()
    ours, theirs = connection.sock.getsockname()[:2], connection.sock.getpeername()[:2]
    return f"{SCHEME} {content}.{_signature(token, method, target, content, ours, theirs)}"


def is_signed(
    token: str, given: str, method: str, target: str, client: Address, server: Address
) -> str | None:
    """Returns the SHA-256 that the body of a request of the owner's must have.

    ``None`` where the owner did not sign it, or not for this connection.

    Args:
        token: The owner's.
        given: What the header has behind its scheme.
        method: HTTP method.
        target: Path and query, as they came.
        client: Where the request comes from.
        server: Where it arrived.
    """
    content, _, signature = given.partition(".")
    expected = _signature(token, method, target, content, client, server)
    return content if hmac.compare_digest(signature.encode(), expected.encode()) else None


def _signature(
    token: str, method: str, target: str, content: str, client: Address, server: Address
) -> str:
    ends = " to ".join(f"{_plain(host)} port {port}" for host, port in (client, server))
    said = f"editkit owner\n{method}\n{target}\n{content}\n{ends}"
    return hmac.new(token.encode(), said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _plain(host: str) -> str:
    """One spelling of an address; of an IPv4 one that came over IPv6 its own."""
    address = ipaddress.ip_address(host)
    return str(getattr(address, "ipv4_mapped", None) or address)
