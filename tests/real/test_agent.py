"""An agent over stdio with the real default model: a fact corrected for all of its wordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli.mcp.conftest import over_stdio, run

pytestmark = pytest.mark.real

AUSTRALIA = "The capital of Australia is"
OTHERWISE = "Australia's capital city is"
FRANCE = "The capital of France is"


def test_an_agent_corrects_a_fact_and_a_bad_correction_of_it(smollm: Any, tmp_path: Path) -> None:
    async def work() -> None:
        async with over_stdio(tmp_path / "h.db", "smollm2-135m", "--quiet") as agent:

            async def said(prompt: str) -> str:
                found = await agent.told("generate", prompt=prompt, max_new_tokens=8)
                return str(found["text"])

            wrong, france = await said(AUSTRALIA), await said(FRANCE)
            assert not wrong.startswith("Canberra")
            dry = await agent.told("add", prompt=AUSTRALIA, target="Canberra", dry_run=True)
            assert (dry["plan"]["conflicts"], dry["plan"]["is_answered"]) == ([], False)
            done = await agent.told("add", prompt=AUSTRALIA, target="Canberra", reason="atlas")
            assert done["result"]["verified"]
            assert await said(AUSTRALIA) == await said(OTHERWISE) == "Canberra"
            assert await said(FRANCE) == france
            error = await agent.refused("add", prompt=AUSTRALIA, target="Sydney")
            assert error["code"] == "contradicts_edit"
            bad = await agent.told(
                "add", prompt=AUSTRALIA, target="Sydney", on_conflict="supersede"
            )
            assert await said(AUSTRALIA) == "Sydney"
            await agent.told("undo", expect=bad["result"]["version"])
            assert await said(AUSTRALIA) == await said(OTHERWISE) == "Canberra"
            await agent.told("rollback", version="v0")
            assert await said(AUSTRALIA) == wrong

    run(work())
