"""Replaying over HTTP: onto the running model, and onto another one beside it."""

from __future__ import annotations

import time
from typing import Any

import pytest

import editkit
from editkit_store.records import Replayed, ReplayPlan

CAT = "The red cat is"


@pytest.fixture
def taught(server: Any) -> Any:
    """A server with two edits, the first of them tagged."""
    server.add(CAT, "blue")
    server.add("tall tree", "gold")
    server.kit.tag("v1", "checked")
    return server


def test_the_own_history_is_restored_and_the_replay_is_an_entry_of_the_log(taught):
    with taught.client() as client:
        said = client.post("/v1/replay", json={"reason": "to be sure"})
        assert said.status_code == 200, said.text
        done = Replayed.model_validate(said.json())
        assert (done.restored, done.learned, done.failed, done.version) == (2, 0, 0, "v2")
        (entry,) = client.get("/v1/versions", params={"limit": 1}).json()
        assert (entry["operation"], entry["reason"]) == ("replay", "to be sure")


def test_a_plan_says_what_would_be_done_and_writes_nothing(taught):
    before = taught.kit.store.history.count()
    with taught.client() as client:
        said = client.post("/v1/replay", json={"dry_run": True, "only": "checked"}).json()
    plan = ReplayPlan.model_validate(said)
    assert [(one.prompt, one.action) for one in plan.edits] == [(CAT, "restore")]
    assert taught.kit.store.history.count() == before


def test_another_model_learns_beside_the_running_one_and_progress_can_be_followed(
    taught, other_model
):
    body = {"model": other_model, "wait": False}
    with taught.client() as client:
        plan = ReplayPlan.model_validate(
            client.post("/v1/replay", json={"model": other_model, "dry_run": True}).json()
        )
        assert (plan.restored, plan.to_learn) == (0, 2)
        asked = client.post("/v1/replay", json=body)
        assert asked.status_code == 202
        place = asked.headers["Location"]
        assert asked.json()["kind"] == "replay"
        deadline = time.monotonic() + 60
        while (operation := client.get(place).json())["state"] in ("waiting", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert operation["state"] == "done", operation
        assert (operation["done"], operation["total"]) == (2, 2)
        assert (operation["result"]["learned"], operation["result"]["restored"]) == (2, 0)
        # The running model goes on as before, and the history is whole.
        said = client.post("/v1/generate", json={"prompts": [CAT], "max_new_tokens": 4}).json()
        assert said[0]["text"] == "blue"
        taught.add("one two", "gold")
        assert client.get("/v1/verify").json()["ok"]
    taught.stop()
    with editkit.open(taught.store, model=other_model, missing="skip") as kit:
        assert kit.generate(CAT, max_new_tokens=4).text == "blue"


def test_replaying_takes_an_admin_and_a_folder_as_model_the_owner(taught, other_model):
    with taught.client(taught.token("edit")) as client:
        assert client.post("/v1/replay").status_code == 403
        assert client.post("/v1/replay", json={}).status_code == 403
    with taught.client(taught.token("admin")) as client:
        assert client.post("/v1/replay", json={}).status_code == 200
        refused = client.post("/v1/replay", json={"model": other_model})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "owner_only")
        unknown = client.post("/v1/replay", json={"model": "no-such-model-at-all"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "unknown_model")
        wrong = client.post("/v1/replay", json={"to": "v9"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "unknown_version")
