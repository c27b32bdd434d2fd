"""Checks every HTTP request before a route or an endpoint sees it.

It refuses:

*Wrong hosts.* A page on another site can make its own name resolve to 127.0.0.1 (DNS rebinding) and
is then of the same origin; but its requests carry that name in ``Host``.

*Wrong origins.* A page on another site can send requests here (CSRF); browsers name it in
``Origin`` and ``Sec-Fetch-Site``. There are no cookies, and CORS headers only for allowed origins.

*Strangers.* Every path needs a bearer token, except public ones. The owner signs each request (see
``owner``) or has a session. Both are valid from loopback only, and not through a proxy there, whose
clients may be anywhere. A signature is not valid through any proxy. A session is refused if a
header reveals a proxy; one that adds no header cannot be distinguished from a local program.

*Bad bodies.* Larger than the limit, or not JSON.

*Crowds.* More concurrent requests than there are places for; see ``http.connections``.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editkit_cli.service.errors import Refused, response_of
from editkit_cli.service.owner import SCHEME, is_signed
from editkit_cli.service.sessions import OwnerSessions
from editkit_cli.service.tokens import ROLES, Role, TokenFile
from editkit_store.errors import EditkitError

__all__ = [
    "CALLER",
    "ENTER",
    "HEADERS",
    "NEAR",
    "STILL_IN",
    "Caller",
    "Enter",
    "Guard",
    "Locks",
    "StillIn",
]

CALLER = "editkit.caller"
"""Key of the caller in a request's scope."""

NEAR = "editkit.near"
"""Key in a request's scope: whether it comes from a program on this machine."""

STILL_IN = "editkit.still_in"
"""Key in a request's scope: a ``StillIn``, which checks whether its token is still valid."""

StillIn = Callable[[], bool]

ENTER = "editkit.enter"
"""Key in a request's scope: an ``Enter``, which takes a place for it, if places are limited."""

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every response."""

_CONTENT = "editkit.content"
"""Key in a request's scope: the SHA-256 of the body that the owner signed."""

_PROXIED = (
    "akamai-", "cdn-", "cf-", "client-ip", "fastly-", "fly-", "forwarded", "front-end-", "incap-",
    "proxy-", "remote-addr", "tailscale-", "true-client-ip", "via", "x-amz", "x-appengine-",
    "x-arr-", "x-azure-", "x-client-", "x-cluster-", "x-envoy-", "x-forwarded", "x-host",
    "x-nf-", "x-original-", "x-proxy", "x-real-", "x-remote-", "x-scheme", "x-ssl-",
    "x-url-scheme", "x-varnish", "x-vercel-",
)  # fmt: skip
"""Prefixes of headers that proxies add."""

_BODIES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_STRANGERS_BYTES = 4096
"""Largest body of a request without a token, so that strangers cannot fill the memory."""


@dataclass(frozen=True)
class Caller:
    """Who sends a request.

    Attributes:
        name: Name of the token; ``None`` is the owner.
        role: What the caller may do.
    """

    name: str | None
    role: Role

    @property
    def needs_redaction(self) -> bool:
        """Whether the caller must not see the machine's user, host and command lines."""
        return not self.may("admin")

    def may(self, role: Role) -> bool:
        """Returns whether the caller may do what a role may."""
        return ROLES.index(self.role) >= ROLES.index(role)


Enter = Callable[[Caller], Awaitable[None]]


@dataclass(frozen=True)
class Locks:
    """What a guard checks requests against.

    Attributes:
        owner: The owner's token.
        tokens: Tokens of other callers.
        sessions: Sessions of the owner.
        hosts: Allowed names in ``Host``, lower case.
        origins: Origins that may send requests, besides the server's own.
        body_bytes: Largest body.
        public: Paths that need no token.
    """

    owner: str
    tokens: TokenFile
    sessions: OwnerSessions = field(default_factory=OwnerSessions)
    hosts: Collection[str] = ("127.0.0.1", "localhost", "::1")
    origins: Collection[str] = ()
    body_bytes: int = 1 << 20
    public: Collection[str] = frozenset({"/healthz", "/v1/session"})


