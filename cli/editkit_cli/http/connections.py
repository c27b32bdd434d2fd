"""Connections: how long one may keep the server waiting, how many there are, and who gives way.

*Time.* A client has so long for the head of a request (from its connection on, or from the answer
before) and so long for the body, and an answer of which nothing is taken for so long ends. How long
an answer itself takes is nothing to these limits: learning takes minutes, and streams have no end.

*Room.* What is counted are requests under way, from when the guard has found out whose they are
until the answer has been taken. Nobody gets more than half of the places, neither a token nor an
address, and some of them are kept for this machine. Connections without such a request are silent,
or ask what needs no token. Of them there are as many as fit: a new one is always taken, and the one
that has been idle longest, of the address with the most connections, is dropped. So strangers can
only crowd out each other, and `/healthz` answers however busy the rest is.
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
"""Connections beyond those whose requests are under way. Several times what is taken in one go, so
that a crowd that knocks all the time leaves each of them the moment that it takes to be read."""

_AT_ONCE = 32
"""Connections that are taken in one go of the event loop; so many may be open beyond the bound."""

_LOCAL = "loopback"


class _Place(NamedTuple):
    """What a request under way takes up.

    Attributes:
        peer: Address that it comes from.
        caller: Name of its token; ``None`` of the owner.
    """

    peer: str
    caller: str | None


class ConnectionLimiter:
    """Who is connected, and whose requests are under way. Used in the event loop only.

    Args:
        limits: How many, and how long.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[Connection, None] = {}  # the one that has been as it is longest first
        self._places: Counter[_Place] = Counter()
        self._is_closing = False

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._open)

    def come(self, new: Connection) -> None:
        """Takes a new connection, for which another one may have to go."""
        self._open[new] = None
        if self._is_closing:
            new.drop()
        elif len(self._open) > self.limits.connections + _SPARE:
            out = giving_way(
                self._open, lambda one: one.peer, may=lambda one: one.is_idle and one is not new
            )
            (out or new).drop()

    def move(self, known: Connection) -> None:
        """Notes that something has come of a connection just now."""
        if known in self._open:
            del self._open[known]
            self._open[known] = None

    def go(self, known: Connection) -> None:
        """Notes that a connection has ended, or will in a moment."""
        self._open.pop(known, None)

    def enter(self, place: _Place) -> None:
        """Lets a request in, which is to ``leave`` in the end.

        Raises:
            Refused: There are too many, of all or of its like.
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
        """Gives a request's place free."""
        self._places[place] -= 1
        self._places += Counter()  # forgets those that have none any more

    def close(self) -> None:
        """Takes nobody any more."""
        self._is_closing = True

    def _check(self, counts: Callable[[_Place], bool], most: int, which: str) -> None:
        if sum(number for one, number in self._places.items() if counts(one)) >= most:
            raise too_many(which)


class ConnectionConfig(uvicorn.Config):
    """uvicorn's settings, with the door that its connections come through.

    Args:
        app: The application.
        door: The door.
        **more: Of uvicorn.
    """

    def __init__(self, app: Any, door: ConnectionLimiter, **more: Any) -> None:
        # A websocket would take its connection out of our hands; there are none here.
        super().__init__(app, http=Connection, ws="none", backlog=_AT_ONCE, **more)
        self.door = door


class Connection(H11Protocol):
    """One connection: uvicorn's, within the limits of a door.

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
        self._door = config.door
        self._limits = config.door.limits
        self._answers, self.app = self.app, self._serve
        self._requests = 0  # under way
        self._at: object = None
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.peer = ""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if it is dropped: no request of somebody known is under way."""
        return not self._requests

    def connection_made(  # type: ignore[override]  # as uvicorn's: it is always this kind
        self, transport: asyncio.Transport
    ) -> None:
        """Comes in."""
        super().connection_made(transport)
        # All that the network has not taken counts as waiting, not only what is beyond 64 KiB.
        transport.set_write_buffer_limits(high=0)
        self.peer = _peer(self.client)
        self._door.come(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Goes."""
        self._door.go(self)
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Looks at what has come, and how long what is missing may take."""
        super().handle_events()
        self._watch()

    def pause_writing(self) -> None:
        """Notes that the client does not keep up with its answer."""
        super().pause_writing()
        self._wait_for_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Notes that it does."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP."""
        self._refuse(
            Refused("this is no request of HTTP/1.1, or its head is too large", code="not_http")
        )

    def shutdown(self) -> None:
        """Ends once the answer that is under way is given; what is left of a request may stay."""
        if self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.SEND_RESPONSE:
            self._refuse(closing())
        elif not self.transport.is_closing():
            super().shutdown()

    def drop(self) -> None:
        """Ends at once; a request that has come in part is answered."""
        self._door.go(self)
        self._refuse(too_many(""))
        self.transport.abort()

    async def _serve(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answers one request; an ASGI application over the one that knows the answers."""
        places: list[_Place] = []

        async def enter(caller: Caller) -> None:
            place = _Place(self.peer, caller.name)
            try:
                self._door.enter(place)
            except Refused:
                # The connection is closed behind the refusal, which a client that is still sending
                # would not get to see.
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
                self._door.leave(place)
                self._requests -= 1

    def _watch(self) -> None:
        at = (self.conn.their_state, self.cycle)
        if at == self._at:
            return
        self._at = at
        self._door.move(self)
        if self._late is not None:
            self._late.cancel()
        seconds = {h11.IDLE: self._limits.head_seconds, h11.SEND_BODY: self._limits.body_seconds}
        if (most := seconds.get(self.conn.their_state)) is not None:
            self._late = self.loop.call_later(most, self._refuse, too_slow())

    def _wait_for_reader(self, left: int) -> None:
        self._stalled = self.loop.call_later(self._limits.stall_seconds, self._check_reader, left)

    def _check_reader(self, left: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now < left:  # slow, but it reads
            self._wait_for_reader(now)
        else:
            self.transport.abort()

    def _refuse(self, error: Refused) -> None:
        """Ends, and tells why if a request has come, at least in part, and has no answer yet.

        A client that waits for nothing would take it for the answer to what it sends next.
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
            with contextlib.suppress(h11.LocalProtocolError):  # it has been answered
                for event in (said, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def _peer(client: tuple[str, int] | None) -> str:
    """Returns what counts as one address: a customer has a whole network of IPv6 ones."""
    if client is None:
        return _LOCAL  # a socket of this machine, or one that has gone already
    address = ipaddress.ip_address(client[0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return _LOCAL
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
