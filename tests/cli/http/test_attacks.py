"""What somebody who should not get in tries, against a real server."""

from __future__ import annotations

import copy
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editkit_cli.service.limits import Limits
from editkit_cli.service.owner import owner_path
from editkit_cli.service.tokens import TokenFile, tokens_path

CAT = "The red cat is"
ASK = {"prompts": [CAT], "max_new_tokens": 1}
EDIT = {"prompt": CAT, "target": "blue"}


def raw(server: Any, text: str) -> bytes:
    """Sends bytes as no client would, and returns what comes back."""
    with socket.create_connection((server.owner.host, server.owner.port), timeout=10) as wire:
        wire.sendall(text.replace("\n", "\r\n").encode("latin-1"))
        wire.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: wire.recv(65536), b""))


@pytest.fixture(scope="module")
def paths(calm: Any) -> list[tuple[str, str]]:
    with calm.client() as client:
        document = client.get("/openapi.json").json()
    return [(method.upper(), path) for path, known in document["paths"].items() for method in known]


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer wrong", "Basic b3duZXI6", "bearer ek-owner-", "Bearer "
     + "x" * 5000, "Bearer \xe9"],
)  # fmt: skip
def test_a_stranger_gets_in_nowhere(calm, paths, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    with calm.stranger(headers) as client:
        for method, path in paths:
            if path in ("/healthz", "/v1/session"):  # the latter is tried in test_page.py
                continue
            said = client.request(method, path.replace("{", "").replace("}", ""), json={})
            assert said.status_code == 401, path
            assert said.json()["error"]["code"] == "invalid_api_key"
            assert said.headers["WWW-Authenticate"].startswith("Bearer")
        assert client.get("/openapi.json").status_code == 401
        assert client.get("/no/such/path").status_code == 401, "not even which paths there are"


def test_the_health_of_the_server_tells_a_stranger_nothing_else(calm):
    with calm.stranger() as client:
        said = client.get("/healthz")
    assert (said.status_code, said.json()) == (200, {"status": "ok", "proof": None})
    assert calm.model not in str(said.headers)


def test_a_role_may_do_what_it_says_and_no_more(server):
    may = {
        ("POST", "/v1/generate", "read"): ASK,
        ("GET", "/v1/edits", "read"): None,
        ("POST", "/v1/explain", "read"): {"prompt": CAT},
        ("POST", "/v1/edits", "edit"): EDIT,
        ("POST", "/v1/edits/batch", "edit"): {"edits": [EDIT]},
        ("POST", "/v1/rollback", "edit"): {"version": "v0"},
        ("POST", "/v1/undo", "edit"): {},
        ("POST", "/v1/versions/tag", "admin"): {"version": "v0", "name": "prod"},
    }
    roles = ("read", "edit", "admin")
    for number, role in enumerate(roles):
        with server.client(server.token(role)) as client:
            for (method, path, needed), body in may.items():
                said = client.request(method, path, json=body)
                if roles.index(needed) <= number:
                    assert said.status_code < 300, (role, path, said.text)
                else:
                    assert said.status_code == 403, (role, path)
                    assert said.json()["error"]["code"] == "role"
    with server.client() as client:
        authors = {one["author"] for one in client.get("/v1/versions").json()}
    assert {"edit", "admin"} <= authors, "what was done is written down under the token's name"


def test_a_token_that_was_revoked_is_refused_at_once(server):
    tokens = TokenFile(server.store)
    made = tokens.create("bot", "edit")
    with server.client(made.token) as client:
        assert client.get("/v1/status").status_code == 200
        tokens.revoke("bot")
        assert client.get("/v1/status").status_code == 401


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_token_that_was_revoked_hears_nothing_more(server, is_silent):
    tokens = TokenFile(server.store)
    made = tokens.create("ear", "read")
    with server.client(made.token) as client, client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        tokens.revoke("ear")
        if not is_silent:
            server.add(CAT, "blue")
        # It ends at the next look, long before the heartbeat.
        assert [line for line in lines if line] == []
    assert server.metric("listeners") == 0


def test_a_client_cannot_pretend_to_another_command_line(server):
    with server.client(server.token("edit", "mallory")) as client:
        client.post("/v1/edits", json=EDIT, headers={"X-Editkit-Command": "editkit add"})
    with server.client() as client:  # the owner's: command lines are shown to an admin only
        shown = client.get("/v1/versions/v1").json()
        assert shown["provenance"]["command"] == "POST /v1/edits (token 'mallory')"
        client.post("/v1/undo", headers={"X-Editkit-Command": "editkit undo"})
        assert client.get("/v1/versions/v2").json()["provenance"]["command"] == "editkit undo"


def test_tokens_are_stored_hashed_in_files_that_only_their_owner_reads(server):
    made = TokenFile(server.store).create("bot", "read")
    for path in (tokens_path(server.store), owner_path(server.store)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.token not in tokens_path(server.store).read_text()
    assert made.token not in repr(made)
    assert server.owner.token not in repr(server.owner)
    with server.client(made.token) as client:
        client.post("/v1/generate", json=ASK)
        for place in ("/v1/status", "/v1/versions", "/metrics", "/v1/operations", "/openapi.json"):
            assert made.token not in client.get(place).text
    for file in server.store.parent.iterdir():  # not in the history either
        if file != owner_path(server.store):
            assert made.token.encode() not in file.read_bytes()
            assert server.owner.token.encode() not in file.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="permissions are elsewhere there")
def test_a_file_of_tokens_that_others_could_have_written_lets_nobody_in(server):
    token = server.token("admin")
    tokens_path(server.store).chmod(0o666)
    with server.client(token) as client:
        said = client.get("/v1/status")
        assert (said.status_code, said.json()["error"]["code"]) == (503, "tokens_unreadable")
        assert str(server.store) not in said.text
    with server.client() as client:
        assert client.get("/v1/status").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8377", "127.0.0.1.evil.example", "localhost@evil", "",
             "[::1", "127.0.0.1, evil.example", "0.0.0.0", "2130706433"],
)  # fmt: skip
def test_a_name_that_was_made_to_resolve_to_us_is_refused(calm, host):
    with calm.client(Host=host) as client:
        for path in ("/v1/status", "/healthz"):
            said = client.get(path)
            assert said.status_code in (400, 403)
            if said.status_code == 403:
                assert said.json()["error"]["code"] == "wrong_host"


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:1", "[::1]:9"])
def test_the_names_of_loopback_are_its_own(calm, host):
    with calm.client(Host=host) as client:
        assert client.get("/v1/status").status_code == 200


