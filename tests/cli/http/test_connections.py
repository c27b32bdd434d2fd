"""Connections that keep the server waiting, and crowds of them, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cli.http.conftest import Running, held
from cli.http.test_running import until
from cli.service.test_owner import other_address

from editkit_cli.http.connections import _AT_ONCE, _SPARE
from editkit_cli.service.limits import Limits
from editkit_cli.service.owner import find_server, proof

CAT = "The red cat is"
NONCE = "0" * 32
HEALTH = f"GET /healthz?nonce={NONCE} HTTP/1.1"
ADD = "POST /v1/edits HTTP/1.1\nContent-Type: application/json"
SIGN_IN = "POST /v1/session HTTP/1.1\nContent-Type: application/json"
FOREVER = {"head_seconds": 600, "body_seconds": 600, "stall_seconds": 600}


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """Opens sockets that are closed with the test."""
    with contextlib.ExitStack() as stack:

        def connected(server: Running, text: str = "", host: str | None = None) -> socket.socket:
            wire = socket.create_connection((host or server.owner.host, server.owner.port), 60)
            stack.enter_context(wire)
            wire.sendall(text.replace("\n", "\r\n").encode())
            return wire

        yield connected


def request(line: str, token: str | None = None, body: str = "") -> str:
    """A whole request; a line may be followed by headers."""
    key = f"Authorization: Bearer {token}\n" if token else ""
    length = f"Content-Length: {len(body)}\n" if body else ""
    return f"{line}\nHost: localhost\n{key}{length}\n{body}"


def answer(wire: socket.socket) -> tuple[int, Any, Any]:
    """The next answer: its status, its headers and its body, if that is JSON."""
    said = http.client.HTTPResponse(wire)
    said.begin()
    body = said.read()
    is_json = (said.headers["Content-Type"] or "").startswith("application/json")
    return said.status, said.headers, json.loads(body) if is_json else body


def heard(wire: socket.socket, what: bytes = b": editkit") -> None:
    """Waits for something in a stream of events; by default for its beginning."""
    said = b""
    while what not in said:
        part = wire.recv(65536)
        assert part, "it was cut"
        said += part


def rest(wire: socket.socket) -> bytes:
    """All that comes until the server ends the connection, which it is to do."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := wire.recv(65536):
            said += part
    return said


def is_ended(wire: socket.socket) -> bool:
    """Whether the server has ended a connection that it had nothing to say on."""
    if not select.select([wire], [], [], 0)[0]:
        return False
    try:
        return wire.recv(1) == b""
    except ConnectionResetError:
        return True


def dripped(wires: list[socket.socket]) -> list[bytes]:
    """Sends a byte at a time until the server ends the connections; returns what it said."""
    left = list(wires)
    while left:
        ended, _, _ = select.select(left, [], [], 0)
        left = [wire for wire in left if wire not in ended]
        for wire in left:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.sendall(b"x")
        time.sleep(0.02)
    return [rest(wire) for wire in wires]


