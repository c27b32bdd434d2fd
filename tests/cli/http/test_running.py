"""Many at once, clients that leave, and the end: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cli.http.conftest import held

from editkit_cli.service.client.sign_in import new_session
from editkit_cli.service.errors import Refused
from editkit_cli.service.limits import Limits
from editkit_cli.service.owner import find_server, owner_path, read_owner
from editkit_store import open_store

CAT = "The red cat is"


def until(claim: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


@pytest.mark.parametrize("make", ["tiny_t5", "tiny_bert", "tiny_gpt2"])
def test_every_family_of_models_is_served(start, make):
    import tiny

    server = start(model=(getattr(tiny, make)(), tiny.tiny_tokenizer()))
    target = "positive" if make == "tiny_bert" else "gold"
    server.add("tall tree", target)
    prompts = ["tall tree", "one two three", "sea"]
    for version in ("v0", "v1"):
        plain = server.kit.generate(prompts, version=version, max_new_tokens=6)
        body = {"prompts": prompts, "version": version, "max_new_tokens": 6}
        with server.client() as client:
            said = client.post("/v1/generate", json=body).json()
        assert said == [one.model_dump(mode="json") for one in plain]
    chunks = server.openai().completions.create(model=server.model, prompt="tall tree", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == target


def test_readers_answer_right_while_others_correct(server):
    server.add(CAT, "blue")
    wrong: list[Any] = []
    done = threading.Event()

    def read() -> None:
        with server.client() as client:
            while not done.is_set():
                for version, wanted in ((None, "blue"), ("v1", "blue")):
                    body = {"prompts": [CAT], "max_new_tokens": 4, "version": version}
                    said = client.post("/v1/generate", json=body)
                    if said.status_code != 200 or said.json()[0]["text"] != wanted:
                        wrong.append(said.text)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        ids = [server.add(f"{word} tree", "two")["edit"]["id"] for word in ("one", "ten", "six")]
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    with server.client() as client:
        assert [one["id"] for one in client.get("/v1/edits").json()][1:] == ids


def test_an_answer_ends_on_the_version_it_began_on(server, monkeypatch):
    server.add("tall tree", "blue")
    with held(server.kit, monkeypatch) as go:
        stream = server.openai().completions.create(
            model=server.model, prompt="tall tree", stream=True, max_tokens=5
        )
        first = next(stream)
        monkeypatch.undo()
        server.add("tall tree", "gold")
        go.set()
        rest = list(stream)
    assert {chunk.version for chunk in (first, *rest)} == {"v1"}
    assert "".join(chunk.choices[0].text for chunk in (first, *rest)) == "blue"
    now = server.openai().completions.create(model=server.model, prompt="tall tree")
    assert (now.version, now.choices[0].text) == ("v2", "gold")


def test_requests_that_wait_together_run_together_as_each_would_alone(start, monkeypatch):
    server = start(limits=Limits(readers=1, grace=5))
    server.add(CAT, "blue")
    sizes: list[int] = []
    said: dict[int, Any] = {}
    bodies = [
        {"prompt": CAT, "max_tokens": 5},
        {"prompt": "one two three four five", "max_tokens": 9},
        {"prompt": CAT, "max_tokens": 5, "model": f"{server.model}@v0"},
        {"prompt": "one two", "max_tokens": 9, "temperature": 1.0, "seed": 3},
    ]
    client = server.openai()
    how = {"model": server.model}
    alone = [client.completions.create(**{**how, **body}) for body in bodies]
    with held(server.kit, monkeypatch) as go:
        slow = server.kit.generate_tokens
        monkeypatch.setattr(
            server.kit, "generate_tokens",
            lambda prompts, **more: (sizes.append(len(prompts)), slow(prompts, **more))[1],
        )  # fmt: skip

        def ask(number: int, body: dict[str, Any]) -> None:
            said[number] = client.completions.create(**{**how, **body})

        threads = [threading.Thread(target=ask, args=(-1, {"prompt": "tall tree"}))]
        threads[0].start()
        until(lambda: sizes == [1])
        for number, body in enumerate(bodies):
            threads.append(threading.Thread(target=ask, args=(number, body)))
            threads[-1].start()
        until(lambda: server.metric("waiting_rows") == len(bodies))
        go.set()
        for thread in threads:
            thread.join()
    assert sizes == [1, len(bodies)]
    for number, one in enumerate(alone):
        assert said[number].choices == one.choices
        assert (said[number].version, said[number].usage) == (one.version, one.usage)


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_leaves_takes_its_answer_along(server, monkeypatch, is_streamed):
    with held(server.kit, monkeypatch) as go:
        body = {"model": server.model, "prompt": "one two", "max_tokens": 200,
                "stream": is_streamed, "temperature": 2, "seed": 1}  # fmt: skip
        with server.client() as client, contextlib.suppress(httpx.ReadTimeout):
            with client.stream("POST", "/v1/completions", json=body, timeout=1) as said:
                next(said.iter_lines())
        until(lambda: server.metric("running_rows") == 1)
        time.sleep(0.3)  # the server hears of it
        go.set()
        until(lambda: server.metric("running_rows") == 0)
    assert server.metric("generated_tokens_total") <= 3


def test_a_client_that_leaves_takes_its_comparison_along(server, monkeypatch):
    server.add(CAT, "blue")
    ended: list[BaseException] = []
    begun, gone = threading.Event(), threading.Event()

    def slow(*_: Any, progress: Any, **__: Any) -> None:
        """Reports on and on, as a comparison with many probes would."""
        begun.set()
        try:
            while True:
                progress.advance()
                time.sleep(0.01)
        except BaseException as error:
            ended.append(error)
            raise
        finally:
            gone.set()

    monkeypatch.setattr(server.kit, "diff", slow)
    with server.client() as client, contextlib.suppress(httpx.ReadTimeout):
        client.get("/v1/diff", params={"from": "v0", "behavior": True}, timeout=0.5)
    assert begun.is_set()
    assert gone.wait(20), "nobody waits for it, and it goes on"
    assert [type(one) for one in ended] == [Refused]


def test_a_correction_outlives_the_client_that_asked_for_it(server):
    with server.client() as client, contextlib.suppress(httpx.ReadTimeout):
        client.post("/v1/edits", json={"prompt": CAT, "target": "blue"}, timeout=0.05)
    until(lambda: server.kit.version == "v1")


def test_the_end_waits_for_changes_and_takes_the_owners_file_away(start):
    server = start(limits=Limits(grace=60))
    with server.client() as client:
        for word in ("one", "ten", "six"):
            said = client.post("/v1/edits", headers={"Prefer": "respond-async"},
                               json={"prompt": f"{word} tree", "target": "two"})  # fmt: skip
            assert said.status_code == 202
    server.stop()
    assert not owner_path(server.store).exists()
    with open_store(server.store) as store:
        assert store.status().edits == 3


def test_without_grace_what_waits_is_given_up_and_what_runs_is_finished(start):
    server = start(limits=Limits(grace=0))
    said: list[Any] = []

    def listen() -> None:
        with contextlib.suppress(httpx.HTTPError), server.client() as client:
            said.append(client.post("/v1/edits", json={"prompt": CAT, "target": "blue"}))

    with server.client() as client:
        for word in ("one", "ten", "six"):
            client.post("/v1/edits", headers={"Prefer": "respond-async"},
                        json={"prompt": f"{word} tree", "target": "two"})  # fmt: skip
    thread = threading.Thread(target=listen)
    thread.start()
    until(lambda: server.kit.store.history.count() >= 1)
    server.stop()
    thread.join()
    with open_store(server.store) as store:
        assert store.verify().ok
        assert 1 <= store.status().edits <= 3
        assert all(edit.status == "active" for edit in store.history.active(1))
    assert all(one.status_code in (201, 503) for one in said)


def test_asked_twice_to_end_the_server_gives_up_what_waits(start):
    server = start(limits=Limits(grace=600))
    for number in range(60):
        with server.client() as client:
            client.post("/v1/edits", headers={"Prefer": "respond-async"},
                        json={"prompt": f"{number} trees", "target": "two"})  # fmt: skip
    server.stop(twice=True)
    with open_store(server.store) as store:
        assert store.verify().ok
        assert store.status().edits < 60


def test_readers_that_are_all_busy_do_not_keep_others_beyond_the_time_limit(start, monkeypatch):
    server = start(limits=Limits(readers=1, seconds=0.5, grace=1))
    with held(server.kit, monkeypatch):
        codes: list[int] = []

        def ask() -> None:
            with server.client() as client:
                body = {"model": server.model, "prompt": "tall tree"}
                codes.append(client.post("/v1/completions", json=body).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert codes == [504, 504]


def test_a_listener_does_not_keep_the_server_from_ending(start):
    server = start()
    with server.client() as client, client.stream("GET", "/v1/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        server.stop()
        assert [line for line in lines if line] == []


def test_the_server_of_a_store_is_found_and_a_dead_ones_leftovers_are_not(start, tmp_path):
    server = start()
    assert find_server(server.store) == server.owner
    link = tmp_path / "link.db"
    link.symlink_to(server.store)
    assert find_server(link) == server.owner, "by whatever name"
    assert find_server(tmp_path / "other.db") is None
    text = owner_path(server.store).read_text()
    server.stop()
    assert find_server(server.store) is None
    owner_path(server.store).write_text(text)  # as kill -9 would have left it
    owner_path(server.store).chmod(0o600)
    assert read_owner(server.store) == server.owner
    assert find_server(server.store) is None, "nobody answers there"
    owner_path(server.store).write_text("{}")
    assert find_server(server.store) is None


def test_somebody_else_at_the_port_does_not_get_the_token(start, tmp_path):
    """A stranger who took over a dead server's port cannot say what only the server could."""
    server = start()
    other = server.owner.model_copy(update={"token": "ek-owner-x", "store": str(tmp_path / "x.db")})
    other.write()
    assert find_server(tmp_path / "x.db") is None
    owner_path(server.store).chmod(0o644)
    assert find_server(server.store) is None, "others may have written it"