def test_two_hosts_or_none_are_refused(calm):
    key = f"Authorization: Bearer {calm.session}"
    for hosts in ("", "Host: localhost\nHost: evil.example\n"):
        said = raw(calm, f"GET /v1/status HTTP/1.1\n{hosts}{key}\nConnection: close\n\n")
        assert said.split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://{host}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_a_page_elsewhere_cannot_send_requests_here(calm, headers):
    place = f"{calm.owner.host}:{calm.owner.port}"
    given = {name: value.replace("{host}", place) for name, value in headers.items()}
    with calm.client(**given) as client:
        for said in (client.post("/v1/edits", json=EDIT), client.get("/v1/edits"),
                     client.options("/v1/edits")):  # fmt: skip
            assert (said.status_code, said.json()["error"]["code"]) == (403, "wrong_origin")
            assert "access-control-allow-origin" not in said.headers
    assert calm.kit.version == "v1"


def test_our_own_page_and_origins_let_in_may(start):
    server = start(origins=["https://app.example/"])
    allowed = "Access-Control-Allow-Origin"
    with server.client(Origin=server.url) as client:
        said = client.get("/v1/status")
        assert said.status_code == 200
        assert allowed not in said.headers
    with server.client(Origin="https://app.example") as client:
        said = client.get("/v1/status")
        assert (said.status_code, said.headers[allowed]) == (200, "https://app.example")
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "prefer"}
    for origin, status in (("https://app.example", 200), ("https://evil.example", 400)):
        with server.stranger({"Origin": origin, **asks}) as client:
            said = client.options("/v1/edits")
        assert (said.status_code, said.headers.get(allowed) == origin) == (status, status == 200)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_form_on_a_page_elsewhere_is_no_request(calm, kind):
    with calm.client() as client:
        headers = {"Content-Type": kind}
        said = client.post("/v1/edits", content=json.dumps(EDIT), headers=headers)
        assert (said.status_code, said.json()["error"]["code"]) == (415, "not_json")
    assert calm.kit.version == "v1"


