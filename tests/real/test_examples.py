"""The examples, run as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, folder: Path, said: str = "") -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, input=said,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_first_edit(smollm: Any, tmp_path: Path) -> None:
    out = run("first_edit.py", folder=tmp_path)
    lines = {line.split(":")[0]: line.split(":", 1)[1].strip() for line in out.splitlines()
             if ":" in line}  # fmt: skip
    assert lines["corrected"] == "v1 verified"
    assert lines["after"] == lines["reopened"] == "Canberra"
    assert lines["before"] == lines["at v0"] == lines["rolled back"]
    assert "Canberra" not in lines["before"]
    assert "v2  rollback" in out
    assert list(tmp_path.iterdir()) == []


def test_correction_loop(smollm: Any, tmp_path: Path) -> None:
    talk = "What is your name?\n/fix Edith.\nWhat is your name?\n/why\n/log\n/quit\n"
    out = run("correction_loop.py", folder=tmp_path, said=talk)
    assert "learned in" in out
    assert out.count("model: Edith.") == 1
    assert "fires: the prompt is" in out
    assert "v1  add  What is your name? -> Edith." in out
    # The next conversation, in a new process, knows it; and /undo takes it back.
    out = run("correction_loop.py", folder=tmp_path, said="What is your name?\n/undo\n"
              "What is your name?\n/fix  \n/nonsense\n")  # fmt: skip
    assert out.count("model: Edith.") == 1
    assert "took back v1 (add)" in out
    assert "sorry: the target is empty" in out
    assert "commands: /fix TEXT" in out
