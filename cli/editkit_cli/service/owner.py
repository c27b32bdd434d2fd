"""The owner file beside a store: which server holds it, its address, and the owner's token.

Whoever can read the file (``history.db.server``, mode 0600) owns the store anyway, so the token
allows everything while that server lives. It is never sent:

*The server proves that it knows the token.* A killed server leaves its file behind. That is
recognised, because nothing responds at its port, or what responds cannot prove that it knows the
token. The proof names the address that the client connected to, as the server sees it, and only
clients on loopback get one: a stranger at another address of this machine who relays the question
to the real server gets a proof for the wrong address. (A stranger at the *same* address in another
network namespace, who can reach the real server, is not recognised: do not share stores between
containers.) Process ids prove nothing, because they are reused, and differ between containers.

*Each request of the owner proves it, too* (``sign``). The signature covers method, path and body,
and both ends of the connection as the client sees them. A request through a proxy has other ends,
so it is not accepted as the owner's, whatever the proxy says; and nobody on the way learns a secret
that could be used again.
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
"""Scheme of the header ``Authorization``."""

Address = tuple[str, int]
"""Host and port."""

TIMEOUT = 2.0
"""Seconds for a server on this machine to respond."""

_PATIENCE = 30.0
"""Seconds to retry while a server responds but is busy."""

_AGAIN = 0.2
"""Seconds between two attempts."""


class ServerBusy(EditkitError):
    """The server of a store responds, but is too busy to prove its identity.

    That is not the same as no server: the store is in use.
    """

    code = "server_busy"


class Owner(Record):
    """Content of the owner file."""

    pid: int
    host: str = Field(description="Address to connect to")
    port: int
    token: str = Field(repr=False, description="Proves the owner's identity; never sent")
    store: str = Field(description="Full path of the store")
    tool: str = Field(description="Tool and version, e.g. `editkit 0.1.0`")
    started: datetime = Field(description="UTC")

    @property
    def url(self) -> str:
        """URL of the server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def write(self) -> None:
        """Writes the file beside the store.

        Raises:
            StoreUnwritable: It cannot be written.
        """
        write_private(owner_path(Path(self.store)), self.model_dump_json(indent=1) + "\n")

    def remove(self) -> None:
        """Removes the file, if it is still this server's."""
        path = owner_path(Path(self.store))
        if read_owner(Path(self.store)) == self:
            with contextlib.suppress(OSError):
                os.unlink(path)


def owner_path(store: Path) -> Path:
    """Returns the path of a store's owner file; the same for all links to the store."""
    real = Path(os.path.realpath(store))
    return real.with_name(real.name + ".server")


def new_owner(store: Path, *, host: str, port: int, tool: str) -> Owner:
    """Returns the owner file of this process, with a new token."""
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
    """Returns the owner file; ``None`` if there is none that only this user could have written."""
    path = owner_path(store)
    if not is_private(path):
        return None
    try:
        return Owner.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def find_server(store: Path, *, timeout: float = TIMEOUT) -> Owner | None:
    """Returns the server that holds a store, if one responds.

    Args:
        store: The store's file.
        timeout: Seconds to wait for its response.

    Raises:
        ServerBusy: One responds, but is too busy to prove its identity.
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
    """Returns a new connection to the server, once it has proved its identity; else ``None``.

    Args:
        owner: Content of the owner file.
        timeout: Seconds to wait for its response.

    Raises:
        ServerBusy: One responds, but is too busy to prove its identity.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        connection = http.client.HTTPConnection(owner.host, owner.port, timeout=timeout)
        busy: ServerBusy | None = None
        try:
            connection.connect()
            connection.auto_open = 0  # a reconnection would not be proved
            if _is_proved(connection, owner) and connection.sock is not None:
                return connection
        except TimeoutError as error:
            # Something is there. It is the server only if the store is held, too.
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
    """Returns whether the other end of a connection knows the token, without sending it."""
    nonce = secrets.token_hex(16)
    try:
        connection.request("GET", f"/healthz?nonce={nonce}")
        with connection.getresponse() as answer:
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
        return False  # nobody, or somebody else: not this store's server


def _busy(owner: Owner) -> ServerBusy:
    return ServerBusy(
        f"the server at {owner.url} is too busy to prove that it holds the store",
        hint="try again in a while",
    )


def proof(token: str, nonce: str, host: str, port: int) -> str:
    """Returns the proof that a server knows the token, for a nonce and an address.

    Args:
        token: The owner's.
        nonce: Chosen by the client.
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
    """Returns the header ``Authorization`` of a request of the owner.

    Args:
        token: The owner's.
        connection: The connection for the request; connected.
        method: HTTP method.
        target: Path and query, as they are sent.
        body: Body of the request.
    """
    content = hashlib.sha256(body or b"").hexdigest()
    ours, theirs = connection.sock.getsockname()[:2], connection.sock.getpeername()[:2]
    return f"{SCHEME} {content}.{_signature(token, method, target, content, ours, theirs)}"


def is_signed(
    token: str, given: str, method: str, target: str, client: Address, server: Address
) -> str | None:
    """Returns the SHA-256 that the body of a signed request must have.

    ``None`` if the owner did not sign it, or not for this connection.

    Args:
        token: The owner's.
        given: The header after its scheme.
        method: HTTP method.
        target: Path and query, as they arrived.
        client: Address that the request comes from.
        server: Address that it arrived at.
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
    """Returns the canonical form of an address; IPv4 for an IPv4 address mapped to IPv6."""
    address = ipaddress.ip_address(host)
    return str(getattr(address, "ipv4_mapped", None) or address)
