"""`editkit token` and `editkit serve` on the command line."""

from __future__ import annotations

import importlib.util
import json
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from editkit_cli.service.tokens import TokenFile, tokens_path
from editkit_store.database.files import locked, write_private

STORE = Path("history.db")


def test_a_token_is_shown_once_listed_without_its_secret_and_revoked(sh, folder):
    made = sh("token", "create", "dashboard", "--role", "edit")
    assert made.code == 0
    secret = made.stdout.strip()
    assert secret.startswith("ek-")
    assert made.stderr == "a token for 'dashboard', who may edit; it is not shown again\n"
    as_json = sh("token", "create", "bot", "--json", "--quiet")
    assert (as_json.code, as_json.stderr) == (0, "")
    assert {"id", "name", "role", "created", "token"} == set(as_json.json)
    assert as_json.json["role"] == "read"
    listed = sh("token", "list", "--json")
    assert [(one["name"], one["role"]) for one in listed.json] == [
        ("dashboard", "edit"),
        ("bot", "read"),
    ]
    assert secret not in listed.stdout
    assert "dashboard" in sh("token", "list").stdout
    found = TokenFile(STORE).find(secret)
    assert found is not None
    assert (found.name, found.role) == ("dashboard", "edit")
    gone = sh("token", "revoke", as_json.json["id"])
    assert (gone.code, gone.stderr) == (0, "the token of 'bot' is refused from now on\n")
    assert TokenFile(STORE).find(as_json.json["token"]) is None
    assert TokenFile(STORE).find(secret) == found
    assert not STORE.exists(), "tokens need no store"


def test_a_token_has_a_name_of_its_own_that_can_be_read(sh):
    assert sh("token", "create", "bot").code == 0
    for name, said in (("bot", "already"), (" ", "printable"), ("a\nb", "printable"),
                       ("x" * 101, "100")):  # fmt: skip
        ran = sh("token", "create", name)
        assert (ran.code, ran.stdout) == (1, "")
        assert said in ran.stderr
    ran = sh("token", "revoke", "nobody")
    assert (ran.code, ran.stdout) == (1, "")
    assert "there is no token 'nobody'" in ran.stderr
    assert sh("token", "create", "x", "--role", "king").code == 2


def test_a_damaged_file_of_tokens_is_told_and_not_overwritten(sh):
    write_private(tokens_path(STORE), "nonsense")
    ran = sh("token", "create", "bot")
    assert (ran.code, ran.stdout) == (1, "")
    assert "is not a file of tokens" in ran.stderr
    assert tokens_path(STORE).read_text() == "nonsense"


def test_private_files_are_private_from_their_first_byte_and_whole(folder):
    path = folder / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert [one.name for one in folder.iterdir()] == ["secret"]


def test_a_lock_that_somebody_left_behind_does_not_stay(folder):
    path = folder / "secret"
    (folder / ".secret.lock").touch()
    with locked(path):
        assert (folder / ".secret.lock").exists()
    assert list(folder.iterdir()) == []


def test_tokens_that_many_processes_make_at_once_are_all_there(folder):
    """Each waits for its turn, however long the one before it takes."""
    (folder / ".history.db.tokens.lock").touch()  # of somebody who was killed
    code = (
        "import sys, time; from pathlib import Path\n"
        "from editkit_cli.service import tokens\n"
        "write = tokens.write_private\n"
        "tokens.write_private = lambda *a: (time.sleep(0.05), write(*a))\n"
        "file = tokens.TokenFile(Path('history.db'))\n"
        "print(flush=True); sys.stdin.readline()\n"
        "for number in range(3): file.create(f'{sys.argv[1]}-{number}', 'read')"
    )
    ran = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(8)
    ]  # fmt: skip
    for one in ran:
        assert one.stdout is not None
        one.stdout.readline()  # all are ready
    for one in ran:
        assert one.communicate(b"\n", timeout=60)[1] == b""
    found = {one.name for one in TokenFile(STORE).all()}
    assert found == {f"{number}-{token}" for number in range(8) for token in range(3)}
    assert [one.name for one in folder.iterdir()] == ["history.db.tokens"]


def test_serving_without_the_libraries_says_how_to_install_them(sh, folder, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "fastapi" else found(name, *a)
    )
    ran = sh("serve")
    assert (ran.code, ran.stdout) == (1, "")
    assert "hint: pip install 'editkit[server]'" in ran.stderr
    assert list(folder.iterdir()) == []


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(sh, folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = sh("serve", "--port", str(port), "--model", "no-such-model")
    assert (ran.code, ran.stdout) == (1, "")
    assert f"cannot listen at 127.0.0.1, port {port}" in ran.stderr
    ran = sh("serve", "--host", "not an address", "--port", "0")
    assert (ran.code, ran.stdout) == (1, "")


def test_a_model_that_is_not_there_leaves_nothing_behind(sh, folder):
    ran = sh("serve", "--port", "0", "--model", "no-such-model")
    assert (ran.code, ran.stdout) == (1, "")
    assert "no-such-model" in ran.stderr
    assert list(folder.iterdir()) == []


def test_an_address_that_others_reach_is_warned_of(sh):
    ran = sh("serve", "--host", "0.0.0.0", "--port", "0", "--model", "no-such-model")
    assert ran.code == 1
    assert "other machines can reach this server" in ran.stderr


def test_tokens_need_no_server_libraries(process, folder):
    code = (
        "import sys; from editkit_cli.main import main\n"
        "try: main(['token', 'create', 'bot'])\n"
        "except SystemExit: pass\n"
        "from editkit_cli.service.owner import find_server\n"
        "print(sorted({'fastapi', 'uvicorn', 'torch', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_of_a_token_holds_nothing_but_its_record(sh: Any) -> None:
    sh("token", "create", "bot")
    kept = json.loads(tokens_path(STORE).read_text())
    assert set(kept[0]) == {"id", "name", "role", "created", "digest"}
    assert kept[0]["digest"].startswith("sha256:")
