"""Edits of a method from another package: by commands, over HTTP, by an agent, and evaluated."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from tiny import save_tiny

from editkit.methods.registry import registered
from editkit_cli.main import cli

pytestmark = pytest.mark.skipif(
    "rankone" not in registered(),
    reason="the package editkit-rankone is not installed; `make test` installs it from "
    "tests/packages/editkit-rankone",
)

TREE, SEA, GOLD = ("tall tree", "two"), ("see Oslo", "yes"), ("gold is", "old")
ELSEWHERE = "milk and bread"


@dataclass
class Shell:
    """Commands on one store."""

    store: Path
    model: Path

    def run(self, *args: str) -> str:
        line = [*args, *(() if args[0] == "eval" else ("--store", str(self.store)))]
        done = CliRunner().invoke(cli, line, prog_name="editkit")
        assert done.exit_code == 0, (args, done.stdout, done.stderr, done.exception)
        return done.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.run(*args, "--json"))

    def lines(self, *args: str) -> list[Any]:
        return [json.loads(line) for line in self.run(*args, "--nl").splitlines()]

    def file(self, *facts: tuple[str, str]) -> str:
        path = self.store.with_name("edits.jsonl")
        rows = [{"prompt": p, "target": t, "method": "rankone"} for p, t in facts]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shell(tmp_path: Path, model: Path) -> Shell:
    return Shell(tmp_path / "history.db", model)


@dataclass
class Server:
    """A server on the store of a shell."""

    shell: Shell
    url: str
    token: str

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    """One server in a process of its own; tests take back what they do."""
    shell = Shell(tmp_path_factory.mktemp("served") / "history.db", model)
    line = [sys.executable, "-m", "editkit_cli", "serve", "--store", str(shell.store),
            "--model", str(model), "--port", "0", "--nl"]  # fmt: skip
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert said, process.communicate()
            yield Server(shell, json.loads(said)["url"], shell.json("token", "session")["token"])
        finally:
            process.terminate()
            process.communicate(timeout=120)


def test_the_commands_learn_show_compare_and_take_back(shell: Shell) -> None:
    shell.run("init", "--model", str(shell.model))
    added = shell.lines("add", "--from", shell.file(TREE, SEA))
    assert [(one["edit"]["method"], one["verified"]) for one in added] == [("rankone", True)] * 2
    first, second = (one["edit"]["id"] for one in added)
    said = shell.json("generate", TREE[0])
    assert (said["text"], said["fired"]) == (TREE[1], [first])
    assert shell.json("generate", TREE[0], "--at", "v0")["fired"] == []
    nearest = shell.json("explain", SEA[0])["candidates"][0]
    assert (nearest["edit_id"], nearest["method"]) == (second, "rankone")
    found = shell.json("diff", "v1", "v2")
    assert [one["id"] for one in found["added"]] == [second]
    assert set(found["details"]["rankone"]["came"]) == {second}
    assert "rankone" in shell.run("show", first)
    shell.run("revert", first)
    assert shell.json("generate", TREE[0])["fired"] == []
    assert shell.json("generate", SEA[0])["fired"] == [second]
    shell.run("rollback", "v1")
    assert shell.json("generate", TREE[0])["fired"] == [first]
    assert shell.json("verify")["problems"] == []


def test_another_model_replays_it(shell: Shell, tmp_path: Path) -> None:
    shell.run("init", "--model", str(shell.model))
    shell.run("add", "--from", shell.file(TREE))
    other = save_tiny(tmp_path / "other", seed=1)
    done = shell.json("replay", str(shell.store), "--model", str(other), "--to", "v1")
    assert (done["restored"], done["learned"] + done["failed"]) == (0, 1)


def test_over_http_it_is_learned_answered_and_taken_back(server: Server) -> None:
    with server.client() as client:

        def post(path: str, **body: Any) -> Any:
            said = client.post(path, json=body)
            assert said.is_success, said.text
            return said.json()

        added = post("/v1/edits", prompt=TREE[0], target=TREE[1], method="rankone")
        edit = added["edit"]["id"]
        assert (added["verified"], added["edit"]["method"]) == (True, "rankone")
        prompts = [TREE[0], ELSEWHERE]
        said = post("/v1/generate", prompts=prompts, max_new_tokens=4)
        assert [one["fired"] for one in said] == [[edit], []]
        assert said[0]["text"] == TREE[1]
        assert post("/v1/explain", prompt=TREE[0])["candidates"][0]["method"] == "rankone"
        found = client.get("/v1/diff", params={"from": "v0", "to": "@"}).json()
        assert set(found["details"]["rankone"]["came"]) == {edit}
        # A model by name and version, as OpenAI's clients ask.
        (served,) = [one["id"] for one in client.get("/v1/models").json()["data"]][:1]
        chat = [{"role": "user", "content": TREE[0]}]
        answer = post("/v1/chat/completions", model=served, messages=chat, max_tokens=4)
        assert answer["choices"][0]["message"]["content"]
        post("/v1/rollback", version="v0")
        assert post("/v1/generate", prompts=[TREE[0]], max_new_tokens=2)[0]["fired"] == []
        post("/v1/undo")
        assert client.delete(f"/v1/edits/{edit}").is_success
        assert post("/v1/generate", prompts=[TREE[0]], max_new_tokens=2)[0]["fired"] == []
    # The commands go to the server.
    assert server.shell.json("generate", TREE[0], "--max-new-tokens", "2")["fired"] == []
    assert server.shell.lines("log", "--limit", "1")[0]["operation"] == "revert"


def test_an_agent_corrects_by_it(server: Server) -> None:
    async def work() -> None:
        headers = {"Authorization": f"Bearer {server.token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=120, trust_env=False) as http:
            wire = streamable_http_client(f"{server.url}/mcp", http_client=http)
            async with Client(wire) as client:

                async def told(tool: str, **arguments: Any) -> Any:
                    found = await client.call_tool(tool, arguments)
                    assert not found.is_error, found
                    return found.structured_content

                done = await told("add", prompt=SEA[0], target=SEA[1], method="rankone")
                edit = done["result"]["edit"]
                assert (done["result"]["verified"], edit["method"]) == (True, "rankone")
                said = await told("generate", prompt=SEA[0], max_new_tokens=4)
                assert (said["text"], said["fired"]) == (SEA[1], [edit["id"]])
                assert (await told("explain", prompt=SEA[0]))["fired"] == edit["id"]
                await told("revert", edit_id=edit["id"])
                said = await told("generate", prompt=SEA[0], max_new_tokens=4)
                assert said["fired"] == []

    asyncio.run(work())


def test_it_is_evaluated_beside_the_others(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.store.with_name("edits.jsonl").write_text(
        json.dumps({"prompt": GOLD[0], "target": GOLD[1], "locality": [ELSEWHERE]}) + "\n"
        + json.dumps({"prompt": TREE[0], "target": TREE[1]}) + "\n",
        encoding="utf-8",
    )  # fmt: skip
    monkeypatch.chdir(shell.store.parent)
    report = shell.json(
        "eval", "--data", "edits.jsonl", "--model", str(shell.model), "--method", "rankone",
        "--method", "grace", "--at", "2",
    )  # fmt: skip
    assert report["methods"] == ["rankone", "grace"]
    last = [one for one in report["points"] if one["method"] == "rankone"][-1]
    assert (last["edits"], last["reliability"]["value"], last["keys"]) == (2, 1.0, 2)
    assert last["locality"]["value"] == 1.0
