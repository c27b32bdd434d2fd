"""Sessions of agents at ``/mcp``: a share for each caller; the oldest idle one gives way.

The SDK's manager can limit their number too, but then refuses everybody, and cannot end a session.
So a session is ended here like by its client, with a DELETE request. Only clients of protocol
versions before 2026-07-28 have sessions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editkit_cli.service.limits import Limits
from editkit_cli.service.shares import giving_way, share

__all__ = ["AgentSessions"]


@dataclass(eq=False)
class _AgentSession:
    """An open session.

    Attributes:
        name: Its id.
        user: Who opened it; nobody else can use it.
        requests: Number of running requests.
        used: When the last one ended, by ``time.monotonic``.
    """

    name: str
    user: AuthenticatedUser
    requests: int = 0
    used: float = 0.0

    @property
    def caller(self) -> str:
        """The user's name."""
        return self.user.username


class AgentSessions:
    """Limits the sessions of another application; an ASGI application.

    Args:
        app: The SDK's manager, which ends sessions that are idle for too long.
        limits: How many there may be, and how long they may be idle.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._open: dict[str, _AgentSession] = {}  # the least recently used one first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request of the scope's user."""
        user: AuthenticatedUser = scope["user"]
        session = self._open.get(Headers(scope=scope).get(MCP_SESSION_ID_HEADER, ""))
        if session is not None and session.caller == user.username:
            session.requests += 1
        else:
            session = None  # it does not exist for others

        async def sending(message: Message) -> None:
            nonlocal session
            if message["type"] == "http.response.start":
                name = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if session is None and name is not None and message["status"] < 400:
                    # Only now: a refused request opens no session, and displaces none.
                    session = _AgentSession(name, user, requests=1)
                    await self._add(session)
                elif session is not None and (
                    message["status"] == 404 or scope["method"] == "DELETE"
                ):
                    self._open.pop(session.name, None)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            if session is not None:
                session.requests -= 1
                session.used = time.monotonic()
                if self._open.pop(session.name, None) is not None:
                    self._open[session.name] = session

    async def _add(self, new: _AgentSession) -> None:
        ended = time.monotonic() - self._limits.session_seconds
        held = [one for one in self._open.values() if one.requests or one.used > ended]
        own = [one for one in held if one.caller == new.caller]
        crowd = held if len(held) >= self._limits.sessions else []
        if len(own) >= share(self._limits.sessions):
            crowd = own
        out = giving_way(
            crowd, lambda one: one.caller, may=lambda one: not one.requests
        ) or giving_way(crowd, lambda one: one.caller)
        self._open = {one.name: one for one in (*held, new) if one is not out}
        if out is not None:
            await self._end(out)

    async def _end(self, session: _AgentSession) -> None:
        """Ends a session like its client would."""

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: Message) -> None:
            pass

        scope = {
            "type": "http", "method": "DELETE", "path": "/", "query_string": b"",
            "headers": [(MCP_SESSION_ID_HEADER.encode(), session.name.encode())],
            "user": session.user,
        }  # fmt: skip
        await self._app(scope, receive, send)
