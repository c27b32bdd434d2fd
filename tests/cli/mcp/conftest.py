"""Agents on the SDK's own client: over HTTP to a server in this process, over stdio to another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cli.http.conftest import Running, made, running
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Implementation

ME = Implementation(name="fixer", version="1.2")


@dataclass
class Agent:
    """One agent, connected.

    Attributes:
        client: The SDK's.
        progress: What was told of the calls so far.
    """

    client: Client
    progress: list[tuple[float, float | None, str | None]] = field(default_factory=list)

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        async def heard(done: float, total: float | None, message: str | None) -> None:
            self.progress.append((done, total, message))

        return await self.client.call_tool(tool, arguments, progress_callback=heard)

    async def told(self, tool: str, **arguments: Any) -> Any:
        """What a call gives, that is to succeed."""
        found = await self.call(tool, **arguments)
        assert not found.is_error, text(found)
        assert text(found).strip()
        return found.structured_content

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The error of a call that is to fail, after looking at how it is told."""
        found = await self.call(tool, **arguments)
        assert found.is_error, found.structured_content
        error: dict[str, Any] = found.structured_content["error"]
        assert text(found).startswith(f"{error['code']}: {error['message']}")
        assert "Traceback" not in text(found)
        return error


Connect = Callable[..., contextlib.AbstractAsyncContextManager[Agent]]


def text(found: CallToolResult) -> str:
    """What a model reads of a result."""
    (block,) = found.content
    assert block.type == "text"
    return block.text


def run(work: Awaitable[Any]) -> Any:
    async def within() -> Any:
        return await work

    return asyncio.run(within())


@contextlib.asynccontextmanager
async def over_http(server: Running, token: str | None = None, **how: Any) -> AsyncIterator[Agent]:
    """An agent at a server's `/mcp`; by default the owner's."""
    headers = {"Authorization": f"Bearer {token or server.session}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        wire = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with Client(wire, **{"client_info": ME, **how}) as client:
            yield Agent(client)


def command(store: Path, model: str, *more: str) -> StdioServerParameters:
    """How an agent's host starts `editkit mcp`."""
    args = ["-m", "editkit_cli", "mcp", "--store", str(store), "--model", model, *more]
    return StdioServerParameters(command=sys.executable, args=args, env=dict(os.environ))


@contextlib.asynccontextmanager
async def over_stdio(store: Path, model: str, *more: str, **how: Any) -> AsyncIterator[Agent]:
    """An agent with a process of its own."""
    wire = command(store, model, *more)
    async with Client(wire, **{"client_info": ME, **how}) as client:
        yield Agent(client)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with one edit, for tests that change nothing, or take back what they do."""
    with running(tmp_path_factory.mktemp("shared") / "history.db", made()) as server:
        server.add("The red cat is", "blue", reason="to have one")
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """A server with an empty history."""
    with running(tmp_path / "history.db", made()) as started:
        yield started


@pytest.fixture(params=["http", "stdio"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Connects an agent to an empty history, over one transport and the other."""
    if request.param == "stdio":
        model = request.getfixturevalue("tiny_model")
        yield lambda **how: over_stdio(tmp_path / "history.db", model, **how)
        return
    with running(tmp_path / "history.db", made()) as started:
        yield lambda **how: over_http(started, **how)
