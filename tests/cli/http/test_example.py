"""The example of a chatbot, run as a reader would run it, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[3] / "examples" / "chatbot_correction_loop.py"


def talk(said: str, *, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=folder, input=said, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, **env},
    )  # fmt: skip


def test_a_user_corrects_the_chatbot_and_the_next_conversation_knows_it(server: Any) -> None:
    folder = server.store.parent
    done = talk(
        "/fix too early\nWhich bird?\n/fix gold\nWhich bird?\n/why\n/version v0\nWhich bird?\n"
        "/version\n/log\n/fix \n/version v9\n/help\n/quit\n", folder=folder,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "ask me something first" in done.stdout
    assert "learned in" in done.stdout
    assert done.stdout.count("model: gold") == 1
    assert "fires" in done.stdout
    assert f"asking {server.model}@v0 from now on" in done.stdout
    assert "v1  add  Which bird? -> gold" in done.stdout
    assert "sorry: the target is empty" in done.stdout
    assert "sorry: there is no version 'v9'" in done.stdout
    assert "commands: /fix TEXT" in done.stdout
    # Somebody else, with a token of her own.
    env = {"EDITKIT_URL": server.url, "EDITKIT_TOKEN": server.token("edit", "ada")}
    done = talk("Which bird?\n/undo\nWhich bird?\n", folder=folder.parent, **env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("model: gold") == 1
    assert "took back v1 (add)" in done.stdout
    assert server.kit.log(limit=1)[0].author == "ada"


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = talk("", folder=tmp_path)
    assert done.returncode == 1
    assert "run `editkit serve`" in done.stderr
