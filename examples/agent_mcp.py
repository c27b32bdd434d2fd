"""An agent that corrects a model: it asks, checks, corrects, verifies, and undoes what was wrong.

    pip install 'editkit[cpu,server]'
    python examples/agent_mcp.py [STORE] [MODEL]

It starts `editkit mcp` as its tool server and speaks to it by the official client of the Model
Context Protocol. What a language model would decide is decided by a script here, so that it runs
without one: for each of its beliefs it asks the model, adds a correction where the answer is wrong
and nothing stands against it, and takes it back where another answer changed that should not have.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.types import Implementation

BELIEFS = {
    "The capital of Australia is": "Canberra",
    "The red cat is called": "Edith",
}
UNRELATED = "The sun is a star, and the moon is"


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Calls a tool, shows what a model would read of it, and returns the result."""
    found = await client.call_tool(tool, arguments)
    said = "\n     ".join(found.content[0].text.strip().splitlines())
    print(f"  {tool} {arguments}\n  -> {said}")
    return None if found.is_error else found.structured_content


async def correct(client: Client, prompt: str, target: str, before: str) -> None:
    """Makes the model answer a prompt as it should; leaves it as it was where that fails."""
    print(f"\nDoes the model know: {prompt} {target}?")
    said = await call(client, "generate", prompt=prompt, max_new_tokens=8)
    if said["text"].startswith(target):
        return
    wish = {"prompt": prompt, "target": target, "idempotency_key": f"belief: {prompt}"}
    plan = (await call(client, "add", **wish, dry_run=True))["plan"]
    if plan["conflicts"]:
        return print("  somebody else said otherwise; this is for people to decide")
    done = await call(client, "add", **wish, reason="the answer was wrong")
    if done is None or not done["result"]["verified"]:
        return
    await call(client, "generate", prompt=prompt, max_new_tokens=8)
    after = await call(client, "generate", prompt=UNRELATED, max_new_tokens=8)
    if after["text"] != before:
        await call(client, "undo", expect=done["result"]["version"], reason="it changed another")


async def main(store: str, model: str | None) -> None:
    """Runs the agent on a store, by default with the model that the store remembers."""
    args = ["-m", "editkit_cli", "mcp", "--quiet", "--store", store]
    server = StdioServerParameters(
        command=sys.executable,
        args=[*args, "--model", model] if model else args,
        env=dict(os.environ),  # a client of this protocol passes on next to nothing by itself
    )
    me = Implementation(name="scripted-agent", version="1")
    async with Client(server, client_info=me) as client:
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        await call(client, "status")
        before = await call(client, "generate", prompt=UNRELATED, max_new_tokens=8)
        for prompt, target in BELIEFS.items():
            await correct(client, prompt, target, before["text"])
        print("\nAnd a mistake of its own, taken back:")
        prompt = next(iter(BELIEFS))
        await call(client, "add", prompt=prompt, target="Sydney")  # refused: it contradicts
        await call(client, "add", prompt=prompt, target="Sydney", on_conflict="supersede")
        await call(client, "undo", reason="I was wrong")
        await call(client, "generate", prompt=prompt, max_new_tokens=8)
        await call(client, "log")


if __name__ == "__main__":
    given = [*sys.argv[1:], "history.db"][:1] + sys.argv[2:3]
    asyncio.run(main(given[0], given[1] if len(given) > 1 else None))
