"""What goes wrong under a server: a full disk, a clock that jumps, bundles of an enemy."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cli.http.conftest import made, running
from faults.harness import SEED, Figures, check_whole, size

from editkit_cli.service.client.sign_in import new_session
from editkit_cli.service.owner import find_server, read_owner
from editkit_store import open_store

pytestmark = pytest.mark.slow

HUGE = resource.RLIM_INFINITY

EDITS = (
    ("The red cat is", "blue"), ("tall tree", "gold"), ("sea", "two"), ("one two", "three"),
    ("bird", "fish"),
)  # fmt: skip


class Process:
    """`editkit serve` in a process of its own.

    Attributes:
        run: The process.
        client: Its owner's client.
    """

    def __init__(self, store: Path, model: Path) -> None:
        self.run = subprocess.Popen(
            [sys.executable, "-m", "editkit_cli", "serve", "--store", str(store),
             "--model", str(model), "--port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, "EDITKIT_LOCK_WAIT": "0.1"},
        )  # fmt: skip
        assert self.run.stdout is not None
        self.run.stdout.readline()
        owner = read_owner(store)
        assert owner is not None, self.run.communicate()
        self.client = httpx.Client(
            base_url=owner.url, timeout=120,
            headers={"Authorization": f"Bearer {new_session(owner).token}"},
        )  # fmt: skip

    def add(self, prompt: str, target: str) -> httpx.Response:
        return self.client.post("/v1/edits", json={"prompt": prompt, "target": target})

    def end(self, wish: int) -> tuple[int, str]:
        self.client.close()
        self.run.send_signal(wish)
        _, stderr = self.run.communicate(timeout=120)
        return self.run.returncode, stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    found, tokenizer = made()
    found.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def served(tmp_path: Path, model: Path) -> Iterator[Process]:
    process = Process(tmp_path / "history.db", model)
    yield process
    if process.run.poll() is None:
        process.end(signal.SIGKILL)
    for stream in (process.run.stdout, process.run.stderr):
        assert stream is not None
        stream.close()


def test_a_full_disk_under_a_server_stops_changes_and_not_answers(
    served: Process, tmp_path: Path, figures: Figures
) -> None:
    store = tmp_path / "history.db"
    assert served.add("The red cat is", "blue").status_code == 201
    # A limit on file size fails writes as a full disk does, for this process only.
    room = store.with_name("history.db.wal").stat().st_size + 6_000
    resource.prlimit(served.run.pid, resource.RLIMIT_FSIZE, (room, HUGE))
    done = refused = 0
    while refused < size(3, 20):
        said = served.add(f"sea {done + refused}", "sky" if done % 2 else "gold")
        if said.status_code == 201:
            done += 1
        else:
            refused += 1
            assert (said.status_code, said.json()["error"]["code"]) == (507, "store_unwritable")
            assert "free disk space" in said.json()["error"]["hint"]
            asked = {"prompts": ["The red cat is"], "max_new_tokens": 1}
            assert served.client.post("/v1/generate", json=asked).json()[0]["text"] == "blue"
            assert served.client.get("/healthz").status_code == 200
    resource.prlimit(served.run.pid, resource.RLIMIT_FSIZE, (HUGE, HUGE))
    assert served.add("tall tree", "gold").status_code == 201, "there is room again"
    assert served.client.get("/v1/verify").json()["ok"]
    code, stderr = served.end(signal.SIGTERM)
    assert code == 0
    assert stderr.endswith("stopped; all changes are saved\n")
    log = check_whole(store)
    assert [one.kind for one in log] == ["add"] * (done + 2)
    figures.add("a full disk under a server", "changes refused", refused)
    figures.add("a full disk under a server", "changes kept", done + 2)


def test_a_server_that_is_killed_on_a_full_disk_has_lost_nothing_acknowledged(
    served: Process, tmp_path: Path, model: Path
) -> None:
    store = tmp_path / "history.db"
    assert served.add("The red cat is", "blue").status_code == 201
    room = store.with_name("history.db.wal").stat().st_size + 6_000
    resource.prlimit(served.run.pid, resource.RLIMIT_FSIZE, (room, HUGE))
    kept = 1
    while (said := served.add(f"sea {kept}", "sky")).status_code == 201:
        kept += 1
    assert said.status_code == 507
    served.end(signal.SIGKILL)
    assert find_server(store) is None
    assert len(check_whole(store)) == kept
    again = Process(store, model)
    try:
        assert again.add("tall tree", "gold").status_code == 201
    finally:
        code, _ = again.end(signal.SIGTERM)
        for stream in (again.run.stdout, again.run.stderr):
            assert stream is not None
            stream.close()
    assert code == 0
    assert len(check_whole(store)) == kept + 1


def test_a_clock_that_jumps_under_a_server_changes_times_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path / "history.db", made()) as server:
        now = datetime(2026, 3, 29, 1, 59, 59, tzinfo=UTC)
        server.kit.store._clock = lambda: now
        jumps = [
            timedelta(seconds=2), -timedelta(hours=1), timedelta(days=3650), -timedelta(days=9000),
            timedelta(0),
        ]  # fmt: skip
        with server.client() as client:
            for number, jump in enumerate(jumps):
                now += jump
                prompt, target = EDITS[number]
                key = {"Idempotency-Key": f"k{number}"}
                body = {"prompt": prompt, "target": target}
                first = client.post("/v1/edits", json=body, headers=key)
                again = client.post("/v1/edits", json=body, headers=key)
                assert (first.status_code, again.status_code) == (201, 200)
                assert first.json()["edit"]["id"] == again.json()["edit"]["id"]
            entries = client.get("/v1/versions").json()
            assert [one["version"] for one in entries] == ["v5", "v4", "v3", "v2", "v1"]
            assert client.post("/v1/undo", json={}).json()["version"] == "v6"
            assert client.get("/v1/verify").json()["ok"]
    with open_store(tmp_path / "history.db") as store:
        assert store.verify().ok
        assert store.version() == "v6"


def _flipped(folder: Path, chance: random.Random) -> None:
    file = chance.choice([file for file in folder.rglob("*") if file.is_file()])
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(bytes(data))


def _deep(folder: Path, chance: random.Random) -> None:
    (folder / "manifest.json").write_text("[" * 100_000)


def _linked(folder: Path, chance: random.Random) -> None:
    (folder / "edits.jsonl").unlink()
    (folder / "edits.jsonl").symlink_to("/dev/zero")


def _huge(folder: Path, chance: random.Random) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["edits.jsonl"]["bytes"] = 1 << 60
    (folder / "manifest.json").write_text(json.dumps(manifest) + "\n")


def _piped(folder: Path, chance: random.Random) -> None:
    (folder / "operations.jsonl").unlink()
    os.mkfifo(folder / "operations.jsonl")


def test_bundles_of_an_enemy_are_refused_by_a_server_that_goes_on(
    tmp_path: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} bundles")
    with running(tmp_path / "history.db", made()) as server:
        server.add("The red cat is", "blue")
        with server.client() as client:
            whole = tmp_path / "whole"
            body = {"path": str(whole), "to": "@", "tool": "x"}
            assert client.post("/v1/owner/export", json=body).status_code == 200
            harms = [_deep, _linked, _huge, _piped, *[_flipped] * size(20, 400)]
            for harm in harms:
                copy = tmp_path / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(whole, copy)
                harm(copy, chance)
                started = time.monotonic()
                said = client.post("/v1/owner/import", json={"path": str(copy)})
                assert said.status_code == 400, (harm, said.text)
                assert said.json()["error"]["code"] in ("bundle_damaged", "bundle_too_new"), harm
                assert time.monotonic() - started < 60
                figures.add("hostile bundles at a server", "refused")
            asked = {"prompts": ["The red cat is"], "max_new_tokens": 1}
            assert client.post("/v1/generate", json=asked).json()[0]["text"] == "blue"
            assert client.get("/v1/verify").json()["ok"]
    assert len(check_whole(tmp_path / "history.db")) == 1
