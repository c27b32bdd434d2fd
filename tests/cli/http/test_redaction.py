"""What only an admin is told: whose machine it is, and by which command a change was made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli.mcp.conftest import over_http, run, text

from editkit_store.records import Provenance

SECRET = ("ada-of-the-machine", "secret-host", "--target hidden")


@pytest.fixture
def told(server: Any) -> Any:
    """A server whose history tells of its machine."""
    server.kit.provenance = Provenance(user=SECRET[0], host=SECRET[1], command=SECRET[2])
    server.kit.add(prompt="The red cat is", target="blue")
    server.kit.add(prompt="tall tree", target="gold", author="grace", reason="because")
    server.kit.tag("v2", "prod")
    return server


PATHS = (
    "/v1/versions", "/v1/versions/v1", "/v1/versions/v2", "/v1/edits", "/v1/diff?from=v0",
    "/v1/status", "/v1/operations", "/v1/verify", "/v1/whoami", "/metrics",
)  # fmt: skip


@pytest.mark.parametrize("role", ["read", "edit"])
def test_user_host_and_command_are_told_to_nobody_but_an_admin(told: Any, role: Any) -> None:
    with told.client(told.token(role)) as client:
        text = "".join(client.get(path).text for path in PATHS)
        entries = client.get("/v1/versions").json()
        shown = client.get("/v1/versions/v2").json()
    for secret in (*SECRET, str(told.store.parent)):
        assert secret not in text
    assert [one["author"] for one in entries] == [None, "grace", None]
    assert shown["provenance"]["author"] == "grace"
    assert shown["provenance"]["reason"] == "because"
    assert shown["provenance"]["host"] is None
    with told.client(told.token("admin")) as client:
        entries = client.get("/v1/versions").json()
        shown = client.get("/v1/versions/v1").json()["provenance"]
        assert [one["author"] for one in entries] == [SECRET[0], "grace", SECRET[0]]
        assert (shown["user"], shown["host"], shown["command"]) == SECRET
        assert client.get("/v1/status").json()["store"] == str(told.store)


def test_a_search_does_not_find_the_user_either(told: Any) -> None:
    for role, count in (("read", 0), ("edit", 0), ("admin", 2)):
        with told.client(told.token(role)) as client:
            found = client.get("/v1/versions", params={"containing": SECRET[0][:5]}).json()
            assert len(found) == count
            assert len(client.get("/v1/versions", params={"containing": "grace"}).json()) == 1


@pytest.mark.parametrize(("role", "author"), [("edit", None), ("admin", SECRET[0])])
def test_what_is_told_live_needs_redaction_too(told: Any, role: Any, author: str | None) -> None:
    with told.client(told.token(role)) as client, client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": editkit"
        with told.client() as owner:
            owner.post("/v1/owner/revert", json={
                "edit_id": told.kit.log()[-1].edit_id, "provenance": {"user": SECRET[0]},
            }).raise_for_status()  # fmt: skip
        until = iter(lines)
        while next(until) != "event: version":
            pass
        entry = json.loads(next(until).removeprefix("data: "))
    assert (entry["operation"], entry["author"]) == ("revert", author)


def test_agents_are_told_no_more(told: Any) -> None:
    async def talk(token: str) -> str:
        async with over_http(told, token) as agent:
            calls = (("log", {}), ("show", {"name": "v1"}), ("status", {}), ("diff", {}))
            found = [await agent.call(name, **arguments) for name, arguments in calls]
            return "".join(str(one.structured_content) + text(one) for one in found)

    for role, is_told in (("read", False), ("edit", False), ("admin", True)):
        said = run(talk(told.token(role)))
        assert all((secret in said) == is_told for secret in (*SECRET, str(told.store.parent)))


def test_an_error_of_the_store_does_not_say_where_it_lies(told: Any) -> None:
    told.store.rename(told.store.with_name("moved.db"))
    with told.client(told.token("edit")) as client:
        said = client.post("/v1/edits", json={"prompt": "sea", "target": "sky"})
    assert said.json()["error"]["code"] == "store_gone"
    assert str(told.store.parent) not in said.text
    told.store.with_name("moved.db").rename(told.store)
