"""The page without a browser: its files, its keys, and what it asks the server for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import editkit_cli.http
from editkit_cli.commands.serve import _tell
from editkit_cli.http import page
from editkit_cli.http.page import FILES, PageKeys
from editkit_cli.http.serving import ServerStarted
from editkit_cli.terminal import output
from editkit_cli.terminal.output import Output

WEB = Path(str(editkit_cli.http.__file__)).parent / "web"


def test_every_file_of_the_page_is_served_to_anybody_with_its_type_and_a_strict_policy(calm):
    names = {"/" if one.name == "index.html" else f"/web/{one.name}" for one in WEB.iterdir()}
    assert names == set(FILES)
    types = {"": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
             "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}  # fmt: skip
    for name in names:
        said = httpx.get(calm.url + name)
        assert said.status_code == 200
        assert said.headers["content-type"] == types[name.rpartition(".")[2] if name != "/" else ""]
        assert said.headers["x-content-type-options"] == "nosniff"
        assert said.headers["referrer-policy"] == "no-referrer"
        assert said.headers["cache-control"] == "no-cache"
        policy = said.headers["content-security-policy"].split("; ")
        assert set(policy) == {
            "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
            "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
            "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
        }  # fmt: skip


def test_a_file_that_a_browser_has_is_not_sent_again(calm):
    first = httpx.get(f"{calm.url}/web/app.js")
    again = httpx.get(f"{calm.url}/web/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = httpx.get(f"{calm.url}/web/app.js", headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


@pytest.mark.parametrize("path", ["/web/nothing.js", "/web/../page.py", "/web/%2e%2e/page.py",
                                  "/web/index.html", "/web/"])  # fmt: skip
def test_what_is_no_file_of_the_page_is_not_served(calm, path):
    assert httpx.get(calm.url + path).status_code == 401
    with calm.client() as client:
        assert client.get(path).status_code == 404


def test_the_page_comes_from_here_alone_and_makes_no_markup_of_strings():
    for file in WEB.iterdir():
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"')\s]+", text)) <= {"http://www.w3.org/2000/svg"}
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "new Function", "srcdoc", "javascript:", "localStorage.", "document.cookie",
                     "style=", "onclick=", "<style"):  # fmt: skip
            assert word not in text, (file.name, word)
        lines = text.splitlines()
        assert len(lines) <= 500, file.name
        assert max(map(len, lines)) <= 100, file.name


def test_a_link_is_good_once_and_gives_a_session_of_the_owner(calm):
    with calm.client() as client:
        made = client.post("/v1/session/links")
    assert made.status_code == 200
    assert made.json()["seconds"] == 900
    key = made.json()["path"].removeprefix("/#key=")
    assert calm.owner.token not in made.text
    first = httpx.post(f"{calm.url}/v1/session", json={"key": key})
    assert first.status_code == 200
    token = first.json()["token"]
    assert calm.owner.token not in first.text
    with calm.client(token) as client:
        assert client.get("/v1/whoami").json()["is_owner"]
    assert first.headers["cache-control"] == "no-store"
    for one in (key, "", "x" * 200, calm.owner.token, token):
        again = httpx.post(f"{calm.url}/v1/session", json={"key": one})
        assert (again.status_code, again.json()["error"]["code"]) == (403, "key_refused")
        assert calm.owner.token not in again.text


def test_only_the_owner_makes_links_and_no_page_elsewhere_uses_one(server):
    with server.client(server.token("admin")) as client:
        said = client.post("/v1/session/links")
        assert (said.status_code, said.json()["error"]["code"]) == (403, "role")
    assert httpx.post(f"{server.url}/v1/session/links").status_code == 401
    with server.client() as client:
        key = client.post("/v1/session/links").json()["path"].removeprefix("/#key=")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Host": "evil.example"}, {"X-Forwarded-For": "10.0.0.1"}):  # fmt: skip
        said = httpx.post(f"{server.url}/v1/session", json={"key": key}, headers=headers)
        assert said.status_code == 403
    said = httpx.post(f"{server.url}/v1/session", json={"key": key})
    assert said.status_code == 200, "refusals did not use it up"


def test_keys_end_and_are_not_kept_without_number():
    now = [0.0]
    keys = PageKeys(clock=lambda: now[0])
    old, fresh = (keys.link().removeprefix("/#key=") for _ in range(2))
    now[0] = page.SECONDS - 1
    assert keys.take(fresh)
    now[0] = page.SECONDS
    assert not keys.take(old)
    first = keys.link().removeprefix("/#key=")
    for _ in range(100):
        last = keys.link().removeprefix("/#key=")
    assert (keys.take(first), keys.take(last)) == (False, True)
    assert len(keys._ends) < 100


def test_serve_shows_its_link_at_a_terminal_and_nowhere_else(capsys, monkeypatch):
    served = ServerStarted(url="http://h:1", model="m", version="v0", store="s", pid=1,
                    link="http://h:1/#key=secret")  # fmt: skip
    assert "secret" not in repr(served)
    for out in (Output(), Output(as_json=True), Output(quiet=True)):
        _tell(out, served)
        assert "secret" not in "".join(capsys.readouterr())
    monkeypatch.setattr(output, "_is_terminal", lambda _: True)
    _tell(Output(as_json=True), served)
    said = capsys.readouterr()
    assert set(json.loads(said.out)) == {"url", "model", "version", "store", "pid"}
    assert "http://h:1/#key=secret" in said.err
    _tell(Output(quiet=True), served)
    assert "secret" not in "".join(capsys.readouterr())


def test_token_link_makes_a_link_to_the_running_server(sh: Any, server: Any) -> None:
    made = sh("token", "link", "--store", str(server.store))
    assert (made.code, made.stderr) == (0, "")
    address, _, key = made.stdout.strip().partition("/#key=")
    assert address == server.url
    assert httpx.post(f"{server.url}/v1/session", json={"key": key}).status_code == 200
    as_json = sh("token", "link", "--store", str(server.store), "--json")
    assert set(as_json.json) == {"link"}
    assert server.owner.token not in made.stdout + as_json.stdout
    server.stop()
    gone = sh("token", "link", "--store", str(server.store))
    assert (gone.code, gone.stdout) == (1, "")
    assert "no server holds" in gone.stderr
    assert "hint: start one with `editkit serve`" in gone.stderr


def test_whoami_tells_who_asks_and_what_there_is_to_ask(server):
    with server.client() as client:
        assert client.get("/v1/whoami").json() == {
            "name": None, "role": "admin", "is_owner": True, "model": server.model,
            "has_chat": True,
        }  # fmt: skip
    for role in ("read", "edit", "admin"):
        with server.client(server.token(role, f"a {role}")) as client:
            said = client.get("/v1/whoami").json()
        assert (said["name"], said["role"], said["is_owner"]) == (f"a {role}", role, False)


def test_the_log_comes_in_pages_and_can_be_searched(calm):
    with calm.client() as client:
        (entry,) = client.get("/v1/versions?containing=RED%20cat").json()
        assert entry["version"] == "v1"
        assert client.get("/v1/versions?containing=nothing+of+the+kind").json() == []
        assert client.get(f"/v1/versions?before={entry['seq']}").json() == []
        assert client.get("/v1/versions?before=0").status_code == 400
