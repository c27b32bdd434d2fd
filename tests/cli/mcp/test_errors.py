"""What a model reads when something is wrong: a code, what it was, and what to do."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import httpx2
import pytest
from cli.http.conftest import Running, held, made, running
from cli.mcp.conftest import over_http, run, text
from mcp import MCPError

from editkit.kit import Kit
from editkit_cli.service.limits import Limits

CAT = "The red cat is"


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "message", "hint"),
    [
        ("generate", {}, "invalid_arguments", "'prompt' or 'chat'", "prompt, chat, version"),
        ("generate", {"prompt": "a", "chat": [{"role": "user", "content": "b"}]},
         "invalid_arguments", "'prompt' or 'chat'", "arguments"),
        ("generate", {"prompt": "a", "warmth": 1}, "invalid_arguments",
         "no argument 'warmth'", "max_new_tokens"),
        ("generate", {"prompt": ["a"]}, "invalid_arguments", "'prompt' is not usable", "arguments"),
        ("generate", {"prompt": "a", "max_new_tokens": 0}, "invalid_arguments",
         "'max_new_tokens'", "arguments"),
        ("generate", {"prompt": "a", "max_new_tokens": 10**6}, "too_many", "4096", None),
        ("generate", {"prompt": "a", "version": "v99"}, "unknown_version", "'v99'", "`log`"),
        ("generate", {"prompt": ""}, "invalid_request", "empty", None),
        ("generate", {"prompt": "x" * 100_001}, "too_long", "100000", None),
        ("generate", {"prompt": "see " * 2000}, "prompt_too_long", "tokens", "shorten"),
        ("explain", {"prompt": "a", "k": 0}, "invalid_arguments", "'k'", "arguments"),
        ("explain", {"prompt": "see " * 30_000}, "too_long", "100000", None),
        ("add", {"prompt": "a"}, "invalid_arguments", "'target' is missing", "target"),
        ("add", {"prompt": "a", "target": ""}, "invalid_request", "target is empty", "some text"),
        ("add", {"prompt": "a", "target": "x" * 100_001}, "too_long", "100000", None),
        ("add", {"prompt": "a", "target": "b", "dry_run": True, "method": "magic"},
         "unsupported_method", "'magic'", "methods: grace, elder"),
        ("add", {"prompt": CAT, "target": "gold"}, "contradicts_edit", "'blue'", "supersede"),
        ("show", {"name": "v99"}, "unknown_version", "'v99'", "`log`"),
        ("list", {"version": "nowhere"}, "unknown_version", "'nowhere'", "`log`"),
        ("list", {"limit": 1000}, "invalid_arguments", "'limit'", "arguments"),
        ("diff", {"before": "v99"}, "unknown_version", "'v99'", "`log`"),
        ("diff", {"probes": ["x" * 100_001]}, "too_long", "100000", None),
        ("revert", {"edit_id": "zz"}, "unknown_edit", "'zz'", "`list`"),
        ("rollback", {"version": "v99"}, "unknown_version", "'v99'", "`log`"),
        ("rollback", {"version": "v99", "dry_run": True}, "unknown_version", "'v99'", "`log`"),
        ("replay", {"to": "v99"}, "unknown_version", "'v99'", "`log`"),
        ("operation", {"id": "op-0"}, "unknown_operation", "'op-0'", "`status`"),
        ("status", {"verbose": True}, "invalid_arguments", "'verbose'", "no arguments"),
    ],
)  # fmt: skip
def test_bad_input_is_told_with_a_code_and_a_hint(
    shared: Running, tool: str, arguments: Any, code: str, message: str, hint: str | None
) -> None:
    async def work() -> None:
        async with over_http(shared) as agent:
            error = await agent.refused(tool, **arguments)
            assert error["code"] == code
            assert message in error["message"]
            if hint is not None:
                assert hint in error["hint"]

    run(work())
    assert shared.kit.version == "v1"  # nothing of it changed anything


def test_a_tool_that_is_not_there_is_an_error_that_names_those_that_are(shared: Running) -> None:
    async def work() -> None:
        async with over_http(shared) as agent:
            with pytest.raises(MCPError, match="there is no tool 'fix'; tools: generate"):
                await agent.call("fix")

    run(work())


def test_text_that_is_no_unicode_is_refused(shared: Running) -> None:
    """The client would not send it, so it is written by hand."""
    wrong = '{"name": "generate", "arguments": {"prompt": "\\ud800"}, "_meta": ' + META + "}"
    said = post(shared, f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {wrong}}}')
    assert said.status_code == 200
    result = said.json()["result"]
    assert result["isError"]
    assert "Unicode" in result["content"][0]["text"]


META = (
    '{"io.modelcontextprotocol/protocolVersion": "2026-07-28", '
    '"io.modelcontextprotocol/clientCapabilities": {}}'
)


def post(server: Running, body: str, **headers: str) -> httpx2.Response:
    given = {
        "Authorization": f"Bearer {server.session}", "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call", "Mcp-Name": "generate",
    }  # fmt: skip
    with httpx2.Client(trust_env=False, timeout=60) as client:
        return client.post(f"{server.url}/mcp", content=body, headers={**given, **headers})


@pytest.mark.parametrize("body", ["", "{", "[]", "[[[[", '{"jsonrpc": "2.0"}', "null", '"x"'])
def test_what_is_not_of_the_protocol_is_refused_without_a_failure(
    shared: Running, body: str
) -> None:
    for version in ("2026-07-28", "2025-11-25"):
        said = post(shared, body, **{"MCP-Protocol-Version": version})
        assert 400 <= said.status_code < 500


def test_a_bug_is_told_without_its_insides(
    shared: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(shared.kit, "show", broken)

    async def work() -> None:
        async with over_http(shared) as agent:
            error = await agent.refused("show", name="v1")
            assert error["code"] == "internal_error"
            assert "secret" not in str(error)

    run(work())
    assert "the tool 'show' failed" in caplog.text


def test_an_answer_that_nobody_waits_for_any_more_is_not_generated_to_its_end(
    tmp_path: Any,
) -> None:
    with running(tmp_path / "h.db", made(), limits=Limits(grace=5, readers=1)) as server:
        seen: list[int] = []
        asked = Kit.generate_tokens

        def watched(kit: Kit, *args: Any, watch: Any, **how: Any) -> Any:
            def counted(step: Any) -> Any:
                seen.append(1)
                return watch(step)

            return asked(kit, *args, watch=counted, **how)

        async def work() -> None:
            async with over_http(server) as agent:
                with anyio.move_on_after(60) as scope:
                    async with anyio.create_task_group() as group:
                        group.start_soon(
                            lambda: agent.call("generate", prompt=CAT, max_new_tokens=200)
                        )
                        while len(seen) < 5:
                            await asyncio.sleep(0.01)
                        group.cancel_scope.cancel()
                assert not scope.cancelled_caught
                # The one reader is free for the next one.
                await agent.told("generate", prompt=CAT, max_new_tokens=2)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kit, "generate_tokens", watched)
            run(work())
        assert len(seen) < 150


def test_a_change_that_was_taken_is_carried_out_though_the_call_is_cancelled(
    server: Running,
) -> None:
    async def work() -> None:
        async with over_http(server) as agent:
            with anyio.move_on_after(0.3):
                await agent.call("add", prompt=CAT, target="blue", idempotency_key="k")
            again = await agent.told("add", prompt=CAT, target="blue", idempotency_key="k")
            assert again["result"]["outcome"] in ("known", "added")
            assert again["result"]["version"] == "v1"
            assert (await agent.told("list"))["total"] == 1

    run(work())


def test_what_takes_longer_than_the_time_limit_goes_on_and_can_be_followed(tmp_path: Any) -> None:
    limits = Limits(grace=5, seconds=0.001)  # no machine learns an edit in a thousandth
    with running(tmp_path / "h.db", made(), limits=limits) as server:

        async def work() -> None:
            async with over_http(server) as agent:
                taken = await agent.told("add", prompt=CAT, target="blue")
                assert (taken["state"], taken["result"]) == ("pending", None)
                name = taken["pending"]["id"]
                while (found := await agent.told("operation", id=name))["state"] != "done":
                    await asyncio.sleep(0.05)
                assert found["result"]["verified"]
                with pytest.MonkeyPatch.context() as patch, held(server.kit, patch):
                    error = await agent.refused("generate", prompt=CAT)
                assert (error["code"], error["type"]) == ("time_limit", "server_error")

        run(work())


def test_a_line_that_is_full_is_told_with_when_to_come_back(tmp_path: Any) -> None:
    limits = Limits(grace=5, waiting_writes=1)
    with running(tmp_path / "h.db", made(), limits=limits) as server:

        async def work() -> None:
            async with over_http(server) as agent:
                codes = []
                for target in ("blue", "gold", "red", "green"):
                    found = await agent.call(
                        "add", prompt=f"{target} is", target=target, wait=False
                    )
                    if found.is_error:
                        codes.append(found.structured_content["error"])
                assert codes
                assert {one["code"] for one in codes} == {"busy"}
                assert "try again in" in codes[0]["hint"]

        run(work())


def test_an_operation_that_failed_says_why(shared: Running) -> None:
    async def work() -> None:
        async with over_http(shared) as agent:
            taken = await agent.told(
                "add", prompt=CAT, target="gold", on_conflict="error", wait=False
            )
            name = taken["pending"]["id"]
            while (found := await agent.told("operation", id=name))["state"] != "failed":
                await asyncio.sleep(0.05)
            assert found["error"]["code"] == "contradicts_edit"
            said = await agent.call("operation", id=name)
            assert "failed: contradicts_edit" in text(said)
            kept = await agent.call("add", prompt=CAT, target="gold", on_conflict="keep")
            assert "Left out" in text(kept)

    run(work())
    assert shared.kit.version == "v1"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_an_agent_that_waits_when_the_server_ends_hears_what_became_of_it(
    server: Running, mode: Any
) -> None:
    async def work() -> None:
        async with over_http(server, mode=mode) as agent:
            await agent.client.list_tools()  # else the client asks for them after the answer
            adding = asyncio.ensure_future(agent.told("add", prompt=CAT, target="blue"))
            while not agent.progress:
                await asyncio.sleep(0.01)
            ending = asyncio.to_thread(server.stop)
            done, _ = await asyncio.gather(adding, ending)
            assert done["result"]["verified"]

    run(work())


def test_two_agents_correct_at_once_and_each_sees_what_the_other_did(server: Running) -> None:
    async def one(name: str, prompts: list[str], mode: Any) -> None:
        async with over_http(server, mode=mode) as agent:
            for prompt in prompts:
                done = await agent.told("add", prompt=prompt, target=name)
                assert done["result"]["verified"]
                said = await agent.told("generate", prompt=prompt, max_new_tokens=4)
                assert said["text"] == name

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(one, "gold", ["The red cat is", "see Oslo"], "auto")
            group.start_soon(one, "blue", ["tall tree", "Which bird?"], "legacy")
        async with over_http(server) as agent:
            assert (await agent.told("status"))["version"] == "v4"
            listed = await agent.told("list")
            assert sorted(one["target"] for one in listed["edits"]) == ["blue"] * 2 + ["gold"] * 2
            found = await agent.told("list", contains="OSLO")
            assert [one["prompt"] for one in found["edits"]] == ["see Oslo"]
            assert (await agent.told("list", limit=1, offset=1))["total"] == 4

    run(work())
