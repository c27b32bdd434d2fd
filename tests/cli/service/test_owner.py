"""Who is taken for the owner: who signs each request, or has a session, on this machine."""

from __future__ import annotations

import http.client
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from editkit_cli.service.guard import Caller, Guard, Locks
from editkit_cli.service.owner import find_server, proof, sign
from editkit_cli.service.sessions import OwnerSessions
from editkit_cli.service.tokens import TokenFile


def test_the_owner_comes_from_loopback_only():
    locks = Locks(owner="secret", tokens=TokenFile(Path("none.db")))
    guard = Guard(lambda *_: None, locks)  # type: ignore[arg-type, return-value]
    headers = {"authorization": [f"Bearer {locks.sessions.begin()}"]}
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert guard._caller({"client": (address, 1)}, headers) == Caller(None, "admin")
    for proxied in ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host"):
        with pytest.raises(Exception, match="not valid here"):
            guard._caller({"client": ("127.0.0.1", 1)}, {**headers, proxied: ["::1"]})
    for address in ("10.0.0.1", "::ffff:10.0.0.1", "localhost", ""):
        with pytest.raises(Exception, match="not valid here"):
            guard._caller({"client": (address, 1)}, headers)


def test_a_forwarded_address_makes_nobody_local(calm):
    headers = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    with calm.stranger(headers) as client:
        said = client.get("/v1/status")
    assert said.status_code == 401


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto", "x_forwarded_for",
     "X-Original-Forwarded-For", "X-Original-Host", "X-Envoy-External-Address", "X-Azure-ClientIP",
     "X-Cluster-Client-IP", "Fly-Client-IP", "CDN-Loop", "Tailscale-User-Login", "CF-Ray",
     "True-Client-IP", "X_REAL_IP", "Proxy-Connection", "X-Amzn-Trace-Id"],
)  # fmt: skip
def test_a_session_is_not_taken_from_behind_a_proxy(calm, header):
    """A proxy on this machine connects from loopback, for whoever is behind it."""
    with calm.client(**{header: "203.0.113.7"}) as client:
        said = client.get("/v1/status")
        assert (said.status_code, said.json()["error"]["code"]) == (401, "invalid_api_key")
        health = client.get("/healthz", params={"nonce": "0" * 32})
        assert health.json() == {"status": "ok", "proof": None}
    secret = calm.token("read", f"behind {header}")
    with calm.client(secret, **{header: "203.0.113.7"}) as client:
        assert client.get("/v1/status").status_code == 200, "others may come through one"


