"""``editkit mcp``: serves one agent over standard input and output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any, cast

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server

from editkit.kit import Kit
from editkit_cli.mcp.server import create_server
from editkit_cli.mcp.streams import Lines
from editkit_cli.service.guard import Caller
from editkit_cli.service.limits import Limits
from editkit_cli.service.runner import Runner

__all__ = ["converse", "serve_stdio"]


def serve_stdio(kit: Kit, wire: tuple[int, int], limits: Limits | None = None) -> int:
    """Serves a kit to one agent until its input ends, or SIGINT or SIGTERM arrives.

    The change that is being made is then finished; waiting changes are, for a while.

    Args:
        kit: The running model; closed by the caller.
        wire: File descriptors of the input and the output.
        limits: How much is accepted.

    Returns:
        How many changes were given up.
    """

    async def serving() -> int:
        runner = Runner(kit, limits or Limits())
        runner.start()
        try:
            # Whoever starts this process can read the store anyway.
            server = create_server(runner, caller=Caller(None, "admin"))
            await converse(server, wire, hurry=runner.hurry)
        finally:
            runner.events.close()
            given_up = await asyncio.to_thread(runner.close)
        return given_up

    return asyncio.run(serving())


async def converse(
    server: Server[Any], wire: tuple[int, int], *, hurry: Callable[[], None] = lambda: None
) -> None:
    """Runs a server until its input ends, or SIGINT or SIGTERM arrives.

    Args:
        server: The MCP server.
        wire: File descriptors of the input and the output.
        hurry: Called at every further signal.
    """
    talking = asyncio.ensure_future(_talk(server, wire))

    def end() -> None:
        if talking.done():
            hurry()
        talking.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # on Windows, the process just ends
            loop.add_signal_handler(number, end)
    await asyncio.wait({talking})
    if not talking.cancelled():
        talking.result()


async def _talk(server: Server[Any], wire: tuple[int, int]) -> None:
    output = anyio.wrap_file(os.fdopen(os.dup(wire[1]), "w", encoding="utf-8", newline="\n"))
    lines = cast("anyio.AsyncFile[str]", Lines(wire[0]))
    try:
        async with stdio_server(lines, output) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    except* OSError:
        pass  # the other end has closed
    finally:
        with contextlib.suppress(OSError):
            await output.aclose()
