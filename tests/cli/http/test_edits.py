"""Correcting over HTTP: at once or to follow, once however often it is sent, and taken back."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from editkit_cli.service.limits import Limits
from editkit_store.errors import StoreError
from editkit_store.records import Added, Edit, EditRequest, LogEntry, Shown, ViewChanged

CAT = "The red cat is"


def followed(client: Any, place: str) -> dict[str, Any]:
    """Waits for an operation to end."""
    deadline = time.monotonic() + 60
    while True:
        said = client.get(place).json()
        if said["state"] in ("done", "failed") or time.monotonic() > deadline:
            return dict(said)
        time.sleep(0.02)


def test_an_edit_is_learned_verified_logged_and_live(server):
    with server.client() as client:
        said = client.post("/v1/edits", json={"prompt": CAT, "target": "blue", "before": True,
                                              "reason": "it is", "author": "ada"})  # fmt: skip
        assert said.status_code == 201
        added = Added.model_validate(said.json())
        assert (added.version, added.verified, added.answer) == ("v1", True, "blue")
        assert added.before is not None
        assert said.json() == added.model_dump(mode="json")
        assert said.headers["Location"] == f"/v1/edits/{added.edit.id}"
        edit = client.get(said.headers["Location"])
        assert Edit.model_validate(edit.json()) == added.edit
        (entry,) = client.get("/v1/versions").json()
        assert LogEntry.model_validate(entry).author == "ada"
        shown = Shown.model_validate(client.get("/v1/versions/v1").json())
        assert shown.provenance is not None
        assert shown.provenance.command == "POST /v1/edits"
        assert shown.provenance.reason == "it is"
        (said,) = client.post("/v1/generate", json={"prompts": [CAT]}).json()
        assert (said["text"], said["version"], said["fired"]) == ("blue", "v1", [added.edit.id])


def test_every_field_of_a_request_can_be_sent(server):
    sent = {
        "prompt": CAT, "target": "blue", "kind": "fact", "method": "grace", "subject": "cat",
        "rephrases": ["red cat"], "locality": ["see Oslo"], "scope": "strict", "reason": "r",
        "author": "a", "source": "s", "agent": "g", "conversation": "c", "idempotency_key": "k",
    }  # fmt: skip
    assert {*sent, "chat"} == set(EditRequest.model_fields)
    with server.client() as client:
        said = client.post("/v1/edits", json=sent).json()
        assert {name: said["edit"][name] for name in sent} == sent
        assert said["reach"]["radius"] < 0.8


def test_an_edit_may_be_followed_instead_of_waited_for(server):
    with server.client() as client:
        body = {"prompt": CAT, "target": "blue"}
        for how in ({"headers": {"Prefer": "respond-async"}, "json": body},
                    {"json": {**body, "wait": False}}):  # fmt: skip
            said = client.post("/v1/edits", **how)
            assert said.status_code == 202
            assert said.json()["state"] in ("waiting", "running", "done")
            assert said.headers["Location"] == f"/v1/operations/{said.json()['id']}"
            done = followed(client, said.headers["Location"])
            assert done["state"] == "done"
            assert Added.model_validate(done["result"]).verified
        known = client.get("/v1/operations").json()
        assert [one["kind"] for one in known] == ["add", "add"]
        assert client.get("/v1/operations/op-none").status_code == 404
        newest, oldest = (one["id"] for one in known)
        for query, ids in (
            ("limit=1", [newest]),
            (f"before={newest}", [oldest]),
            (f"before={oldest}", []),
            (f"before={newest}&limit=1", [oldest]),
        ):
            page = client.get(f"/v1/operations?{query}")
            assert [one["id"] for one in page.json()] == ids
            assert page.headers["X-Total-Count"] == "2"
        assert client.get("/v1/operations?before=op-none").status_code == 404


def test_one_key_is_one_edit_however_often_it_is_sent(server):
    body = {"prompt": CAT, "target": "blue"}
    with server.client() as client:
        first = client.post("/v1/edits", json=body, headers={"Idempotency-Key": "k1"})
        again = client.post("/v1/edits", json={**body, "idempotency_key": "k1"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json()["outcome"] == "known"
        assert again.json()["edit"]["id"] == first.json()["edit"]["id"]
        other = client.post(
            "/v1/edits", json={**body, "target": "gold"}, headers={"Idempotency-Key": "k1"}
        )
        assert (other.status_code, other.json()["error"]["code"]) == (409, "key_reused")
        both = client.post(
            "/v1/edits", json={**body, "idempotency_key": "k2"}, headers={"Idempotency-Key": "k3"}
        )
        assert both.status_code == 400
        assert len(client.get("/v1/versions").json()) == 1


def test_a_key_sent_from_many_threads_at_once_is_one_edit(server):
    said: list[Any] = []

    def send() -> None:
        with server.client() as client:
            said.append(client.post("/v1/edits", json={"prompt": CAT, "target": "blue"},
                                    headers={"Idempotency-Key": "k"}))  # fmt: skip

    threads = [threading.Thread(target=send) for _ in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(one.status_code for one in said) == [200, 200, 200, 200, 201]
    assert len({one.json()["edit"]["id"] for one in said}) == 1


def test_many_edits_go_in_one_request(server):
    edits = [{"prompt": CAT, "target": "blue"}, {"prompt": "tall tree", "target": "gold"}]
    with server.client() as client:
        said = client.post("/v1/edits/batch", json={"edits": edits})
        assert said.status_code == 200
        assert [Added.model_validate(one).version for one in said.json()] == ["v1", "v2"]
        listed = client.get("/v1/edits")
        assert [one["target"] for one in listed.json()] == ["blue", "gold"]
        assert listed.headers["X-Total-Count"] == "2"
        assert [e["target"] for e in client.get("/v1/edits?limit=1&offset=1").json()] == ["gold"]
        assert client.get("/v1/edits?version=v1").headers["X-Total-Count"] == "1"
        wrong = [*edits, {"prompt": "x", "target": " "}]
        refused = client.post("/v1/edits/batch", json={"edits": wrong})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "target"
        assert client.get("/v1/status").json()["version"] == "v2", "nothing of it was learned"


@pytest.mark.parametrize("how", ["revert", "delete"])
def test_an_edit_is_taken_back(server, how):
    first, second = server.add(CAT, "blue")["edit"], server.add("tall tree", "gold")["edit"]
    with server.client() as client:
        place = f"/v1/edits/{first['id'][:12]}"
        said = client.post(f"{place}/revert") if how == "revert" else client.delete(place)
        assert said.status_code == 200
        changed = ViewChanged.model_validate(said.json())
        assert (changed.version, changed.view, changed.operation) == ("v3", 1, "revert")
        assert [one["id"] for one in client.get("/v1/edits").json()] == [second["id"]]
        assert client.get(place).json()["status"] == "reverted"
        again = client.delete(place)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "not_active")
        none = client.delete("/v1/edits/ffff")
        assert (none.status_code, none.json()["error"]["code"]) == (404, "unknown_edit")


def test_an_edit_that_does_not_verify_is_told_as_such(server):
    target = "zq" * 40  # the tiny model cannot spell
    with server.client() as client:
        said = client.post("/v1/edits", json={"prompt": CAT, "target": target})
        assert said.status_code == 201
        assert (said.json()["verified"], said.json()["edit"]["status"]) == (False, "failed")
        assert client.get("/v1/status").json()["edits"] == 0


def test_a_contradiction_may_be_refused_or_left_out(server):
    server.add(CAT, "blue")
    body = {"prompt": CAT, "target": "gold"}
    with server.client() as client:
        refused = client.post("/v1/edits", json={**body, "on_conflict": "error"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "contradicts_edit")
        kept = client.post("/v1/edits", json={**body, "on_conflict": "keep"})
        assert (kept.status_code, kept.json()["outcome"]) == (200, "kept")


def test_what_is_wrong_with_an_edit_is_told_before_it_waits(calm):
    with calm.client() as client:
        for body, param in (
            ({"target": "x"}, "prompt"),
            ({"prompt": CAT}, "target"),
            ({"prompt": CAT, "target": "\u200b"}, "target"),
            ({"prompt": CAT, "target": "x", "colour": 1}, "colour"),
            ({"prompt": CAT, "target": "x", "kind": "poem"}, "kind"),
            ({"prompt": "red " * 300, "target": "x"}, "prompt"),
            ({"prompt": CAT, "target": "x", "reason": "x" * 10_001}, "reason"),
            ({"prompt": CAT, "target": "x", "subject": "x" * 1001}, "subject"),
            ({"prompt": CAT, "target": "x", "source": "x" * 1001}, "source"),
            ({"prompt": CAT, "target": "x", "author": "x" * 201}, "author"),
            ({"prompt": CAT, "target": "x", "agent": "x" * 201}, "agent"),
            ({"prompt": CAT, "target": "x", "conversation": "x" * 201}, "conversation"),
        ):
            said = client.post("/v1/edits", json=body, headers={"Prefer": "respond-async"})
            assert said.status_code == 400
            assert said.json()["error"]["param"] == param
        assert client.get("/v1/status").json()["version"] == "v1"


def test_a_line_of_changes_that_is_full_answers_429(start):
    server = start(limits=Limits(waiting_writes=1, grace=5))
    wait = {"Prefer": "respond-async"}
    with server.client() as client:
        said = [
            client.post("/v1/edits", json={"prompt": f"{CAT} {n}", "target": "blue"}, headers=wait)
            for n in range(8)
        ]
        codes = [one.status_code for one in said]
        assert set(codes) == {202, 429}
        busy = said[codes.index(429)]
        assert int(busy.headers["Retry-After"]) >= 1
        taken = [one.headers["Location"] for one in said if one.status_code == 202]
        assert all(followed(client, place)["state"] == "done" for place in taken)
        assert client.get("/v1/status").json()["edits"] == len(taken)


def test_a_change_that_takes_longer_than_the_limit_goes_on_and_can_be_followed(start):
    server = start(limits=Limits(seconds=1e-3, grace=5))
    with server.client() as client:
        said = client.post("/v1/edits", json={"prompt": CAT, "target": "blue"})
        assert said.status_code == 202
        assert followed(client, said.headers["Location"])["state"] == "done"


def test_a_change_that_the_store_fails_leaves_the_next_ones_their_turn(server, monkeypatch):
    plain = server.kit.store.history.count

    def broken():
        raise StoreError("the disk is gone", path=server.store)

    with server.client() as client:
        monkeypatch.setattr(server.kit.store.history, "count", broken)
        assert client.post("/v1/edits", json={"prompt": CAT, "target": "blue"}).status_code >= 500
        monkeypatch.setattr(server.kit.store.history, "count", plain)
        assert client.post("/v1/edits", json={"prompt": CAT, "target": "blue"}).status_code == 201
