"""The MCP server: all tools over one runner, for any number of agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp import MCPError, types
from mcp.server import Server, ServerRequestContext
from mcp.types import INVALID_PARAMS
from pydantic_core import from_json, to_json

from editkit_cli import __version__
from editkit_cli.mcp import edit_tools, history_tools, model_tools, read_tools
from editkit_cli.mcp.errors import check_role, failed, parsed
from editkit_cli.mcp.tool import Call, Tool
from editkit_cli.service.errors import LOG, internal_error
from editkit_cli.service.guard import CALLER, Caller
from editkit_cli.service.runner import Runner
from editkit_store.errors import EditkitError

__all__ = ["INSTRUCTIONS", "TOOLS", "client_name", "create_server", "serving"]

INSTRUCTIONS = """One running language model, and the corrections that were made to it.

To correct it: `generate` to see that an answer is wrong; `add` with dry_run=true to see what the
correction would meet; `add` to make it; `generate` again, with the prompt, with other wordings and
with something unrelated; `adjust` where it reaches too far, or not far enough; `diff` for what
changed; `undo` (or `revert`, for one edit) if it was wrong. Every change is a new version: `@` is
the current one, `v0` the model without edits. Nothing is ever deleted, and any version can be
asked by `version`. Others may be asking and correcting the same model: `log` tells what they did.
A change that was taken is carried out even if you cancel; undo it instead."""

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (*model_tools.TOOLS, *edit_tools.TOOLS, *read_tools.TOOLS, *history_tools.TOOLS)
}
"""The tools by their names."""


def create_server(runner: Runner, *, caller: Caller | None = None) -> Server[Any]:
    """Returns the MCP server.

    Args:
        runner: The running model; started, and closed by the caller.
        caller: Who sends all requests; by default, the guard determines it for each request.
    """

    async def list_tools(
        context: ServerRequestContext[Any, Any], _: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        asks = caller or _caller(context)
        return types.ListToolsResult(
            tools=[tool.definition for tool in TOOLS.values() if asks.may(tool.role)]
        )

    async def call_tool(
        context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            known = ", ".join(TOOLS)
            raise MCPError(
                INVALID_PARAMS, f"there is no tool '{params.name[:100]}'; tools: {known}"
            )
        try:
            asks = caller or _caller(context)
            check_role(asks, tool.role, tool.name)
            asked = parsed(tool.takes, params.arguments)
            wants = bool(context.meta) and "progress_token" in (context.meta or {})
            tell = context.session.report_progress if wants else None
            found = await tool.act(Call(runner, asks, client_name(context), tell), asked)
        except EditkitError as error:
            return failed(error)
        except Exception as error:
            LOG.error("the tool '%s' failed", tool.name, exc_info=error)
            return failed(internal_error())
        content: Any = from_json(to_json(found.model_dump(mode="json"), inf_nan_mode="null"))
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=tool.said(found))],
            structured_content=content,
        )

    return serving(list_tools, call_tool)


def serving(
    list_tools: Callable[..., Awaitable[types.ListToolsResult]],
    call_tool: Callable[..., Awaitable[types.CallToolResult]],
) -> Server[Any]:
    """Returns an MCP server with editkit's name and instructions.

    Args:
        list_tools: Handles `tools/list`.
        call_tool: Handles `tools/call`.
    """
    return Server(
        "editkit",
        version=__version__,
        title="editkit",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def client_name(context: ServerRequestContext[Any, Any]) -> str | None:
    """Returns name and version of the client, if it states them."""
    said = context.session.client_params
    if said is None:
        return None
    return f"{said.client_info.name} {said.client_info.version}".strip()[:200] or None


def _caller(context: ServerRequestContext[Any, Any]) -> Caller:
    # The caller of this request: a session must not keep rights that its token has lost, or be used
    # with the rights of another token.
    assert context.request is not None
    found = context.request.scope[CALLER]
    assert isinstance(found, Caller)
    return found
