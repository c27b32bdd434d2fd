"""Adjusting over HTTP: who may, what is refused, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli.http.test_edits import CAT, followed

from editkit_store.records import Adjusted, LogEntry

FAR, NEAR = "tall tree", "The red cat was"


def fired(client: Any, prompt: str) -> list[str]:
    (said,) = client.post("/v1/generate", json={"prompts": [prompt]}).json()
    return list(said["fired"])


def test_an_adjustment_is_verified_logged_and_live(server: Any) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]
    with server.client() as client:
        sent = {"also": [FAR], "not": [NEAR], "reason": "seen", "author": "ada"}
        said = client.post(f"/v1/edits/{edit}/adjust", json=sent)
        assert said.status_code == 200
        done = Adjusted.model_validate(said.json())
        assert said.json() == done.model_dump(mode="json")
        assert (done.version, done.verified, said.json()["not"]) == ("v2", True, [NEAR])
        assert (fired(client, FAR), fired(client, NEAR)) == ([edit], [])
        entry = LogEntry.model_validate(client.get("/v1/versions").json()[0])
        assert (entry.operation, entry.author, entry.reason) == ("adjust", "ada", "seen")
        found = client.get("/v1/diff?from=v1&to=v2").json()["adjusted"]
        assert [(one["prompt"], one["after"]) for one in found] == [(FAR, "also"), (NEAR, "not")]
        again = client.post(f"/v1/edits/{edit}/adjust", json=sent).json()
        assert (again["outcome"], again["version"]) == ("known", "v2")
        client.post("/v1/undo", json={})
        assert (fired(client, FAR), fired(client, NEAR)) == ([], [edit])


def test_an_adjustment_can_be_followed(server: Any) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]
    with server.client() as client:
        said = client.post(
            f"/v1/edits/{edit[:8]}/adjust", json={"also": [FAR]},
            headers={"Prefer": "respond-async"},
        )  # fmt: skip
        assert said.status_code == 202
        ended = followed(client, said.headers["Location"])
        assert (ended["kind"], ended["state"]) == ("adjust", "done")
        assert Adjusted.model_validate(ended["result"]).version == "v2"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"also": [], "not": []}, 400, "invalid_request"),
        ({"also": [""]}, 400, "invalid_request"),
        ({"also": ["see Oslo"], "not": ["SEE oslo?"]}, 400, "invalid_request"),
        ({"not": [CAT.upper()]}, 400, "invalid_request"),
        ({"not": "see Oslo"}, 400, None),
        ({"not": [1]}, 400, None),
        ({"also": ["\ud800"]}, 400, None),
        ({"also": ["x"], "unless": ["y"]}, 400, None),
        ({"also": ["x"], "on_failure": "drop"}, 400, None),
        ({"also": ["x" * 100_001]}, 400, "too_long"),
        ({"also": ["x " * 400]}, 400, "prompt_too_long"),
        ({"also": ["see Oslo"]}, 409, "contradicts_edit"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    server: Any, body: dict[str, Any], status: int, code: str | None
) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]
    server.add("see Oslo", "green")
    with server.client() as client:
        before = client.get("/v1/status").json()["operations"]
        said = client.post(
            f"/v1/edits/{edit}/adjust", content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert said.status_code == status, said.text
        assert code is None or said.json()["error"]["code"] == code
        assert client.get("/v1/status").json()["operations"] == before


def test_only_an_active_edit_is_adjusted(server: Any) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]
    with server.client() as client:
        said = client.post("/v1/edits/ffff/adjust", json={"not": ["x"]})
        assert (said.status_code, said.json()["error"]["code"]) == (404, "unknown_edit")
        client.post(f"/v1/edits/{edit}/revert")
        said = client.post(f"/v1/edits/{edit}/adjust", json={"not": ["x"]})
        assert (said.status_code, said.json()["error"]["code"]) == (409, "not_active")


def test_a_token_that_may_only_read_adjusts_nothing(server: Any) -> None:
    edit = server.add(CAT, "blue")["edit"]["id"]
    with server.client(server.token("read")) as client:
        said = client.post(f"/v1/edits/{edit}/adjust", json={"not": ["x"]})
        assert (said.status_code, said.json()["error"]["code"]) == (403, "role")
        said = client.post("/v1/owner/adjust", json={"edit_id": edit, "not": ["x"]})
        assert (said.status_code, said.json()["error"]["code"]) == (403, "owner_only")
    with server.client(server.token("edit", "bot")) as client:
        assert client.post(f"/v1/edits/{edit}/adjust", json={"not": ["x"]}).status_code == 200
        assert client.get("/v1/versions").json()[0]["author"] == "bot"
