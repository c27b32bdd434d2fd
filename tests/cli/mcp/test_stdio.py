"""`editkit mcp` as a host starts it: a process whose stdout is the protocol, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.http.conftest import Running
from cli.mcp.conftest import over_stdio, run

from editkit_store import open_store

HELLO = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "by hand", "version": "0"},
    },
}  # fmt: skip
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def asking(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


class Host:
    """A host that speaks the protocol by hand, and sees every byte of it."""

    def __init__(self, *args: str, code: str | None = None) -> None:
        start = ["-c", code] if code else ["-m", "editkit_cli"]
        self.process = subprocess.Popen(
            [sys.executable, *start, "mcp", *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout

    def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.input.write(json.dumps(message) + "\n")
        self.input.flush()

    def hear(self) -> Any:
        line = self.output.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        return json.loads(line)

    def end(self) -> tuple[int, str, str]:
        """Exit code, what else came on stdout, and stderr, after the input has ended."""
        said, errors = self.process.communicate(timeout=60)
        return self.process.returncode, said, errors


@contextlib.contextmanager
def host(*args: str, code: str | None = None) -> Iterator[Host]:
    one = Host(*args, code=code)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


NOISY = """
import os, sys, editkit
opened = editkit.open
def noisy(*args, **how):
    print("printed while the model is loaded")
    os.write(1, b"written by a library in C\\n")
    assert sys.stdin.read() == ""
    return opened(*args, **how)
editkit.open = noisy
from editkit_cli.main import main
main(sys.argv[1:])
"""


def test_stdout_carries_only_the_protocol_and_the_end_of_the_input_ends_it(
    tmp_path: Path, tiny_model: str
) -> None:
    args = ("--store", str(tmp_path / "h.db"), "--model", tiny_model)
    with host(*args, code=NOISY) as it:
        it.send(HELLO)  # before the model is loaded
        assert it.hear()["result"]["serverInfo"]["name"] == "editkit"
        it.send(READY, asking(2, "add", prompt="The red cat is", target="blue"))
        result = it.hear()["result"]
        assert result["structuredContent"]["result"]["verified"]
        it.input.write("this is no message\n")
        it.send(asking(3, "show", name="v1"))
        heard = it.hear()
        while heard.get("id") != 3:  # whatever it says of what it could not read
            heard = it.hear()
        said = heard["result"]["structuredContent"]["provenance"]
        assert (said["agent"], said["command"]) == ("by hand 0", "mcp add")
        code, rest, errors = it.end()
    assert (code, rest) == (0, "")
    assert "printed while the model is loaded" in errors
    assert "written by a library in C" in errors
    assert "for the agent at stdin and stdout" in errors
    assert "Traceback" not in errors


def test_a_signal_ends_it_when_what_is_being_learned_is_written_down(
    tmp_path: Path, tiny_model: str
) -> None:
    store = tmp_path / "h.db"
    with host("--store", str(store), "--model", tiny_model, "--quiet") as it:
        it.send(HELLO, READY, asking(2, "add", prompt="The red cat is", target="blue", wait=False))
        it.hear()
        assert it.hear()["result"]["structuredContent"]["state"] == "pending"
        it.process.send_signal(signal.SIGTERM)  # its input stays open
        assert it.process.wait(60) == 0
        assert it.end() == (0, "", "")
    with open_store(store) as history:
        assert [one.target for one in history.log()] == ["blue"]


def test_what_cannot_be_opened_is_told_on_stderr_and_nothing_on_stdout(tmp_path: Path) -> None:
    with host("--store", str(tmp_path / "h.db"), "--model", "no-such-model") as it:
        code, said, errors = it.end()
    assert (code, said) == (1, "")
    assert "no-such-model" in errors
    assert "Traceback" not in errors


def test_a_store_that_another_process_holds_is_told_with_how_to_share_it(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITKIT_LOCK_WAIT", "0.1")
    store = tmp_path / "h.db"
    with (
        open_store(store, write=True, create=True),
        host("--store", str(store), "--model", tiny_model) as it,
    ):
        code, said, errors = it.end()
    assert (code, said) == (1, "")
    assert "hint: run `editkit serve` on it instead" in errors


def test_beside_a_server_that_holds_the_store_it_passes_its_tools_on(server: Running) -> None:
    async def work() -> None:
        # No model is loaded: the one that is named here could not be.
        async with over_stdio(server.store, "no-such-model") as agent:
            assert (await agent.told("status"))["model"] == server.model
            done = await agent.told("add", prompt="The red cat is", target="blue")
            assert done["result"]["version"] == server.kit.version == "v1"
            assert [one[:2] for one in agent.progress] == [(0, 1), (1, 1)]
            assert (await agent.told("generate", prompt="The red cat is"))["text"] == "blue"
            assert (await agent.refused("show", name="v9"))["code"] == "unknown_version"
            said = (await agent.told("show", name="v1"))["provenance"]
            assert said["agent"] == "fixer 1.2"
            await asyncio.to_thread(server.stop)
            error = await agent.refused("status")
            assert error["code"] == "server_gone"

    run(work())


def test_the_token_of_the_owner_is_not_shown_anywhere(server: Running) -> None:
    with host("--store", str(server.store)) as it:
        it.send(HELLO, READY, asking(2, "status"))
        said = [json.dumps(it.hear()), json.dumps(it.hear())]
        code, rest, errors = it.end()
    assert code == 0
    for text in (*said, rest, errors):
        assert server.owner.token not in text
    assert "through the server at" in errors
