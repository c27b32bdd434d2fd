"""Queries through a server: they change nothing, and end with whoever asked, or with the server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from editkit_cli.service.limits import Limits

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range > b.range"


def running_queries() -> int:
    return sum(one.name == "editkit-query" for one in threading.enumerate())


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_owner_asks_one_select_and_nothing_else(server: Any, tmp_path: Path) -> None:
    server.add("The red cat is", "blue")
    with server.client() as client:
        said = client.post("/v1/owner/sql", json={"query": "SELECT prompt, target FROM edits"})
        assert said.json() == {
            "columns": ["prompt", "target"],
            "rows": [["The red cat is", "blue"]],
        }
        for query in (
            f"COPY (SELECT 1) TO '{server.store}' (FORMAT csv, USE_TMP_FILE false)",
            f"COPY (SELECT 1) TO '{server.store}.wal' (FORMAT blob)",
            f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{server.store}'",
            f"SELECT 1; COPY (SELECT 1) TO '{server.store}'",
            f"PREPARE p AS COPY (SELECT 1) TO '{server.store}'; EXECUTE p",
            "DELETE FROM edits",
            "CHECKPOINT",
            "",
        ):
            said = client.post("/v1/owner/sql", json={"query": query})
            assert (said.status_code, said.json()["error"]["code"]) == (400, "query_failed")
        assert client.get("/v1/verify").json()["ok"]
    server.add("tall tree", "gold")
    assert not list(tmp_path.glob(".history.db-*"))


def test_a_query_that_takes_too_long_is_ended(start: Callable[..., Any]) -> None:
    server = start(limits=Limits(seconds=0.3, grace=5))
    with server.client() as client:
        said = client.post("/v1/owner/sql", json={"query": ENDLESS})
    assert (said.status_code, said.json()["error"]["code"]) == (504, "time_limit")
    until(lambda: running_queries() == 0)


def test_a_query_ends_when_its_client_leaves(server: Any, tmp_path: Path) -> None:
    with server.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/owner/sql", json={"query": ENDLESS}, timeout=1)
    until(lambda: running_queries() == 0)
    until(lambda: not list(tmp_path.glob(".history.db-*")))
    server.add("The red cat is", "blue")


def test_the_end_of_the_server_is_the_end_of_a_query(server: Any, tmp_path: Path) -> None:
    said: list[Any] = []

    def ask() -> None:
        with server.client() as client, contextlib.suppress(httpx.RemoteProtocolError):
            said.append(client.post("/v1/owner/sql", json={"query": ENDLESS}))

    assert server.session
    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: running_queries() == 1)
    server.stop()
    asking.join(60)
    assert [one.json()["error"]["code"] for one in said] == ["closing"]
    assert running_queries() == 0
    assert not list(tmp_path.glob(".history.db-*"))


def test_an_answer_that_is_too_large_is_refused(server: Any) -> None:
    with server.client() as client:
        said = client.post("/v1/owner/sql", json={"query": "SELECT * FROM range(3000000)"})
    assert (said.status_code, said.json()["error"]["code"]) == (400, "query_failed")
    assert "LIMIT" in said.json()["error"]["hint"]


@pytest.mark.parametrize("name", ["history.db", "history.db.wal", "history.db.server"])
def test_what_the_server_is_asked_to_write_is_never_a_part_of_its_store(
    server: Any, name: str
) -> None:
    server.add("The red cat is", "blue")
    where = str(server.store.with_name(name))
    with server.client() as client:
        for path, body in (
            ("/v1/owner/codebook", {"path": where, "version": "@"}),
            ("/v1/owner/export", {"path": where, "to": "@", "tool": "x"}),
        ):
            said = client.post(path, json=body)
            assert said.json()["error"]["code"] == "unsafe_target", said.text
        assert client.get("/v1/verify").json()["ok"]
