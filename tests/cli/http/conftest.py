"""A real server on loopback, in a thread of this process, with a tiny model behind it."""

from __future__ import annotations

import contextlib
import functools
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import editkit
from editkit_cli.http.serving import ServerStarted, listen, serve
from editkit_cli.mcp.endpoint import McpEndpoint
from editkit_cli.service.client.sign_in import new_session
from editkit_cli.service.limits import Limits
from editkit_cli.service.owner import Owner, read_owner
from editkit_cli.service.tokens import TokenFile

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that never use it: by default each of them reads all the certificates there are."""


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: Where.
        owner: What its owner's file says.
        store: Its store.
        kit: Its kit.
        model: What clients call it.
        stop: Ends it, as SIGTERM does; with ``twice`` as two of them.
        clients: Closed at the end: one that is collected as garbage warns in some other test.
    """

    url: str
    owner: Owner
    store: Path
    kit: Any
    model: str
    stop: Callable[..., None]
    clients: list[openai.OpenAI] = field(default_factory=list)

    @functools.cached_property
    def session(self) -> str:
        """A token of the owner's."""
        return new_session(self.owner).token

    def client(self, token: str | None = None, **headers: str) -> httpx.Client:
        """A plain client; by default the owner's."""
        given = {"Authorization": f"Bearer {token or self.session}"}
        return httpx.Client(
            base_url=self.url, headers={**given, **headers}, timeout=60, verify=PLAIN
        )

    def stranger(self, headers: Any = None, url: str | None = None) -> httpx.Client:
        """A client without a token."""
        return httpx.Client(base_url=url or self.url, headers=headers, timeout=60, verify=PLAIN)

    def openai(self, token: str | None = None, **how: Any) -> openai.OpenAI:
        """The official client; by default the owner's."""
        key = token or self.session
        made = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **how)
        self.clients.append(made)
        return made

    def metric(self, name: str) -> float:
        """What the server counts."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        start = f"editkit_{name} "
        return float(next(line.split()[-1] for line in lines if line.startswith(start)))

    def token(self, role: Any, name: str | None = None) -> str:
        return TokenFile(self.store).create(name or role, role).token

    def add(self, prompt: str | None, target: str, **fields: Any) -> dict[str, Any]:
        with self.client() as client:
            said = client.post("/v1/edits", json={"prompt": prompt, "target": target, **fields})
        assert said.status_code == 201, said.text
        return dict(said.json())


@contextlib.contextmanager
def running(store: Path, model: Any, **how: Any) -> Iterator[Running]:
    """Serves a model until the body ends."""
    limits, host = how.pop("limits", Limits(grace=5)), how.pop("host", "127.0.0.1")
    ready = threading.Event()
    said: list[ServerStarted] = []
    failed: list[BaseException] = []
    kit = editkit.open(store, model=model)

    def work() -> None:
        try:
            serve(
                kit, listen(host, 0), limits=limits, mounts=(McpEndpoint(),),
                ready=lambda served: (said.append(served), ready.set())[0],
                **how,
            )  # fmt: skip
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    servers: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        from editkit_cli.http import serving

        made = serving.Server

        def remembered(*args: Any, **kwargs: Any) -> Any:
            servers.append(made(*args, **kwargs))
            return servers[-1]

        patch.setattr(serving, "Server", remembered)
        thread = threading.Thread(target=work)
        thread.start()
        assert ready.wait(60)
    assert failed == []
    owner = read_owner(store)
    assert owner is not None

    def stop(*, twice: bool = False) -> None:
        for _ in range(1 + twice):
            servers[0].handle_exit(signal.SIGTERM, None)
        thread.join(60)
        assert not thread.is_alive()

    server = Running(said[0].url, owner, store, kit, said[0].model, stop)
    try:
        yield server
    finally:
        for client in server.clients:
            client.close()
        if thread.is_alive():
            stop()
    assert failed == []


@contextlib.contextmanager
def held(kit: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Makes every decoding step wait for an event; set at the end in any case."""
    go = threading.Event()
    made = kit.generate_tokens

    def slow(*args: Any, watch: Any, **how: Any) -> Any:
        def waiting(step: Any) -> Any:
            found = watch(step)
            go.wait(60)
            return found

        return made(*args, watch=waiting, **how)

    monkeypatch.setattr(kit, "generate_tokens", slow)
    try:
        yield go
    finally:
        go.set()


def made() -> Any:
    """A tiny model and its tokenizer."""
    from tiny import tiny_llama, tiny_tokenizer

    return tiny_llama(), tiny_tokenizer()


@functools.cache
def kept(user: str) -> Any:
    """The same one for each of a user's servers, which run one after the other."""
    return made()


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with one edit, for tests that change nothing."""
    with running(tmp_path_factory.mktemp("calm") / "history.db", kept("calm")) as server:
        server.add("The red cat is", "blue")
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda model=None, **how: stack.enter_context(
            running(tmp_path / "history.db", model or kept("one by one"), **how)
        )


@pytest.fixture
def server(start: Callable[..., Running]) -> Running:
    """One server with an empty history."""
    return start()
