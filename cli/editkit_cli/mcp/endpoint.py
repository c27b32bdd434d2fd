"""``/mcp``: MCP over HTTP, behind the same guard as every other path."""

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

__all__ = ["PATH", "McpEndpoint"]

PATH = "/mcp"


class McpEndpoint:
    """Serves agents at ``/mcp``; implements ``service.mounts.Mount``."""

    headers = ("Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")

    def __init__(self) -> None:
        self.route = Route(PATH, endpoint=self, include_in_schema=False)
        self._app: ASGIApp | None = None

    @contextlib.asynccontextmanager
    async def running(self, runner: Runner) -> AsyncIterator[None]:
        """Handles requests for a running model while the body runs."""
        # The SDK's SSE library would cut responses off at SIGTERM. All of them end by themselves
        # here, and clients that wait for a change should receive its outcome.
        AppStatus.enable_automatic_graceful_drain = False
        manager = StreamableHTTPSessionManager(
            create_server(runner),
            max_request_body_size=runner.limits.body_bytes,
            session_idle_timeout=runner.limits.session_seconds,
            max_sessions=None,  # limited by AgentSessions, which knows whose they are
        )
        async with manager.run():
            self._app = AgentSessions(manager.handle_request, runner.limits)
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        scope["route"] = self.route  # the label of the metrics
        if scope["method"] not in ("POST", "DELETE"):
            # GET would open an endless stream for messages from the server, which sends none.
            refusal = Response(status_code=405, headers={"Allow": "POST, DELETE"})
            await refusal(scope, receive, send)
            return
        caller = scope[CALLER]
        assert isinstance(caller, Caller)
        name = "owner" if caller.name is None else f"token {caller.name}"
        # Sessions are bound to the user: they do not exist for another token.
        scope["user"] = AuthenticatedUser(
            AccessToken(token="", client_id=name, scopes=[caller.role])
        )
        assert self._app is not None
        await self._app(scope, receive, send)
