"""``editkit mcp`` beside a server: it holds the store, so its tools are passed on to the agent.

Each call finds the server anew and is one request to its ``/mcp``: a server that was started again
meanwhile, with another port and another owner's token, is found like the first. The library that
sends it cannot sign it, so it goes with a session of the owner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client
from mcp.server import ServerRequestContext
from mcp.types.version import LATEST_MODERN_VERSION

from editkit_cli.mcp.endpoint import PATH
from editkit_cli.mcp.errors import failed
from editkit_cli.mcp.server import serving
from editkit_cli.mcp.stdio import converse
from editkit_cli.service.client.sign_in import new_session
from editkit_cli.service.errors import Refused
from editkit_cli.service.owner import Owner, find_server
from editkit_store.errors import EditkitError

__all__ = ["relay"]

_HOUR = 3600.0
"""Seconds that a session is used for; the server would end one that nobody has used for long."""

_TIMEOUT = httpx2.Timeout(30.0, read=None)
"""Seconds. The server has limits of its own, and says so when they are passed."""


def relay(store: Path, wire: tuple[int, int]) -> None:
    """Passes the tools of the server that holds a store on, until the input ends or a signal.

    Args:
        store: The store's file.
        wire: Descriptors of the input and of the output.
    """
    kept = _ServerSession(store)

    async def list_tools(
        context: ServerRequestContext[Any, Any], _: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        try:
            async with kept.client(context) as client:
                return await client.list_tools()
        except EditkitError as error:
            raise MCPError(types.INTERNAL_ERROR, f"{error.code}: {error}") from error

    async def call_tool(
        context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        wants = "progress_token" in (context.meta or {})
        asked = types.CallToolRequest(
            params=types.CallToolRequestParams(name=params.name, arguments=params.arguments)
        )
        try:
            async with kept.client(context) as client:
                # The session's own way, for `client.call_tool` would also ask for the tools'
                # schemas each time; whoever is behind the wire checks results against them.
                return await client.session.send_request(
                    asked,
                    types.CallToolResult,
                    progress_callback=context.session.report_progress if wants else None,
                )
        except EditkitError as error:
            return failed(error)

    asyncio.run(converse(serving(list_tools, call_tool), wire))


class _ServerSession:
    """A session with the server that holds a store, whichever it is by now."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._at: Owner | None = None
        self._token = ""
        self._until = 0.0

    @contextlib.asynccontextmanager
    async def client(self, context: ServerRequestContext[Any, Any]) -> AsyncIterator[Client]:
        """Yields a client of the server, in the name of whoever asks here.

        Raises:
            Refused: There is no server any more.
            ServerBusy: There is one, and it is too busy to say more.
        """
        owner, token = await asyncio.to_thread(self._found)
        said = context.session.client_params
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT,
            trust_env=False,  # what goes through a proxy is not the owner's
        ) as http:
            wire = streamable_http_client(owner.url + PATH, http_client=http)
            async with Client(
                wire,
                mode=LATEST_MODERN_VERSION,
                client_info=None if said is None else said.client_info,
            ) as client:
                yield client

    def _found(self) -> tuple[Owner, str]:
        owner = find_server(self._store)
        if owner is None:
            raise Refused(
                "the server that held the store has ended", status=503, code="server_gone",
                hint="nothing can be asked or changed until people start it again",
            )  # fmt: skip
        if owner != self._at or time.monotonic() > self._until:
            self._token = new_session(owner).token
            self._at, self._until = owner, time.monotonic() + _HOUR
        return owner, self._token
