"""The history over HTTP: the same records as on the command line."""

from __future__ import annotations

import json
import threading
from typing import Any

from editkit_cli.service.limits import Limits
from editkit_store.errors import UnknownEdit
from editkit_store.records import Explanation, Status, Verified, ViewChanged
from editkit_store.records.comparisons import Diff

CAT = "The red cat is"


def test_versions_are_rolled_back_undone_redone_and_tagged(server):
    server.add(CAT, "blue")
    server.add("tall tree", "gold")
    with server.client() as client:

        def moved(place: str, **body: Any) -> ViewChanged:
            said = client.post(place, json=body)
            assert said.status_code == 200, said.text
            return ViewChanged.model_validate(said.json())

        assert moved("/v1/rollback", version="v0").view == 0
        assert moved("/v1/undo").view == 2
        assert moved("/v1/redo").view == 0
        assert moved("/v1/rollback", version="v1", reason="better").version == "v6"
        tagged = client.post("/v1/versions/tag", json={"version": "@", "name": "team/prod"})
        assert tagged.json() == {"tag": "team/prod", "version": "v6"}
        assert client.get("/v1/versions/team/prod").json()["version"] == "v6"
        log = client.get("/v1/versions", params={"limit": 2}).json()
        assert [one["operation"] for one in log] == ["tag", "rollback"]
        assert log[1]["reason"] == "better"
        for place, body, status in (
            ("/v1/rollback", {"version": "v99"}, 404),
            ("/v1/rollback", {}, 400),
            ("/v1/redo", {}, 409),
            ("/v1/versions/tag", {"version": "v1", "name": "v2"}, 400),
        ):
            assert client.post(place, json=body).status_code == status
        assert client.post("/v1/undo").status_code == 200, "a body may be left out"


def test_a_diff_is_the_record_of_the_command_line(server):
    edit = server.add(CAT, "blue")["edit"]
    with server.client() as client:
        said = client.get("/v1/diff", params={"from": "v0", "to": "v1", "behavior": True}).json()
        found = Diff.model_validate(said)
        assert said == found.model_dump(mode="json")
        assert (said["from"], said["to"]) == ("v0", "v1")
        assert [one.id for one in found.added] == [edit["id"]]
        assert found.behavior[0].after == "blue"
        assert client.get("/v1/diff", params={"from": "v7"}).status_code == 404


def test_explain_status_and_verify_answer_with_their_records(server):
    edit = server.add(CAT, "blue")["edit"]
    with server.client() as client:
        why = Explanation.model_validate(client.post("/v1/explain", json={"prompt": CAT}).json())
        assert (why.fired, why.version) == (edit["id"], "v1")
        past = client.post("/v1/explain", json={"prompt": CAT, "version": "v0"}).json()
        assert past["fired"] is None
        assert client.post("/v1/explain", json={}).status_code == 400
        status = Status.model_validate(client.get("/v1/status").json())
        assert (status.version, status.edits) == ("v1", 1)
        verified = Verified.model_validate(client.get("/v1/verify").json())
        assert verified.ok
        assert verified.checked > 0


def test_generate_answers_at_any_version_with_the_records_of_the_command_line(server):
    server.add(CAT, "blue")
    with server.client() as client:
        body = {"prompts": [CAT, "one two"], "version": "v0", "max_new_tokens": 5}
        said = client.post("/v1/generate", json=body).json()
        plain = server.kit.generate([CAT, "one two"], version="v0", max_new_tokens=5)
        assert said == [one.model_dump(mode="json") for one in plain]
        turn = {"prompts": ["one"], "chat": True, "system": "Be brief.", "max_new_tokens": 3}
        assert client.post("/v1/generate", json=turn).json()[0]["prompt"] == "one"
        assert client.post("/v1/generate", json={**turn, "chat": False}).status_code == 400


def test_listeners_hear_of_operations_progress_and_versions(server):
    heard: list[tuple[str, str, dict[str, Any]]] = []
    listening = threading.Event()

    def listen() -> None:
        with server.client() as client, client.stream("GET", "/v1/events") as stream:
            event: dict[str, str] = {}
            for line in stream.iter_lines():
                listening.set()
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif "data" in event:
                    heard.append((event["event"], event["id"], json.loads(event["data"])))
                    event = {}
                    if heard[-1][0] == "version":
                        return

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(30)
    edit = server.add(CAT, "blue")["edit"]
    thread.join(30)
    assert not thread.is_alive()
    kinds = [kind for kind, _, _ in heard]
    assert kinds[0] == "operation"
    assert set(kinds) == {"operation", "learning", "version"}
    states = [data["state"] for kind, _, data in heard if kind == "operation"]
    assert states == ["waiting", "running", "done"]
    progress = [data for kind, _, data in heard if kind == "learning"]
    assert (progress[-1]["done"], progress[-1]["total"]) == (1, 1)
    assert (heard[-1][2]["version"], heard[-1][2]["edit_id"]) == ("v1", edit["id"])
    assert [int(number) for _, number, _ in heard] == list(range(1, len(heard) + 1))
    # Whoever was away hears what was missed.
    with server.client() as client:
        missed = {"Last-Event-ID": "1"}
        with client.stream("GET", "/v1/events", headers=missed) as stream:
            assert next(line for line in stream.iter_lines() if line.startswith("id")) == "id: 2"


def test_the_metrics_count_what_was_done(server):
    server.add(CAT, "blue")
    server.openai().completions.create(model=server.model, prompt=CAT)
    with server.client() as client:
        client.get("/v1/nothing/of/the/kind")
        said = client.get("/metrics")
    assert said.headers["Content-Type"].startswith("text/plain")
    lines = said.text.splitlines()
    assert 'editkit_writes_total{kind="add",state="done"} 1.0' in lines
    assert "editkit_fired_total 1.0" in lines
    assert "editkit_generated_tokens_total 2.0" in lines
    assert "editkit_version 1.0" in lines
    assert 'editkit_requests_total{method="GET",route="none",status="404"} 1.0' in lines
    assert 'editkit_requests_total{method="POST",route="/v1/completions",status="200"} 1.0' in lines
    assert "red cat" not in said.text


def test_answers_of_a_comparison_that_take_too_long_are_cut_off(start):
    server = start(limits=Limits(seconds=1e-6, grace=5))
    server.kit.add(CAT, "blue")
    with server.client() as client:
        said = client.get("/v1/diff", params={"from": "v0", "behavior": True})
        assert (said.status_code, said.json()["error"]["code"]) == (504, "time_limit")
        assert client.get("/v1/diff", params={"from": "v0"}).status_code == 200


def test_only_so_many_comparisons_run_at_once(server, monkeypatch):
    from editkit_cli.service import runner

    monkeypatch.setattr(runner, "_PATIENCE", 0.05)
    go, inside = threading.Event(), threading.Semaphore(0)

    def slow(*_: Any, **__: Any) -> Any:
        inside.release()
        go.wait(60)
        raise UnknownEdit("none", text="none")

    monkeypatch.setattr(server.kit, "explain", slow)

    def ask() -> None:
        with server.client() as client:
            client.post("/v1/explain", json={"prompt": CAT})

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert all(inside.acquire(timeout=30) for _ in threads)
        with server.client() as client:
            said = client.post("/v1/explain", json={"prompt": CAT})
            assert (said.status_code, said.json()["error"]["code"]) == (429, "busy")
            assert said.headers["Retry-After"] == "1"
            assert client.get("/v1/status").status_code == 200
    finally:
        go.set()
        for thread in threads:
            thread.join()