class Guard:
    """Refuses requests that must not reach the application; an ASGI middleware."""

    def __init__(self, app: ASGIApp, locks: Locks) -> None:
        self._app = app
        self._locks = locks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            headers = _headers(scope)
            self._check_host(headers)
            self._check_origin(scope, headers)
            scope[NEAR] = _is_near(scope, headers)
            if scope["path"] not in self._locks.public:
                scope[CALLER] = caller = self._caller(scope, headers)
                scope[STILL_IN] = lambda: self._is_still(caller, scope, headers)
            most = min(self._locks.body_bytes, _STRANGERS_BYTES)
            if CALLER in scope:
                most = self._locks.body_bytes
            self._check_body(scope, headers, most)
            if CALLER in scope and ENTER in scope:
                await scope[ENTER](scope[CALLER])
        except EditkitError as error:
            await response_of(error)(scope, receive, sending)
            return
        await self._app(scope, self._checked(scope, receive, most), sending)

    def _check_host(self, headers: dict[str, list[str]]) -> None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or _hostname(hosts[0]) not in self._locks.hosts:
            shown = hosts[0][:100] if hosts else ""
            raise Refused(
                f"this server does not answer to the name '{shown}'", status=403,
                code="wrong_host", hint="name it with `editkit serve --allow-host NAME`",
            )  # fmt: skip

    def _check_origin(self, scope: Scope, headers: dict[str, list[str]]) -> None:
        origins = headers.get("origin", [])
        own = f"{scope['scheme']}://{headers['host'][0]}".lower()
        if all(origin.lower() in (own, *self._locks.origins) for origin in origins):
            site = headers.get("sec-fetch-site", ["none"])[0]
            mode = headers.get("sec-fetch-mode", [""])[0]
            # A link on another site may lead here, but another site may not read from here.
            if origins or site in ("none", "same-origin") or _is_visit(scope, mode):
                return
        raise Refused(
            "requests from other sites are refused", status=403, code="wrong_origin",
            hint="let a site in with `editkit serve --allow-origin ORIGIN`",
        )  # fmt: skip

    def _caller(self, scope: Scope, headers: dict[str, list[str]]) -> Caller:
        given = headers.get("authorization", [])
        kind, _, secret = (given[0] if len(given) == 1 else "").partition(" ")
        secret = secret.strip()
        hint = "make one with `editkit token create`"
        if kind.lower() == SCHEME.lower() and self._is_owner(scope, headers, secret):
            return _OWNER
        if kind.lower() == "bearer" and secret:
            if _is_near(scope, headers) and self._locks.sessions.is_open(secret):
                return _OWNER
            if hmac.compare_digest(secret.encode(), self._locks.owner.encode()):
                hint = "the owner's is never sent: `editkit token session` makes one that may be"
            elif (token := self._found(secret)) is not None:
                return token
        raise Refused(
            "this needs a token" if not given else "the token is not valid here", status=401,
            code="invalid_api_key", hint=hint,
            headers={"WWW-Authenticate": 'Bearer realm="editkit"'},
        )  # fmt: skip

    def _is_owner(self, scope: Scope, headers: dict[str, list[str]], given: str) -> bool:
        """Returns whether the owner signed a request, for the connection it arrived on."""
        client, server = scope.get("client"), scope.get("server")
        if not _is_near(scope, headers) or client is None or server is None or server[1] is None:
            return False
        target = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        content = is_signed(
            self._locks.owner, given, scope["method"], target, tuple(client), tuple(server)
        )
        if content is None or (not _has_body(headers) and content != _NOTHING):
            return False
        scope[_CONTENT] = content
        return True

    def _is_still(self, caller: Caller, scope: Scope, headers: dict[str, list[str]]) -> bool:
        """Returns whether the caller of a running request is still valid: tokens get revoked."""
        try:
            return self._caller(scope, headers) == caller
        except Refused:
            return False

    def _found(self, secret: str) -> Caller | None:
        try:
            token = self._locks.tokens.find(secret)
        except (EditkitError, OSError) as error:
            raise Refused(
                "the tokens of this server cannot be read", status=503, code="tokens_unreadable",
                hint="`editkit token list` says why",
            ) from error  # fmt: skip
        return None if token is None else Caller(token.name, token.role)

    def _check_body(self, scope: Scope, headers: dict[str, list[str]], most: int) -> None:
        lengths = headers.get("content-length", ["0"])
        length = int(lengths[0]) if lengths[0].isdecimal() else 0
        if length > most:
            raise _too_large(most)
        has_body = _has_body(headers)
        kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
        if scope["method"] in _BODIES and has_body and kind != "application/json":
            raise Refused(
                "the body must be JSON, with Content-Type: application/json", status=415,
                code="not_json",
            )  # fmt: skip

    def _checked(self, scope: Scope, receive: Receive, most: int) -> Receive:
        """Limits a body of unknown length, and compares the owner's with its signature.

        Raises ``HTTPException``, which FastAPI does not wrap while it reads a body.
        """
        seen, content = 0, hashlib.sha256()

        async def receiving() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] != "http.request":
                return message
            body = message.get("body", b"")
            seen += len(body)
            if seen > most:
                raise HTTPException(413, str(_too_large(most)))
            if _CONTENT in scope:
                content.update(body)
                if not message.get("more_body") and content.hexdigest() != scope[_CONTENT]:
                    raise HTTPException(401, "the body is not the one that was signed")
            return message

        return receiving


_OWNER = Caller(None, "admin")

_NOTHING = hashlib.sha256().hexdigest()
"""SHA-256 of an empty body."""


def _too_large(limit: int) -> Refused:
    return Refused(
        f"the body is larger than {limit} bytes", status=413, code="body_too_large",
        hint="send less at a time",
    )  # fmt: skip


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _has_body(headers: dict[str, list[str]]) -> bool:
    return headers.get("content-length", ["0"])[0] != "0" or "transfer-encoding" in headers


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_visit(scope: Scope, mode: str) -> bool:
    return scope["method"] == "GET" and mode == "navigate"


def _is_near(scope: Scope, headers: Collection[str]) -> bool:
    """Returns whether a request comes from a program on this machine, not through a proxy."""
    return _is_loopback(scope) and not any(
        name.replace("_", "-").startswith(_PROXIED) for name in headers
    )


def _is_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
