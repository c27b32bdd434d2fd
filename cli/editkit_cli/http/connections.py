"""Limits on connections: how long a client may keep the server waiting, and how many there are.

*Time.* There is a limit for the head of a request (since the connection, or the last response), for
its body, and for how long a client may read nothing of a response. How long the server takes to
respond is not limited here: learning takes minutes, and streams have no end.

*Places.* Requests are counted from when the guard knows their caller until the response has been
read. Neither a token nor an address gets more than half of the places, and some are reserved for
this machine. Connections without such a request are idle, or need no token. A new one is always
accepted; if there are too many, the one that has been idle longest is dropped, of the address with
the most connections. So strangers only displace each other, and `/healthz` responds even if the
server is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from editkit_cli.service.errors import Refused, closing, response_of, too_many, too_slow
from editkit_cli.service.guard import ENTER, HEADERS, Caller
from editkit_cli.service.limits import Limits
from editkit_cli.service.shares import giving_way, share

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
    from uvicorn.server import ServerState

__all__ = ["Connection", "ConnectionConfig", "ConnectionLimiter"]

_SPARE = 128
"""Connections beyond those with requests. Several times as many as are accepted at once, so that
each lives long enough to be read while others keep arriving."""

_AT_ONCE = 32
"""Connections that are accepted in one step of the event loop, possibly beyond the limit."""

_LOCAL = "loopback"


class _Place(NamedTuple):
    """The place of a running request.

    Attributes:
        peer: Address that it comes from.
        caller: Name of its token; ``None`` is the owner.
    """

    peer: str
    caller: str | None


class ConnectionLimiter:
    """Tracks connections and running requests. Used in the event loop only.

    Args:
        limits: How many, and how long.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[Connection, None] = {}  # the longest unchanged one first
        self._places: Counter[_Place] = Counter()
        self._is_closing = False

    def __len__(self) -> int:
        """Number of connections."""
        return len(self._open)

    def come(self, new: Connection) -> None:
        """Adds a new connection; another one may be dropped for it."""
        self._open[new] = None
        if self._is_closing:
            new.drop()
        elif len(self._open) > self.limits.connections + _SPARE:
            out = giving_way(
                self._open, lambda one: one.peer, may=lambda one: one.is_idle and one is not new
            )
            (out or new).drop()

    def move(self, known: Connection) -> None:
        """Records that a connection has just changed."""
        if known in self._open:
            del self._open[known]
            self._open[known] = None

    def go(self, known: Connection) -> None:
        """Removes a connection that has ended, or is about to."""
        self._open.pop(known, None)

    def enter(self, place: _Place) -> None:
        """Takes a place for a request, which must ``leave`` in the end.

        Raises:
            Refused: There are too many requests in total, or of its caller or address.
        """
        most = self.limits.connections
        self._check(lambda _: True, most, "")
        self._check(lambda one: one.caller == place.caller, share(most), " with your token")
        if place.peer != _LOCAL:
            reserve = max(1, most // 8)
            self._check(lambda one: one.peer != _LOCAL, most - reserve, " from other machines")
            self._check(lambda one: one.peer == place.peer, share(most), " from your address")
        self._places[place] += 1

    def leave(self, place: _Place) -> None:
        """Frees the place of a request."""
        self._places[place] -= 1
        self._places += Counter()  # drops counts of zero

    def close(self) -> None:
        """Accepts no more connections."""
        self._is_closing = True

    def _check(self, counts: Callable[[_Place], bool], most: int, which: str) -> None:
        if sum(number for one, number in self._places.items() if counts(one)) >= most:
            raise too_many(which)


class ConnectionConfig(uvicorn.Config):
    """uvicorn's configuration, with the limiter of its connections.

    Args:
        app: The application.
        limiter: Limits the connections.
        **more: Options of uvicorn.
    """

    def __init__(self, app: Any, limiter: ConnectionLimiter, **more: Any) -> None:
        # A websocket would take over its connection; there are none here.
        super().__init__(app, http=Connection, ws="none", backlog=_AT_ONCE, **more)
        self.limiter = limiter


class Connection(H11Protocol):
    """uvicorn's connection, within the limits.

    Attributes:
        peer: Where it comes from: an address, an IPv6 network of one customer, or this machine.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limiter = config.limiter
        self._limits = config.limiter.limits
        self._answers, self.app = self.app, self._serve
        self._requests = 0  # under way
        self._at: object = None
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.peer = ""

    @property
    def is_idle(self) -> bool:
        """Whether it can be dropped: it has no running request of a known caller."""
        return not self._requests

    def connection_made(  # type: ignore[override]  # as uvicorn's: it is always this kind
        self, transport: asyncio.Transport
    ) -> None:
        """Registers the connection."""
        super().connection_made(transport)
        # Everything that is not sent counts as waiting, not only what exceeds 64 KiB.
        transport.set_write_buffer_limits(high=0)
        self.peer = _peer(self.client)
        self._limiter.come(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Unregisters the connection."""
        self._limiter.go(self)
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handles what has arrived, and restarts the time limits."""
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        """Starts the time limit for a client that does not read its response."""
        super().pause_writing()
        self._wait_for_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Ends that time limit."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def send_400_response(self, msg: str) -> None:
        """Responds to what is not HTTP."""
        self._refuse(
            Refused("this is no request of HTTP/1.1, or its head is too large", code="not_http")
        )

    def shutdown(self) -> None:
        """Closes after the current response; the rest of a request is not read."""
        if self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.SEND_RESPONSE:
            self._refuse(closing())
        elif not self.transport.is_closing():
            super().shutdown()

    def drop(self) -> None:
        """Closes at once; a partial request gets an error response."""
        self._limiter.go(self)
        self._refuse(too_many(""))
        self.transport.abort()

    async def _serve(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Handles one request; an ASGI application around the real one."""
        places: list[_Place] = []

        async def enter(caller: Caller) -> None:
            place = _Place(self.peer, caller.name)
            try:
                self._limiter.enter(place)
            except Refused:
                # The connection is closed after the refusal, which a client that is still sending
                # would not receive.
                while (await receive()).get("more_body"):
                    pass
                raise
            places.append(place)
            self._requests += 1

        scope[ENTER] = enter  # type: ignore[literal-required]  # ours
        try:
            await self._answers(scope, receive, send)
            await self.flow.drain()
        finally:
            for place in places:
                self._limiter.leave(place)
                self._requests -= 1

    def _watch(self) -> None:
        at = (self.conn.their_state, self.cycle)
        if at == self._at:
            return
        self._at = at
        self._limiter.move(self)
        if self._late is not None:
            self._late.cancel()
        seconds = {h11.IDLE: self._limits.head_seconds, h11.SEND_BODY: self._limits.body_seconds}
        if (most := seconds.get(self.conn.their_state)) is not None:
            self._late = self.loop.call_later(most, self._refuse, too_slow())

    def _wait_for_reader(self, left: int) -> None:
        self._stalled = self.loop.call_later(self._limits.stall_seconds, self._check_reader, left)

    def _check_reader(self, left: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now < left:  # slow, but reading
            self._wait_for_reader(now)
        else:
            self.transport.abort()

    def _refuse(self, error: Refused) -> None:
        """Closes; first sends the error if a request has arrived, at least in part.

        A client that has sent nothing would take it for the response to its next request.
        """
        begun = self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]
        if begun and not self.transport.is_closing():
            response = response_of(error)
            response.headers["connection"] = "close"
            said = h11.Response(
                status_code=response.status_code,
                headers=[*self.server_state.default_headers, *response.raw_headers, *HEADERS],
                reason=STATUS_PHRASES[response.status_code],
            )
            with contextlib.suppress(h11.LocalProtocolError):  # the response was sent already
                for event in (said, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _peer(client: tuple[str, int] | None) -> str:
    """Returns what counts as one address: of IPv6 a network, as one customer has it."""
    if client is None:
        return _LOCAL  # a local socket, or one that has closed already
    address = ipaddress.ip_address(client[0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return _LOCAL
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
