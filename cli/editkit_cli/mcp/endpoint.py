"""``/mcp``: agents over HTTP, behind the same guard as every other path."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from sse_starlette.sse import AppStatus
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from editkit_cli.mcp.server import create_server
from editkit_cli.mcp.sessions import AgentSessions
from editkit_cli.service.guard import CALLER, Caller
from editkit_cli.service.runner import Runner

__all__ = ["AGENTS", "PATH", "ROUTE", "agents"]

PATH = "/mcp"

AGENTS = ("Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")
"""Headers that agents send."""


@contextlib.asynccontextmanager
async def agents(runner: Runner) -> AsyncIterator[ASGIApp]:
    """Yields the application that serves agents, as long as the body runs.

    Args:
        runner: The running model.
    """
    # The library behind the SDK's answers would cut them off at SIGTERM. All of them here have an
    # end, and who waits for a change that is under way is to hear what became of it.
    AppStatus.enable_automatic_graceful_drain = False
    manager = StreamableHTTPSessionManager(
        create_server(runner),
        max_request_body_size=runner.limits.body_bytes,
        session_idle_timeout=runner.limits.session_seconds,
        max_sessions=None,  # they are bounded where it is known whose they are
    )
    async with manager.run():
        yield AgentSessions(manager.handle_request, runner.limits)


class _Endpoint:
    """Passes requests on to the agents' application of the running server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        scope["route"] = ROUTE  # by which it is counted
        if scope["method"] not in ("POST", "DELETE"):
            # GET would open a stream without an end, for what a server says unasked: nothing, here.
            refusal = Response(status_code=405, headers={"Allow": "POST, DELETE"})
            await refusal(scope, receive, send)
            return
        caller = scope[CALLER]
        assert isinstance(caller, Caller)
        name = "owner" if caller.name is None else f"token {caller.name}"
        # AgentSessions are bound to it: with another token they do not exist.
        scope["user"] = AuthenticatedUser(
            AccessToken(token="", client_id=name, scopes=[caller.role])
        )
        await scope["app"].state.agents(scope, receive, send)


ROUTE = Route(PATH, endpoint=_Endpoint(), include_in_schema=False)