def busy(said: tuple[int, Any, Any], which: str = "") -> None:
    """Looks at the refusal of a server that has no place."""
    status, headers, body = said
    assert (status, body["error"]["code"]) == (503, "busy")
    assert f"too many requests{which} are under way" in body["error"]["message"]
    assert int(headers["Retry-After"]) >= 1
    assert headers.get_all("Connection") == ["close"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_silent_connections_without_number_stop_nobody(start, connect):
    server = start(limits=Limits(connections=4, grace=5, **FOREVER))
    assert server.session  # before it is busy
    stream = connect(server, request("GET /v1/events HTTP/1.1", server.session))
    heard(stream)
    silent = []
    for number in range(3 * _SPARE):
        # In part, too: what has no end is no request.
        silent.append(connect(server, "GET / HTTP/1.1\nHost:" if number % 2 else ""))
        if number % 100 == 0:
            assert find_server(server.store, timeout=60) == server.owner
    with server.client() as client:
        assert client.get("/v1/status").status_code == 200
        until(lambda: server.metric("connections") <= 4 + _SPARE + _AT_ONCE)
        until(lambda: is_ended(silent[0]))
        assert not is_ended(silent[-1]), "those that have been silent longest went first"
        client.post("/v1/undo")  # refused, and told of
    heard(stream, b'"state":"failed"')  # on the connection that was being answered


def test_where_every_place_is_taken_the_server_says_so_and_that_it_is_there(start, connect):
    server = start(limits=Limits(connections=2, grace=5))
    assert server.session  # before it is busy
    streams = []
    for name in ("ada", "bob"):
        key = server.token("read", name)
        streams.append(connect(server, request("GET /v1/events HTTP/1.1", key)))
        heard(streams[-1])
    asked = connect(server, request(HEALTH))
    status, _, body = answer(asked)
    at = (server.owner.host, server.owner.port)
    assert (status, body["proof"]) == (200, proof(server.owner.token, NONCE, *at))
    asked.sendall(request("GET /v1/status HTTP/1.1", server.session).encode())
    busy(answer(asked))
    assert rest(asked) == b""
    # A client that is still sending is to hear of it, too.
    busy(answer(connect(server, request(ADD, server.session, "x" * (1 << 20)))))
    with server.stranger() as client:
        assert client.get("/").status_code == 200
        assert client.get("/v1/status").status_code == 401
    streams[0].close()
    with server.client() as client:
        until(lambda: client.get("/v1/status").status_code == 200)
        said = client.get("/metrics").text
    assert 'status="503"' in said


def test_crowds_at_the_door_of_a_busy_server_do_not_keep_its_health_from_being_told(start, connect):
    server = start(limits=Limits(connections=2, grace=5, **FOREVER))
    assert server.session  # before it is busy
    for name in ("ada", "bob"):
        key = server.token("read", name)
        heard(connect(server, request("GET /v1/events HTTP/1.1", key)))
    for _ in range(2 * _SPARE):
        # Answers that nobody reads, bodies that never come, and silence.
        connect(server, request(HEALTH) * 50)
        connect(server, request(f"{SIGN_IN}\nContent-Length: 9"))
        connect(server)
    assert find_server(server.store, timeout=60) == server.owner


def test_one_token_does_not_take_every_place(start, connect):
    server = start(limits=Limits(connections=4, grace=5))
    assert server.session  # before it is busy
    mallory, ada = server.token("read", "mallory"), server.token("read", "ada")
    for _ in range(2):
        heard(connect(server, request("GET /v1/events HTTP/1.1", mallory)))
    busy(answer(connect(server, request("GET /v1/status HTTP/1.1", mallory))), " with your token")
    for key in (ada, server.session):
        assert answer(connect(server, request("GET /v1/status HTTP/1.1", key)))[0] == 200


def test_one_address_does_not_take_every_place_and_some_are_kept_for_this_machine(start, connect):
    try:
        outside = other_address()
    except OSError:
        pytest.skip("this machine has no address but that of loopback")
    server = start(host="0.0.0.0", hosts=[outside], limits=Limits(connections=4, grace=5))
    assert server.session  # before it is busy
    keys = [server.token("read", name) for name in ("ada", "bob", "eve")]
    ask = "GET /v1/events HTTP/1.1"
    for key in keys[:2]:
        heard(connect(server, request(ask, key), outside))
    busy(answer(connect(server, request(ask, keys[2]), outside)), " from your address")
    for key in (keys[2], server.session):
        heard(connect(server, request(ask, key)))
    busy(answer(connect(server, request(ask, keys[2]))))


def test_the_address_with_the_most_idle_connections_loses_them_first(start, connect):
    try:
        outside = other_address()
    except OSError:
        pytest.skip("this machine has no address but that of loopback")
    server = start(host="0.0.0.0", hosts=[outside], limits=Limits(connections=4, **FOREVER))
    assert server.session  # before it is busy
    ours = connect(server)
    theirs = [connect(server, host=outside) for _ in range(2 * _SPARE)]
    until(lambda: is_ended(theirs[0]))
    assert not is_ended(ours), "though it has been silent longest"


def test_heads_and_bodies_that_do_not_come_to_an_end_are_not_waited_for(start, connect):
    server = start(limits=Limits(head_seconds=2, body_seconds=2, grace=5))
    assert server.session  # before it is busy
    silent, kept = connect(server), connect(server, request(HEALTH))
    # A request that was refused has its answer, and its body is not awaited for ever either.
    refused = connect(server, request(f"{ADD}\nContent-Length: 9999", "wrong"))
    assert (answer(kept)[0], answer(refused)[0]) == (200, 401)
    late = [
        connect(server, "GET / HTTP/1.1\nX-Long: "),
        connect(server, request(f"{ADD}\nContent-Length: 9999", server.session)),
        connect(server, request(f"{SIGN_IN}\nContent-Length: 3000")),
    ]
    *told, none = dripped([*late, refused])
    for said in told:
        assert said.startswith(b"HTTP/1.1 408 "), said
        assert b'"code":"too_slow"' in said
        assert b"nosniff" in said
    # Whoever waits for no answer would take one for that to the next request.
    assert [none, rest(silent), rest(kept)] == [b"", b"", b""]


def test_what_takes_the_server_long_is_not_cut(start, connect, monkeypatch):
    short = Limits(head_seconds=2, body_seconds=2, stall_seconds=2, grace=5)
    server = start(limits=short)
    assert server.session  # before it is busy
    stream = connect(server, request("GET /v1/events HTTP/1.1", server.session))
    heard(stream)
    said: list[int] = []

    def ask() -> None:
        with server.client() as client:
            said.append(client.post("/v1/generate", json={"prompts": [CAT]}).status_code)

    with held(server.kit, monkeypatch) as go:
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(6)  # three times as long as anything is waited for
        go.set()
        asking.join()
    assert said == [200]
    with server.client() as client:
        client.post("/v1/undo")  # refused, and told of
    heard(stream, b'"state":"failed"')


def test_a_client_that_reads_nothing_of_its_answers_is_dropped(start, connect):
    server = start(limits=Limits(stall_seconds=1, grace=5))
    assert server.session  # before it is busy
    wire = connect(server)
    asked = request("GET /openapi.json HTTP/1.1", server.session).replace("\n", "\r\n")

    def ask() -> None:
        with contextlib.suppress(OSError):
            while True:  # on and on, until no answer fits anywhere any more
                wire.sendall(asked.encode())

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)
    assert not asking.is_alive(), "it was never dropped"