def test_the_owners_token_is_never_taken_as_it_is(calm):
    with calm.client(calm.owner.token) as client:
        said = client.get("/v1/status")
    assert (said.status_code, said.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "editkit token session" in said.json()["error"]["hint"]


def signed(
    server: Any,
    method: str = "POST",
    target: str = "/v1/explain",
    body: bytes = b'{"prompt": "x"}',
    *,
    token: str | None = None,
    port: int | None = None,
    sent: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> int:
    """Status of the answer to a request that was signed, where something else may be sent."""
    wire = http.client.HTTPConnection("127.0.0.1", port or server.owner.port, timeout=60)
    wire.connect()
    key = sign(token or server.owner.token, wire, method, target, body)
    asked = {"method": method, "target": target, "body": body, **(sent or {})}
    wire.request(
        asked["method"], asked["target"], asked["body"],
        {"Authorization": key, "Content-Type": "application/json", **(headers or {})},
        encode_chunked="chunked" in asked,
    )  # fmt: skip
    status = wire.getresponse().status
    wire.close()
    return status


def test_a_signature_is_good_for_what_was_signed_only(calm):
    assert signed(calm) == 200
    assert signed(calm, "GET", "/v1/versions?limit=1&at=v1", b"") == 200
    assert signed(calm, token="ek-owner-other") == 401
    assert signed(calm, sent={"target": "/v1/generate"}) == 401
    assert signed(calm, sent={"target": "/v1/explain?k=1"}) == 401
    assert signed(calm, sent={"method": "PUT"}) == 401
    for header in ("X-Forwarded-For", "Via", "x_real_ip"):
        assert signed(calm, headers={header: "127.0.0.1"}) == 401


@pytest.mark.parametrize("body", [b"", b'{"prompt": "y"}', b'{"prompt": "x"} '])
def test_another_body_than_the_signed_one_is_refused(calm, body):
    assert signed(calm, sent={"body": body}) == 401
    assert signed(calm, sent={"body": iter([body]), "chunked": True},
                  headers={"Transfer-Encoding": "chunked"}) == 401  # fmt: skip


def test_what_comes_through_a_proxy_that_says_nothing_is_not_the_owners(calm):
    """It has another client's address, whatever it adds to the request."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def pass_on() -> None:
            inside, _ = proxy.accept()
            with inside, socket.create_connection(("127.0.0.1", calm.owner.port)) as outside:
                outside.sendall(inside.recv(1 << 16))
                inside.sendall(outside.recv(1 << 16))

        passing = threading.Thread(target=pass_on)
        passing.start()
        through = signed(calm, "GET", "/v1/status", b"", port=proxy.getsockname()[1])
        passing.join(60)
    assert through == 401


def test_a_session_ends_when_it_is_not_used_and_when_many_others_begin():
    now = [1000.0]
    sessions = OwnerSessions(clock=lambda: now[0])
    first = sessions.begin()
    now[0] += 11 * 3600
    assert sessions.is_open(first)
    now[0] += 11 * 3600
    assert sessions.is_open(first), "it was used"
    now[0] += 13 * 3600
    assert not sessions.is_open(first)
    used = sessions.begin()
    for _ in range(200):
        sessions.begin()
        assert sessions.is_open(used)
    assert not sessions.is_open("ek-session-x")


def other_address() -> str:
    """An address of this machine that is not of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(("192.0.2.1", 9))  # sends nothing
        return str(wire.getsockname()[0])


def has_address(host: str) -> bool:
    try:
        socket.create_server((host, 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        pytest.param("::", marks=pytest.mark.skipif(not has_address("::1"), reason="no IPv6")),
    ],
)
def test_a_server_at_every_address_lets_its_owner_in_on_loopback_only(start, host):
    server = start(host=host)
    assert find_server(server.store) == server.owner
    with server.client() as client:
        assert client.get("/v1/status").status_code == 200
    with server.client(Host=f"[{host}]" if ":" in host else host) as client:
        assert client.get("/v1/status").status_code == 403, "no name of ours"


def test_the_proof_names_the_address_that_was_connected_to(start, monkeypatch):
    """Somebody at our address who passes the question on to us gets what proves another one."""
    server = start(host="0.0.0.0")
    owner = server.owner
    nonce = {"nonce": "0" * 32}
    with server.stranger() as client:
        near = client.get("/healthz", params=nonce).json()["proof"]
    assert near == proof(owner.token, nonce["nonce"], "127.0.0.1", owner.port)
    with server.stranger({"Host": "localhost"}, f"http://127.0.0.2:{owner.port}") as client:
        there = client.get("/healthz", params=nonce).json()["proof"]
    assert there == proof(owner.token, nonce["nonce"], "127.0.0.2", owner.port) != near


def test_who_is_not_on_loopback_gets_no_proof_and_is_not_the_owner(start):
    try:
        outside = other_address()
    except OSError:
        pytest.skip("this machine has no address but that of loopback")
    server = start(host="0.0.0.0", hosts=[outside])
    with server.stranger(url=f"http://{outside}:{server.owner.port}") as client:
        assert client.get("/healthz", params={"nonce": "0" * 32}).json()["proof"] is None
        key = {"Authorization": f"Bearer {server.session}"}
        assert client.get("/v1/status", headers=key).status_code == 401
    away = http.client.HTTPConnection(outside, server.owner.port, timeout=60)
    away.connect()
    signed = {"Authorization": sign(server.owner.token, away, "GET", "/v1/status")}
    away.request("GET", "/v1/status", headers=signed)
    assert away.getresponse().status == 401
    away.close()