def test_bodies_prompts_and_batches_have_a_limit(start):
    small = Limits(body_bytes=2000, prompt_chars=100, edits=2, grace=1)
    server = start(limits=small)
    with server.client() as client:

        def refused(path: str, status: int, code: str, **how: Any) -> None:
            said = client.post(path, **how)
            assert (said.status_code, said.json()["error"]["code"]) == (status, code)

        refused("/v1/edits", 413, "body_too_large", json={**EDIT, "reason": "x" * 2000})
        chunks = (b"{" + b" " * 999 for _ in range(10))
        refused("/v1/edits", 413, "body_too_large", content=chunks,
                headers={"Content-Type": "application/json"})  # fmt: skip
        refused("/v1/edits", 400, "too_long", json={**EDIT, "prompt": "x" * 101})
        refused("/v1/edits", 400, "too_long", json={**EDIT, "rephrases": ["x" * 50] * 3})
        refused("/v1/edits/batch", 400, "too_many", json={"edits": [EDIT] * 3})
        refused("/v1/generate", 400, "too_long", json={"prompts": ["x" * 60] * 2})
        refused("/v1/explain", 400, "too_long", json={"prompt": "x" * 101})
        many = {"model": server.model, "prompt": ["x"] * 16, "n": 2}
        refused("/v1/completions", 400, "too_many", json=many)
        turns = {"model": server.model, "messages": [{"role": "user", "content": "x" * 101}]}
        refused("/v1/chat/completions", 400, "too_long", json=turns)
    assert server.kit.version == "v0"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"prompt": NaN}',
             b'{"prompt": 1e999, "target": {}}', b'{"prompt": "\\ud800", "target": "x"}',
             b'{"prompt": "x", "target": "\\u0000"}'],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused_without_a_500(calm, body):
    with calm.client(**{"Content-Type": "application/json"}) as client:
        for path in ("/v1/edits", "/v1/completions", "/v1/explain", "/v1/rollback"):
            said = client.post(path, content=body)
            assert said.status_code == 400, (path, said.text)
            assert said.json()["error"]["message"]


TURN = [{"role": "user", "content": "x", "name": "x", "refusal": "x"}]
WHOLE: dict[str, Any] = {
    "/v1/edits": {"prompt": "x", "target": "x", "kind": "x", "method": "x", "subject": "x",
                  "rephrases": ["x"], "locality": ["x"], "chat": TURN, "scope": "x", "reason": "x",
                  "author": "x", "source": "x", "agent": "x", "conversation": "x",
                  "idempotency_key": "x", "on_failure": "x", "x": "x"},
    "/v1/edits/batch": {"edits": [{"prompt": "x", "target": "x", "x": "x"}], "on_conflict": "x"},
    "/v1/edits/00/revert": {"reason": "x", "author": "x", "x": "x"},
    "/v1/rollback": {"version": "x", "reason": "x", "author": "x"},
    "/v1/undo": {"reason": "x", "author": "x"},
    "/v1/redo": {"reason": "x"},
    "/v1/versions/tag": {"version": "x", "name": "x"},
    "/v1/generate": {"prompts": ["x"], "system": "x", "version": "x"},
    "/v1/explain": {"prompt": "x", "chat": TURN, "version": "x"},
    "/v1/completions": {"model": "x", "prompt": ["x"], "stop": ["x"], "user": "x", "suffix": "x",
                        "metadata": {"x": "x"}, "logit_bias": {"x": 1}, "service_tier": "x"},
    "/v1/chat/completions": {"model": "x", "messages": TURN, "stop": "x", "tools": ["x"],
                             "response_format": {"type": "x"}, "modalities": ["x"]},
}  # fmt: skip


