"""Which server is asked, which is not, and what happens where it comes and goes."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.backend.conftest import Pair, Place, forbidden

from editkit_cli.backend import opening
from editkit_cli.backend.remote import RemoteBackend
from editkit_cli.service import owner as owners
from editkit_cli.service.client import connection as connections
from editkit_cli.service.owner import Owner, new_owner, owner_path
from editkit_store import open_store
from editkit_store.database.files import write_private

CAT = "The red cat is"


def command(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "editkit_cli", *args], cwd=folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_eight_commands_at_once_all_succeed_and_none_loads_a_framework(pair: Pair) -> None:
    folder = pair.served.folder
    program = (
        "import sys\nfrom editkit_cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as left: code = left.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'duckdb', 'fastapi', 'httpx'}\n"
        "heavy &= set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\nsys.exit(code)"
    )
    lines = [
        ["add", "--prompt", "one two", "--target", "three"],
        ["add", "--prompt", "sea", "--target", "sky"],
        ["add", "--prompt", "bird", "--target", "fish"],
        ["generate", CAT, "--max-new-tokens", "3"],
        ["log", "--json"],
        ["tag", "v1", "first"],
        ["explain", CAT],
        ["status", "--json"],
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *line], cwd=folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for line in lines
    ]  # fmt: skip
    for line, one in zip(lines, running, strict=True):
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, (line, out, err)
        assert err.splitlines()[-1] == "[]", line
        assert out
    log = pair.served.run("log", "--json").json
    assert {"one two", "sea", "bird"} <= {entry["prompt"] for entry in log}
    assert log[0]["operation"] in ("add", "tag")


def test_after_kill_9_of_the_server_commands_work_alone_and_say_nothing_of_it(
    tmp_path: Path, base: Any, tiny_model: str, quiet_environment: None
) -> None:
    shutil.copy(base[0], tmp_path / "history.db")
    server = command(tmp_path, "serve", "--port", "0", "--nl")
    try:
        assert server.stdout is not None
        assert server.stdout.readline()
        place = Place(tmp_path, ids=base[1])
        found = place.run("status", "--json")
        assert found.json["server"].startswith("http://127.0.0.1:")
        added = place.run("add", "--prompt", "sea", "--target", "sky", "--json")
        assert (added.code, added.json["verified"]) == (0, True)
        server.send_signal(signal.SIGKILL)
    finally:
        server.kill()
        server.communicate(timeout=60)
    assert owner_path(tmp_path / "history.db").exists()
    log = place.run("log", "--json")
    assert (log.code, log.stderr) == (0, "")
    assert log.json[0]["prompt"] == "sea"
    assert place.run("status", "--json").json["server"] is None
    undone = place.run("undo", "--json", "-q")
    assert (undone.code, undone.stderr, undone.json["view"]) == (0, "", 2)


def test_another_model_or_preset_than_the_servers_is_refused(
    calm_pair: Pair, other_model: str, tiny_model: str
) -> None:
    served = calm_pair.served
    assert served.run("generate", CAT, "--model", tiny_model, "-q").stdout == "green\n"
    for line in (["generate", CAT], ["add", "--prompt", "x", "--target", "blue"], ["explain", CAT],
                 ["add", "--from", "-"], ["diff", "v1", "v2", "--behavior"]):  # fmt: skip
        ran = served.run(*line, "--model", other_model, stdin='{"prompt": "a", "target": "B"}\n')
        assert ran.code == 1, line
        assert ran.stdout in ("", "[]\n"), line
        assert "holds the store and runs" in ran.stderr
        assert "hint: leave --model out" in ran.stderr
    ran = served.run("add", "--prompt", "x", "--target", "blue", "--preset", "paper")
    assert (ran.code, ran.stdout) == (1, "")
    assert "hint: leave --preset out, or stop the server" in ran.stderr
    assert served.run("log", "--model", other_model).code == 0, "it needs no model"


def test_a_store_that_is_served_is_there_already(
    calm_pair: Pair, other_model: str, tiny_model: str
) -> None:
    assert calm_pair.same("init").code == 0
    assert calm_pair.same("init", "--model", tiny_model, "--json").json["model"] == tiny_model
    ran = calm_pair.served.run("init", "--model", other_model)
    assert (ran.code, ran.stdout) == (1, "")
    assert "holds the store and runs" in ran.stderr


def test_a_server_of_another_editkit_is_refused(
    calm_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    import editkit_cli

    monkeypatch.setattr(editkit_cli, "__version__", "99.0", raising=False)
    ran = calm_pair.served.run("log")
    assert (ran.code, ran.stdout) == (1, "")
    assert "this is editkit 99.0\nhint: stop the server" in ran.stderr


def test_a_replay_onto_another_model_goes_through_the_server(pair: Pair, other_model: str) -> None:
    planned = pair.same("replay", "--model", other_model, "--dry-run", "--json")
    assert planned.json["to_learn"] == 2
    done = pair.same("replay", "history.db", "--model", other_model, "--json")
    assert (done.code, done.json["learned"]) == (0, 2)
    assert pair.served.run("generate", CAT, "-q").stdout == "green\n"


def test_progress_on_a_terminal_follows_the_operation(
    pair: Pair, other_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editkit.editing import replay
    from editkit_store.records import Provenance

    steps: list[Any] = []
    seen = threading.Event()
    learn = replay._learn

    class Bar:
        def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
            steps.append((task, total, unit))
            seen.set()

        def advance(self, amount: int = 1) -> None:
            steps.append(amount)

        def done(self) -> None:
            steps.append("done")

    def watched(*args: Any) -> Any:
        assert seen.wait(60), "the client did not hear that learning began"
        return learn(*args)

    monkeypatch.setattr(replay, "_learn", watched)
    assert pair.served.server is not None
    with contextlib.closing(connections.ServerConnection(pair.served.server.owner)) as wire:
        remote = RemoteBackend(wire, Path("history.db"), model=other_model, provenance=Provenance())
        done = remote.replay(progress=Bar())
    assert done.learned == 2
    assert steps[0] == ("Learning edits", 2, "edits")
    assert steps[-1] == "done"


@pytest.mark.parametrize("line", [["log"], ["undo"], ["generate", CAT, "--max-new-tokens", "3"]])
def test_a_server_that_ends_between_finding_and_asking_is_done_without(
    serving: Callable[[], Place], monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    place = serving()
    assert place.server is not None
    there, stop = connections.ServerConnection.is_alive, place.server.stop
    monkeypatch.setattr(connections, "_IDLE", -1.0)  # so that no connection outlives its server

    def found(self: Any) -> bool:
        is_there = there(self)
        stop()
        return is_there

    monkeypatch.setattr(connections.ServerConnection, "is_alive", found)
    ran = place.run(*line)
    assert ran.code == 0, ran
    assert ran.stdout
    assert "server" not in ran.stderr


def test_a_change_that_was_sent_is_not_made_twice(
    serving: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = serving()
    sent = connections.ServerConnection._send

    def lost(self: Any, connection: Any, method: str, path: str, body: Any) -> Any:
        answer = sent(self, connection, method, path, body)
        if path == "/v1/undo":
            answer.read()
            raise ConnectionResetError
        return answer

    monkeypatch.setattr(connections.ServerConnection, "_send", lost)
    ran = place.run("undo")
    assert (ran.code, ran.stdout) == (1, "")
    assert "went away before it answered; it is not known whether the change was made" in ran.stderr
    assert "hint: `editkit log`" in ran.stderr
    assert [one["operation"] for one in place.run("log", "--json").json].count("undo") == 1


def test_a_server_that_starts_while_a_command_waits_for_the_store_is_found(
    serving: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:

    place = serving()
    looks: list[bool] = []
    found = opening.find_connection

    def late(settings: Any) -> Any:
        looks.append(True)
        return None if len(looks) == 1 else found(settings)

    monkeypatch.setattr(opening, "find_connection", late)
    assert place.run("log").code == 0
    assert len(looks) == 2


def test_a_server_does_not_start_while_a_command_holds_the_store(
    tmp_path: Path, base: Any, quiet_environment: None
) -> None:
    shutil.copy(base[0], tmp_path / "history.db")
    with open_store(tmp_path / "history.db", write=True):
        server = command(tmp_path, "serve", "--port", "0")
        out, err = server.communicate(timeout=60)
    assert (server.returncode, out) == (1, "")
    assert f"is held by process {os.getpid()}" in err


def test_a_file_that_others_could_have_written_is_passed_over_with_a_warning(
    tmp_path: Path, base: Any, quiet_environment: None
) -> None:
    shutil.copy(base[0], tmp_path / "history.db")
    owner = new_owner(tmp_path / "history.db", host="127.0.0.1", port=9, tool="editkit 0.1.0")
    owner.write()
    place = Place(tmp_path)
    assert place.run("log").stderr == ""
    owner_path(tmp_path / "history.db").chmod(0o644)
    ran = place.run("log")
    assert ran.code == 0
    assert "other users could have written it" in ran.stderr
    assert "hint: if it belongs to a server of yours" in ran.stderr
    write_private(owner_path(tmp_path / "history.db"), "not a record")
    assert place.run("log").stderr == ""


def test_a_stranger_at_the_port_sees_no_token_and_is_passed_over(
    tmp_path: Path, base: Any, quiet_environment: None
) -> None:
    shutil.copy(base[0], tmp_path / "history.db")
    heard: list[bytes] = []

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.requestline.encode() + bytes(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok", "proof": "' + b"0" * 64 + b'"}')

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        try:
            owner = new_owner(
                tmp_path / "history.db", host="127.0.0.1", port=stranger.server_port, tool="x"
            )
            owner.write()
            place = Place(tmp_path)
            for line in (["log"], ["tag", "v1", "x"], ["rollback", "v1"]):
                ran = place.run(*line)
                assert ran.code == 0
                assert owner.token not in ran.stdout + ran.stderr
        finally:
            stranger.shutdown()
            thread.join()
    assert len(heard) == 3
    assert owner.token.encode() not in b"".join(heard)


def test_ctrl_c_ends_the_command_and_not_the_change(
    serving: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = serving()
    sent = connections.ServerConnection._send

    def pressed(self: Any, connection: Any, method: str, path: str, body: Any) -> Any:
        answer = sent(self, connection, method, path, body)
        if method == "POST":
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(connections.ServerConnection, "_send", pressed)
    ran = place.run("add", "--prompt", "sea", "--target", "sky")
    assert (ran.code, ran.stdout) == (130, "")
    said = "interrupted: the server carries out what it was asked; `editkit log` shows it then\n"
    assert ran.stderr.lstrip() == said
    monkeypatch.undo()
    deadline = time.monotonic() + 60
    while place.run("log", "--json").json[0]["prompt"] != "sea":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_dead_port_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    owner: Owner = new_owner(tmp_path / "h.db", host="127.0.0.1", port=port, tool="x")
    assert not connections.ServerConnection(owner).is_alive()
    monkeypatch.setattr(owners, "_is_proved", forbidden)
    assert not connections.ServerConnection(owner).is_alive()


class Crowded(http.server.BaseHTTPRequestHandler):
    """A server that is there, and too busy to say more."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(503)
        self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(b'{"error": {"message": "busy", "code": "busy"}}')

    def log_message(self, *_: Any) -> None: ...


def test_who_is_too_busy_to_answer_is_not_taken_for_nobody(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "history.db"
    open_store(store, write=True, create=True).close()
    before = store.read_bytes()
    monkeypatch.setattr(owners, "_PATIENCE", 0.5)
    with http.server.HTTPServer(("127.0.0.1", 0), Crowded) as crowded:
        threading.Thread(target=crowded.serve_forever, daemon=True).start()
        new_owner(store, host="127.0.0.1", port=crowded.server_port, tool="editkit 0.1.0").write()
        for line in (["log"], ["tag", "v0", "x"], ["sql", "SELECT 1"], ["token", "link"]):
            ran = pair.alone.run(*line, "--store", str(store))
            assert (ran.code, ran.stdout) == (1, ""), line
            assert "too busy" in ran.stderr
        assert Crowded.asked > 4, "each asks again for a while"
        crowded.shutdown()
    assert store.read_bytes() == before
