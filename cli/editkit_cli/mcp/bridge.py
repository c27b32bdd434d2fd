"""``editkit mcp`` while a server holds the store: passes the calls of the agent on to that server.

Each call looks the server up again and sends one request to its ``/mcp``, so a server that was
restarted with another port and another token is found. The library that sends the requests cannot
sign them, so they carry a session token of the owner.
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
"""Seconds that a session is used for; the server ends sessions that were not used for long."""

_TIMEOUT = httpx2.Timeout(30.0, read=None)
"""Seconds. The server has its own limits, and reports when they are exceeded."""


def relay(store: Path, wire: tuple[int, int]) -> None:
    """Passes calls on to the server that holds a store, until the input ends or a signal arrives.

    Args:
        store: The store's file.
        wire: File descriptors of the input and the output.
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
                # Sent through the session, because `client.call_tool` would request the schemas
                # of the tools each time. The agent validates the results.
                return await client.session.send_request(
                    asked,
                    types.CallToolResult,
                    progress_callback=context.session.report_progress if wants else None,
                )
        except EditkitError as error:
            return failed(error)

    asyncio.run(converse(serving(list_tools, call_tool), wire))


class _ServerSession:
    """A session with the server that currently holds a store."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._at: Owner | None = None
        self._token = ""
        self._until = 0.0

    @contextlib.asynccontextmanager
    async def client(self, context: ServerRequestContext[Any, Any]) -> AsyncIterator[Client]:
        """Yields a client of the server, with the name of the agent.

        Raises:
            Refused: There is no server any more.
            ServerBusy: There is one, but it is too busy to prove its identity.
        """
        owner, token = await asyncio.to_thread(self._found)
        said = context.session.client_params
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT,
            trust_env=False,  # the owner's requests must not go through a proxy
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
                hint="nothing can be asked or changed until somebody starts it again",
            )  # fmt: skip
        if owner != self._at or time.monotonic() > self._until:
            self._token = new_session(owner).token
            self._at, self._until = owner, time.monotonic() + _HOUR
        return owner, self._token
