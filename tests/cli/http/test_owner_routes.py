"""What only the owner may ask: the command line on the same machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_gpt2, tiny_tokenizer

import editkit

ASKED = [
    ("GET", "", {}),
    ("POST", "/session", {}),
    ("GET", "/log", {}),
    ("GET", "/show?name=v1", {}),
    ("GET", "/resolve?version=v1", {}),
    ("POST", "/check", {"prompt": "sea", "target": "sky"}),
    ("POST", "/adjust", {"edit_id": "ffff", "not": ["see Oslo"]}),
    ("POST", "/revert", {"edit_id": "ffff"}),
    ("POST", "/sql", {"query": "SELECT 1"}),
    ("POST", "/codebook", {"path": "/nowhere/x.png", "version": "@"}),
    ("POST", "/export", {"path": "/nowhere/x", "to": "@", "tool": "x"}),
    ("POST", "/import", {"path": "/nowhere/x"}),
    ("POST", "/compact", {}),
]


def test_every_route_of_the_owner_is_tried_here(calm: Any) -> None:
    from editkit_cli.http.routes.owner import router

    paths = {(method, route.path) for route in router.routes for method in route.methods}
    assert paths == {(method, "/v1/owner" + path.partition("?")[0]) for method, path, _ in ASKED}


@pytest.mark.parametrize(("method", "path", "body"), ASKED, ids=lambda one: str(one)[:20])
def test_an_admins_token_does_not_open_what_is_the_owners(
    calm: Any, tmp_path: Path, method: str, path: str, body: dict[str, Any]
) -> None:
    with calm.client(calm.token("admin", f"{method} {path}"[:60])) as client:
        said = client.request(method, f"/v1/owner{path}", json=body or None)
        assert (said.status_code, said.json()["error"]["code"]) == (403, "owner_only")
    with calm.client() as client:
        assert "/v1/owner" not in str(client.get("/openapi.json").json()["paths"])


@pytest.mark.parametrize("path", ["/codebook", "/export", "/import"])
def test_a_path_that_depends_on_a_working_folder_is_refused(calm: Any, path: str) -> None:
    body = {"path": "some/folder", "version": "@", "to": "@", "tool": "x"}
    wanted = {"/codebook": ("path", "version"), "/export": ("path", "to", "tool"),
              "/import": ("path",)}[path]  # fmt: skip
    with calm.client() as client:
        said = client.post(f"/v1/owner{path}", json={name: body[name] for name in wanted})
    assert (said.status_code, said.json()["error"]["param"]) == (400, "path")


def test_who_asked_and_how_is_the_owners_word_only(calm: Any) -> None:
    body = {"provenance": {"author": "somebody else"}}
    with calm.client(calm.token("edit", "pretender")) as client:
        for path, more in (
            ("/v1/undo", {}),
            ("/v1/rollback", {"version": "v0"}),
            ("/v1/edits", {"prompt": "sea", "target": "sky"}),
            ("/v1/edits/batch", {"edits": [{"prompt": "sea", "target": "sky"}]}),
        ):
            said = client.post(path, json={**body, **more})
            assert (said.status_code, said.json()["error"]["code"]) == (403, "owner_only")


def test_a_bundle_of_another_model_changes_nothing_and_says_what_would(
    server: Any, tmp_path: Path
) -> None:
    with editkit.open(tmp_path / "theirs.db", model=(tiny_gpt2(), tiny_tokenizer())) as theirs:
        theirs.add("tall tree", "gold")
        theirs.export_bundle(tmp_path / "bundle")
    server.add("The red cat is", "blue")
    with server.client() as client:
        said = client.post("/v1/owner/import", json={"path": str(tmp_path / "bundle")})
        assert said.status_code == 409, said.text
        error = said.json()["error"]
        assert error["code"] == "artifacts_missing"
        assert "`editkit import`, and `editkit replay`" in error["hint"]
        assert [one["operation"] for one in client.get("/v1/versions").json()] == ["add"]
        asked = {"prompts": ["The red cat is"], "max_new_tokens": 4}
        assert client.post("/v1/generate", json=asked).json()[0]["text"] == "blue"
        assert client.get("/v1/verify").json()["ok"]
    server.add("four dogs: ", "white")  # the writer goes on
