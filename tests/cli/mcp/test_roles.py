"""Who may do what at `/mcp`: the guard of all other paths, and the roles of tokens."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from cli.http.conftest import Running
from cli.mcp.conftest import over_http, run
from mcp import MCPError

from editkit_cli.mcp.server import TOOLS
from editkit_cli.service.tokens import TokenFile

CHANGING = ["add", "adjust", "rollback", "revert", "undo", "replay"]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "add": {"prompt": "The red cat is", "target": "gold", "on_conflict": "supersede"},
    "adjust": {"edit_id": "a", "not": ["see Oslo"]},
    "rollback": {"version": "v0"},
    "revert": {"edit_id": "a"},
}


def ask(server: Running, method: str = "POST", **headers: str) -> httpx2.Response:
    given = {
        "Authorization": f"Bearer {server.session}", "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }  # fmt: skip
    body = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}' if method == "POST" else None
    with httpx2.Client(trust_env=False, timeout=60) as client:
        sent = {name: value for name, value in {**given, **headers}.items() if value}
        return client.request(method, f"{server.url}/mcp", content=body, headers=sent)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_token_that_may_read_gets_the_reading_tools_and_no_others(
    shared: Running, mode: Any
) -> None:
    async def work() -> None:
        token = shared.token("read", f"reader of {mode}")
        async with over_http(shared, token, mode=mode) as agent:
            listed = {tool.name for tool in (await agent.client.list_tools()).tools}
            assert listed == set(TOOLS) - {*CHANGING, "verify"}
            assert (await agent.told("status"))["role"] == "read"
            assert (await agent.told("generate", prompt="The red cat is"))["text"] == "blue"
            for tool in [*CHANGING, "verify"]:
                for dry in ({}, {"dry_run": True}) if tool != "verify" else ({},):
                    error = await agent.refused(tool, **ARGUMENTS.get(tool, {}), **dry)
                    assert (error["code"], error["type"]) == ("role", "permission_error")
                    assert "'edit'" in error["message"]
                    assert "tell them" in error["hint"]

    run(work())
    assert shared.kit.version == "v1"


def test_a_token_that_may_edit_changes_things_in_its_own_name(server: Running) -> None:
    async def work() -> None:
        async with over_http(server, server.token("edit", "support-bot")) as agent:
            assert {tool.name for tool in (await agent.client.list_tools()).tools} == set(TOOLS)
            await agent.told("add", prompt="The red cat is", target="blue")
            await agent.told("undo")
            for entry in (await agent.told("log"))["entries"]:
                assert entry["author"] == "support-bot"
            assert (await agent.told("show", name="v2"))["provenance"]["command"] is None

    run(work())
    with server.client() as client:
        said = client.get("/v1/versions/v2").json()["provenance"]
    assert said["command"] == "mcp undo (token 'support-bot')"


def test_a_token_that_was_revoked_ends_what_it_began(server: Running) -> None:
    async def work() -> None:
        async with over_http(server, server.token("edit", "gone"), mode="legacy") as agent:
            await agent.told("status")
            TokenFile(server.store).revoke("gone")
            with pytest.raises(MCPError):  # what the SDK makes of a 401
                await agent.call("add", prompt="The red cat is", target="blue")

    run(work())
    assert server.kit.version == "v0"


def test_a_session_that_one_token_began_is_not_there_for_another(shared: Running) -> None:
    hello = (
        '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": '
        '"2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}}'
    )
    given = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with httpx2.Client(trust_env=False, timeout=60, headers=given) as client:
        mine = {"Authorization": f"Bearer {shared.token('edit', 'ada')}"}
        theirs = {"Authorization": f"Bearer {shared.token('edit', 'bob')}"}
        url = f"{shared.url}/mcp"
        opened = client.post(url, content=hello, headers=mine)
        assert opened.status_code == 200
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        ping = '{"jsonrpc": "2.0", "id": 2, "method": "ping"}'
        assert client.post(url, content=ping, headers={**mine, **session}).status_code == 200
        assert client.post(url, content=ping, headers={**theirs, **session}).status_code == 404
        assert client.delete(url, headers={**theirs, **session}).status_code == 404
        assert client.delete(url, headers={**mine, **session}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": ""}, 401, "invalid_api_key"),
        ({"Authorization": "Bearer ek-wrong"}, 401, "invalid_api_key"),
        ({"Host": "evil.example"}, 403, "wrong_host"),
        ({"Origin": "http://evil.example"}, 403, "wrong_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "wrong_origin"),
        ({"Content-Type": "text/plain"}, 415, "not_json"),
    ],
)
def test_strangers_and_other_sites_do_not_get_in(
    shared: Running, headers: dict[str, str], status: int, code: str
) -> None:
    said = ask(shared, **headers)
    assert said.status_code == status
    assert said.json()["error"]["code"] == code


def test_a_body_beyond_the_limit_is_refused(shared: Running) -> None:
    headers = {
        "Authorization": f"Bearer {shared.session}", "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }  # fmt: skip

    def pieces() -> Any:  # does not say how long it is
        for _ in range(40):
            yield b" " * 65_536

    with httpx2.Client(trust_env=False, timeout=60) as client:
        for body in (b" " * (1 << 20) + b"x", pieces()):
            said = client.post(f"{shared.url}/mcp", content=body, headers=headers)
            assert said.status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_there_is_no_stream_of_what_nobody_asked_for(shared: Running, method: str) -> None:
    said = ask(shared, method)
    assert (said.status_code, said.headers["allow"]) == (405, "POST, DELETE")


def test_requests_of_agents_are_counted_under_their_path(shared: Running) -> None:
    assert ask(shared).status_code < 500
    with shared.client() as client:
        assert 'route="/mcp"' in client.get("/metrics").text
