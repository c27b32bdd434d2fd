"""Sessions at `/mcp`: one token does not use them up, and those that are idle give way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cli.http.conftest import Running, held, made, running
from cli.mcp.conftest import over_http, run

from editkit_cli.service.limits import Limits

HELLO = (
    '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": '
    '"2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}}'
)
PING = '{"jsonrpc": "2.0", "id": 2, "method": "ping"}'


class Caller:
    """Somebody with a token of their own, who opens sessions by hand."""

    def __init__(self, server: Running, name: str) -> None:
        self.token = server.token("edit", name)
        self.url = f"{server.url}/mcp"
        self.http = httpx2.Client(
            trust_env=False, timeout=60,
            headers={
                "Authorization": f"Bearer {self.token}", "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
            },
        )  # fmt: skip

    def open(self) -> str:
        said = self.http.post(self.url, content=HELLO)
        assert said.status_code == 200, said.text
        return str(said.headers["mcp-session-id"])

    def ping(self, session: str | None) -> int:
        headers = {} if session is None else {"Mcp-Session-Id": session}
        return int(self.http.post(self.url, content=PING, headers=headers).status_code)

    def end(self, session: str) -> int:
        return int(self.http.delete(self.url, headers={"Mcp-Session-Id": session}).status_code)


@pytest.fixture
def caller() -> Iterator[Callable[[Running, str], Caller]]:
    """Makes callers, whose connections end with the test."""
    with contextlib.ExitStack() as stack:

        def come(server: Running, name: str) -> Caller:
            found = Caller(server, name)
            stack.enter_context(found.http)
            return found

        yield come


@pytest.fixture
def few(tmp_path: Path) -> Any:
    """A server with room for eight sessions."""
    with running(tmp_path / "h.db", made(), limits=Limits(sessions=8, grace=5)) as server:
        yield server


def test_one_token_does_not_close_the_door_to_others(few: Running, caller: Any) -> None:
    ada, mallory = caller(few, "ada"), caller(few, "mallory")
    first = ada.open()
    theirs = [mallory.open() for _ in range(30)]
    assert [mallory.ping(one) for one in theirs] == [404] * 26 + [200] * 4
    assert ada.ping(first) == 200
    bob = caller(few, "bob")
    assert [bob.ping(bob.open()) for _ in range(3)] == [200] * 3  # all places are taken now
    second = ada.open()
    assert [mallory.ping(one) for one in theirs[26:]] == [404, 200, 200, 200]
    assert (ada.ping(first), ada.ping(second)) == (200, 200)


def test_the_session_that_has_not_been_used_longest_gives_way(few: Running, caller: Any) -> None:
    ada = caller(few, "ada")
    sessions = [ada.open() for _ in range(4)]
    assert ada.ping(sessions[0]) == 200
    sessions.append(ada.open())
    assert [ada.ping(one) for one in sessions] == [200, 404, 200, 200, 200]
    assert ada.end(sessions[0]) == 200
    sessions.append(ada.open())  # there is room
    assert [ada.ping(one) for one in sessions[2:]] == [200] * 4


def test_requests_that_open_no_session_cost_nobody_one(few: Running, caller: Any) -> None:
    ada = caller(few, "ada")
    sessions = [ada.open() for _ in range(4)]
    assert {ada.ping(None) for _ in range(20)} == {400}
    assert {ada.ping("0" * 32) for _ in range(20)} == {404}
    assert [ada.ping(one) for one in sessions] == [200] * 4


def test_a_session_that_waits_for_an_answer_does_not_give_way(
    few: Running, caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        ada = caller(few, "ada")
        with held(few.kit, monkeypatch) as go:
            async with over_http(few, ada.token, mode="legacy") as agent:
                asking = asyncio.ensure_future(agent.told("generate", prompt="The red cat is"))
                while not await asyncio.to_thread(_is_generating, few):
                    await asyncio.sleep(0.01)
                for _ in range(12):
                    await asyncio.to_thread(ada.open)
                go.set()
                assert (await asking)["version"] == "v0"

    run(work())


def _is_generating(server: Running) -> bool:
    return server.metric("running_rows") > 0


def test_a_session_that_is_idle_ends(tmp_path: Path, caller: Any) -> None:
    limits = Limits(session_seconds=1, grace=5)
    with running(tmp_path / "h.db", made(), limits=limits) as server:
        ada = caller(server, "ada")
        session = ada.open()
        time.sleep(3)
        assert ada.ping(session) == 404
        assert ada.ping(ada.open()) == 200