def texts(body: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every text of a body, keys too, as where it is."""
    for place, value in body.items() if isinstance(body, dict) else enumerate(body):
        if isinstance(value, dict | list):
            yield from texts(value)
        yield body, place


@given(data=st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
def test_half_a_character_is_refused_in_every_field(calm, data):
    r"""JSON can spell `\ud800`, which no text holds."""
    path = data.draw(st.sampled_from(sorted(WHOLE)))
    body = copy.deepcopy(WHOLE[path])
    parent, place = data.draw(st.sampled_from(list(texts(body))))
    half = data.draw(st.sampled_from(["\ud800", "x\udfff", "\ude00\ud83d x"]))
    if data.draw(st.booleans()) and isinstance(parent, dict):
        parent[half] = parent.pop(place)
    else:
        parent[place] = half
    with calm.client(**{"Content-Type": "application/json"}) as client:
        said = client.post(path, content=json.dumps(body))
    assert said.status_code == 400, said.text
    assert said.json()["error"]["message"]


@pytest.mark.parametrize(
    "place", ["/v1/diff?from=%s", "/v1/diff?probe=%s", "/v1/edits?version=%s", "/v1/edits/%s",
              "/v1/versions?at=%s", "/v1/versions/%s", "/v1/verify?head=%s", "/v1/models/%s",
              "/v1/operations?before=%s", "/v1/operations/%s", "/healthz?nonce=%s"],
)  # fmt: skip
def test_half_a_character_in_an_address_is_no_500(calm, place):
    with calm.client() as client:
        for half in ("%ED%A0%80", "%FF", "%5Cud800"):
            assert client.get(place % half).status_code < 500


def test_an_edit_whose_prompt_is_a_script_stays_text(server):
    script = "<script>alert(1)</script>"
    server.add(script, "blue", reason=script, author=script)
    with server.client() as client:
        for path in ("/v1/edits", "/v1/versions", "/v1/diff"):
            said = client.get(path)
            assert said.headers["Content-Type"] == "application/json"
            assert said.headers["X-Content-Type-Options"] == "nosniff"
            assert script in said.text


def test_a_failure_tells_the_client_nothing_and_the_log_no_secret(server, monkeypatch, caplog):
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a detail of the machine: /home/ada")

    monkeypatch.setattr(type(server.kit), "status", broken)
    with server.client() as client:
        said = client.get("/v1/status")
    assert (said.status_code, said.json()["error"]["code"]) == (500, "internal_error")
    assert "/home/ada" not in said.text
    server.stop()
    assert "a detail of the machine" in caplog.text
    assert server.owner.token not in caplog.text


def test_the_server_and_what_it_serves_with_load_no_pickle():
    """Nothing here unpickles: the word itself does not occur."""
    import editkit_cli.service

    rooms = Path(str(editkit_cli.service.__file__)).parents[1]
    files = [file for room in ("service", "http", "mcp") for file in (rooms / room).rglob("*.py")]
    assert files
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not any(word in text for word in ("pickle", "torch.load", "eval(", "exec(")), file


def test_methods_without_number_do_not_fill_the_metrics(server):
    with server.client() as client:
        for number in range(5):
            client.request(f"XX{number}", "/nope")
        said = client.get("/metrics").text
    assert "XX" not in said
    assert 'method="other"' in said


def test_tokens_are_those_of_the_store_under_all_its_names(server, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(server.store)
    secret = TokenFile(link).create("by link", "read").token
    with server.client(secret) as client:
        assert client.get("/v1/status").status_code == 200
        assert client.get("/v1/verify").status_code == 403, "it makes changes wait"