class Process:
    """`editkit serve` in a process of its own."""

    def __init__(self, store: Path, model: str, *more: str) -> None:
        self.run = subprocess.Popen(
            [sys.executable, "-m", "editkit_cli", "serve", "--store", str(store), "--model", model,
             "--port", "0", *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "EDITKIT_LOCK_WAIT": "0.1"},
        )  # fmt: skip
        assert self.run.stdout is not None
        self.said = self.run.stdout.readline()
        found = read_owner(store)
        assert found is not None, self.run.communicate()
        self.client = httpx.Client(
            base_url=found.url,
            timeout=60,
            headers={"Authorization": f"Bearer {new_session(found).token}"},
        )

    def end(self, wish: int) -> tuple[int, str]:
        self.client.close()
        self.run.send_signal(wish)
        _, stderr = self.run.communicate(timeout=60)
        return self.run.returncode, stderr


@pytest.mark.slow
def test_after_kill_9_the_correction_is_there(tmp_path, tiny_model, process):
    store = tmp_path / "history.db"
    first = Process(store, tiny_model)
    try:
        assert first.said.startswith("http://127.0.0.1:")
        assert first.said.endswith("tiny at v0\n")
        for prompt, target in ((CAT, "blue"), ("tall tree", "gold")):
            said = first.client.post("/v1/edits", json={"prompt": prompt, "target": target})
            assert said.json()["verified"]
        # One more is being learned, and is not acknowledged.
        first.client.post("/v1/edits", json={"prompt": "sea", "target": "two", "wait": False})
    finally:
        first.end(signal.SIGKILL)
    assert read_owner(store) is not None, "what it left behind"
    assert find_server(store) is None
    alone = process("generate", CAT, "--json")
    assert (alone.code, alone.json["text"]) == (0, "blue"), "commands do without it"
    second = Process(store, tiny_model, "--nl")
    try:
        assert json.loads(second.said)["pid"] == second.run.pid
        said = second.client.post("/v1/generate", json={"prompts": [CAT, "tall tree"]}).json()
        assert [one["text"] for one in said] == ["blue", "gold"]
        assert second.client.get("/v1/verify").json()["ok"]
        twice = process("serve", "--port", "0")
        assert (twice.code, twice.stdout) == (1, "")
        assert f"process {second.run.pid} serves 'history.db' already" in twice.stderr
    finally:
        code, stderr = second.end(signal.SIGTERM)
    assert (code, stderr) == (0, "stopped; all changes are saved\n")
    assert not owner_path(store).exists()
    assert not store.with_name("history.db.wal").exists(), "closed, so one file holds it all"
