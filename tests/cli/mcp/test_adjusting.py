"""An agent corrects how far an edit reaches."""

from __future__ import annotations

from typing import Any

import pytest
from cli.http.conftest import Running
from cli.mcp.conftest import over_http, run, text

CAT, FAR, NEAR = "The red cat is", "tall tree", "The red cat was"


def test_an_agent_looks_adjusts_and_takes_it_back(server: Running) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]

    async def work() -> None:
        async with over_http(server) as agent:
            said = {"edit_id": edit, "also": [FAR], "not": [NEAR]}
            dry = await agent.told("adjust", **said, dry_run=True)
            assert (dry["state"], dry["plan"]["verified"], dry["result"]) == ("planned", True, None)
            assert (await agent.told("generate", prompt=FAR))["fired"] == []
            done = await agent.call("adjust", **said, reason="seen")
            assert f"Adjusted edit {edit}, in force at v2" in text(done)
            assert f"also '{FAR}': the model answers 'blue'" in text(done)
            assert f"not '{NEAR}'" in text(done)
            assert (await agent.told("generate", prompt=FAR))["text"] == "blue"
            assert "adjusted: not" in text(await agent.call("explain", prompt=NEAR))
            assert f"at '{FAR}': nothing said becomes also" in text(await agent.call("diff"))
            assert "because: seen" in text(await agent.call("log"))
            assert f"also '{FAR}'" in text(await agent.call("show", name="v2"))
            again = await agent.call("adjust", **said)
            assert "reaches so already" in text(again)
            await agent.told("undo", expect="v2")
            assert (await agent.told("generate", prompt=NEAR))["fired"] == [edit]

    run(work())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"also": []}, "invalid_request"),
        ({"not": [CAT]}, "invalid_request"),
        ({"also": ["x"], "not": ["X"]}, "invalid_request"),
        ({"also": "x"}, "invalid_arguments"),
        ({"unless": ["x"]}, "invalid_arguments"),
        ({"also": ["x" * 100_001]}, "too_long"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    server: Running, arguments: dict[str, Any], code: str
) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]

    async def work() -> None:
        async with over_http(server) as agent:
            for dry in (False, True):
                error = await agent.refused("adjust", edit_id=edit, **arguments, dry_run=dry)
                assert error["code"] == code
            if code == "invalid_arguments":
                assert "also, not" in error["hint"]
            assert (await agent.refused("adjust", edit_id="ff", also=["x"]))[
                "code"
            ] == "unknown_edit"
            assert (await agent.told("status"))["version"] == "v1"

    run(work())
