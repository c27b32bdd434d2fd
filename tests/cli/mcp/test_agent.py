"""An agent notices a wrong answer, corrects it, and takes a bad correction back."""

from __future__ import annotations

from typing import Any

from cli.mcp.conftest import Connect, run, text

BIRD = "The capital of Australia is"
SEA = "see Oslo"


def test_an_agent_corrects_the_model_and_undoes_a_bad_correction(connect: Connect) -> None:
    async def work() -> None:
        async with connect() as agent:
            assert "add" in (agent.client.instructions or "")
            status = await agent.told("status")
            assert (status["version"], status["role"]) == ("v0", "admin")

            # A wrong answer, and whether anything stands against correcting it.
            wrong = await agent.told("generate", prompt=BIRD, max_new_tokens=4)
            assert not wrong["text"].startswith("Canberra")
            elsewhere = (await agent.told("generate", prompt=SEA, max_new_tokens=4))["text"]
            dry = await agent.told("add", prompt=BIRD, target="Canberra", dry_run=True)
            assert (dry["state"], dry["result"]) == ("planned", None)
            assert dry["plan"]["conflicts"] == []
            assert dry["plan"]["answer"].startswith(wrong["text"])
            assert (await agent.told("status"))["version"] == "v0"

            # The correction, with progress, and what it did.
            done = await agent.told(
                "add", prompt=BIRD, target="Canberra", reason="atlas", conversation="c-7",
                idempotency_key="once",
            )  # fmt: skip
            assert [(one[0], one[1]) for one in agent.progress] == [(0, 1), (1, 1)]
            assert done["state"] == "done"
            assert (done["result"]["version"], done["result"]["verified"]) == ("v1", True)
            edit = done["result"]["edit"]
            assert edit["agent"] == "fixer 1.2"
            again = await agent.told(
                "add", prompt=BIRD, target="Canberra", reason="atlas", conversation="c-7",
                idempotency_key="once",
            )  # fmt: skip
            assert (again["result"]["outcome"], again["result"]["version"]) == ("known", "v1")
            right = await agent.told("generate", prompt=BIRD, max_new_tokens=4)
            assert (right["text"], right["fired"]) == ("Canberra", [edit["id"]])
            assert (await agent.told("explain", prompt=BIRD))["fired"] == edit["id"]
            assert (await agent.told("explain", prompt=SEA))["fired"] is None
            assert (await agent.told("list"))["edits"] == [edit]
            diff = await agent.told("diff", behavior=True, probes=[SEA])
            assert (diff["from"], diff["to"], diff["added"]) == ("v0", "v1", [edit])
            assert [one["changed"] for one in diff["behavior"]] == [True, False]
            shown = await agent.told("show", name=edit["id"])
            said = shown["provenance"]
            assert (said["agent"], said["conversation"], said["reason"]) == (
                "fixer 1.2", "c-7", "atlas",
            )  # fmt: skip

            # A bad one: refused for what it contradicts, forced, seen to be bad, taken back.
            error = await agent.refused("add", prompt=BIRD, target="Sydney")
            assert error["code"] == "contradicts_edit"
            assert "on_conflict='supersede'" in error["hint"]
            bad = await agent.call(
                "add", prompt=BIRD, target="Sydney", on_conflict="supersede", reason="rumour"
            )
            assert f"contradicts: edit {edit['id']}" in text(bad)
            assert (await agent.told("generate", prompt=BIRD))["text"] == "Sydney"
            plan = (await agent.told("undo", dry_run=True))["plan"]
            assert [one["id"] for one in plan["added"]] == [edit["id"]]
            assert (await agent.refused("undo", expect="v1"))["code"] == "moved_on"
            undone = await agent.told("undo", expect="v2")
            assert undone["result"]["version"] == "v3"
            now = await agent.told("generate", prompt=BIRD, max_new_tokens=4)
            assert (now["text"], now["version"]) == ("Canberra", "v3")
            assert (await agent.told("generate", prompt=SEA, max_new_tokens=4))["text"] == elsewhere
            assert [one["operation"] for one in (await agent.told("log"))["entries"]] == [
                "undo", "add", "add",
            ]  # fmt: skip
            first = (await agent.told("log"))["entries"][0]
            assert first["reason"] is None  # nothing of the change before is left behind

            # And the good one too: the model is as it came.
            await agent.told("revert", edit_id=edit["id"][:8], reason="for the test")
            back = await agent.told("generate", prompt=BIRD, max_new_tokens=4)
            assert (back["text"], back["fired"]) == (wrong["text"], [])
            assert (await agent.told("verify"))["ok"]

    run(work())


def test_what_takes_long_is_followed_as_an_operation(connect: Connect) -> None:
    async def work() -> None:
        async with connect(mode="legacy") as agent:
            taken = await agent.call("add", prompt=BIRD, target="Canberra", wait=False)
            assert "call `operation`" in text(taken)
            pending = taken.structured_content["pending"]
            assert taken.structured_content["state"] == "pending"
            found = await followed(agent, pending["id"])
            assert (found["kind"], found["result"]["verified"]) == ("add", True)
            plan = (await agent.told("replay", dry_run=True))["plan"]
            assert (plan["restored"], plan["to_learn"]) == (1, 0)
            done = await agent.told("replay")
            assert (done["result"]["restored"], done["result"]["learned"]) == (1, 0)
            later = await agent.told("replay", to="v1", wait=False)
            assert (await followed(agent, later["pending"]["id"]))["result"]["restored"] == 1
            known = (await agent.told("status"))["operations"]
            assert {one["kind"] for one in known} == {"add", "replay"}
            plan = (await agent.told("rollback", version="v0", dry_run=True))["plan"]
            assert [one["target"] for one in plan["removed"]] == ["Canberra"]
            went = await agent.told("rollback", version="v0", reason="all of it")
            assert (went["result"]["version"], went["result"]["view"]) == ("v2", 0)

    run(work())


async def followed(agent: Any, name: str) -> Any:
    while (found := await agent.told("operation", id=name))["state"] in ("waiting", "running"):
        pass
    assert found["state"] == "done"
    return found
