"""`editkit mcp`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from editkit_cli.commands.serve import check_installed
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings

__all__ = ["mcp"]


@command(
    "mcp",
    example="editkit mcp --store history.db --model smollm2-135m",
    shared=("store", "model", "quiet"),
)
def mcp(settings: Settings) -> None:
    """Let an agent ask and correct the model, over MCP on stdin and stdout.

    An agent's host runs this command, and speaks the Model Context Protocol with it. The agent can
    do whatever the command line can: ask, correct, look at the history, take back.

    If `editkit serve` holds the store, the agent's calls are passed on to it, so that it shares the
    running model with everybody else. Otherwise, nobody else can open the store meanwhile.

    It ends with its input, or with SIGTERM.
    """
    check_installed("mcp", "fastapi", "prometheus_client")
    from editkit_cli.mcp.streams import claimed
    from editkit_cli.service.owner import find_server

    out = settings.out
    with claimed() as wire:
        there = find_server(settings.path)
        if there is not None:
            from editkit_cli.mcp.bridge import relay

            out.status(f"through the server at {there.url}, which holds '{settings.store}'")
            relay(settings.path, wire)
            return
        from editkit_cli.backend.opening import open_kit
        from editkit_cli.mcp.stdio import serve_stdio

        with _sharing_advised(), open_kit(settings) as kit:
            out.status(f"{kit.name} at {kit.version}, for the agent at stdin and stdout")
            given_up = serve_stdio(kit, wire)
    if given_up:
        out.warning(f"{given_up} waiting changes were given up")


@contextlib.contextmanager
def _sharing_advised() -> Iterator[None]:
    """Adds a hint to the error for a store that another process holds: how to share it.

    An agent's host keeps this command running, which keeps the store closed for everybody else.

    Raises:
        StoreLocked: Another process holds the store.
    """
    from editkit_store.errors import StoreLocked

    try:
        yield
    except StoreLocked as error:
        error.hint = "run `editkit serve` on it instead: agents and commands then share the model"
        raise