def test_a_client_that_reads_slowly_is_not_dropped(start, connect):
    # The system tells a sender of free space a megabyte or so at a time.
    server = start(limits=Limits(stall_seconds=5, grace=5))
    assert server.session  # before it is busy
    asks, wire = 400, connect(server)
    asked = request("GET /openapi.json HTTP/1.1", server.session).replace("\n", "\r\n")
    asking = threading.Thread(target=wire.sendall, args=(asks * asked.encode(),))
    asking.start()
    said, end = b"", time.monotonic() + 12
    while time.monotonic() < end:
        said += wire.recv(16384)
        time.sleep(0.01)
    while said.count(b"HTTP/1.1 200 OK") < asks:
        part = wire.recv(1 << 20)
        assert part, "it was dropped"
        said += part
    asking.join()


def test_connections_that_wait_for_nothing_do_not_hold_up_the_end(start, connect):
    server = start(limits=Limits(grace=300, **FOREVER))
    assert server.session  # before it is busy
    silent = [connect(server), connect(server, "GET / HTTP/1.1\nHost:")]
    kept = connect(server, request(HEALTH))
    assert answer(kept)[0] == 200
    half = connect(server, request(f"{ADD}\nContent-Length: 99", server.session))
    asked = connect(server, request(HEALTH))
    assert answer(asked)[0] == 200  # so the others have been looked at
    server.stop()  # within a minute
    for wire in (*silent, kept):
        assert rest(wire) == b""
    status, _, body = answer(half)
    assert (status, body["error"]["code"]) == (503, "closing")


@pytest.mark.parametrize("text", ["nonsense\n\n", "GET / HTTP/1.1\nX: " + "x" * 100_000])
def test_what_is_no_http_is_told_so_like_everything_else(calm, connect, text):
    status, headers, body = answer(connect(calm, text))
    assert (status, body["error"]["code"]) == (400, "not_http")
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_strangers_do_not_fill_the_memory(calm, connect):
    body = json.dumps({"key": "x" * 5000})
    assert answer(connect(calm, request(SIGN_IN, body=body)))[0] == 413
    pieces = f"{SIGN_IN}\nTransfer-Encoding: chunked\nHost: localhost\n\n"
    assert answer(connect(calm, f"{pieces}2000\n{'x' * 0x2000}\n0\n\n"))[0] == 413
