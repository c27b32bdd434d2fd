"""Agents are answered with the target of the edit that fires, and told how it came."""

from __future__ import annotations

from cli.http.conftest import Running
from cli.mcp.conftest import over_http, run, text

CAT, SPELLED = "The red cat is", "Linda Yaccarino"


def test_an_agent_is_told_how_the_target_came(server: Running) -> None:
    server.add(CAT, SPELLED, on_failure="keep")
    server.add("see Oslo", "yes")

    async def work() -> None:
        async with over_http(server) as agent:
            held = await agent.call("generate", prompt=CAT)
            assert held.structured_content is not None
            assert held.structured_content["text"] == SPELLED
            assert held.structured_content["delivered"] == "held"
            assert "applied, held to its target" in text(held)
            free = await agent.call("generate", prompt=CAT, delivery="free")
            assert free.structured_content is not None
            assert free.structured_content["delivered"] == "no"
            assert "its target not given" in text(free)
            own = await agent.told("generate", prompt="see Oslo")
            assert (own["text"], own["delivered"]) == ("yes", "free")
            assert (await agent.told("generate", prompt="tall tree"))["delivered"] is None

    run(work())


def test_an_agent_that_names_no_delivery_there_is_is_refused(server: Running) -> None:
    async def work() -> None:
        async with over_http(server) as agent:
            error = await agent.refused("generate", prompt=CAT, delivery="loose")
            assert "'exact' or 'free'" in error["message"]
            error = await agent.refused("explain", prompt=CAT, delivery="free")
            assert "delivery" in error["message"]

    run(work())
