"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.real
def test_the_python_of_the_quick_start_runs(smollm: Any, tmp_path: Path) -> None:
    code = blocks("python")[0]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = [line.split("# ", 1)[1] for line in code.splitlines() if "# ->" in line]
    assert shown
    for line, expected in zip(done.stdout.splitlines(), shown, strict=True):
        assert line == expected.removeprefix("-> ").strip()


@pytest.mark.real
def test_the_session_of_the_quick_start_runs(smollm: Any, tmp_path: Path) -> None:
    session = blocks("console")[0]
    commands = [line[2:] for line in session.splitlines() if line.startswith("$ ")]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "editkit"
        done = subprocess.run(
            [sys.executable, "-m", "editkit_cli", *words[1:]],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        shown = session.split(f"$ {command}\n", 1)[1].split("$ ", 1)[0].strip().splitlines()
        if words[1] == "generate":  # answers are shown word for word
            assert done.stdout.strip().splitlines() == shown, command


def test_the_readme_names_the_two_commands_and_every_command_of_the_tool() -> None:
    import click

    from editkit_cli.main import cli

    assert "make demo" in README
    assert "make test" in README
    context = click.Context(cli)
    missing = [name for name in cli.list_commands(context) if f"editkit {name}" not in README]
    assert missing == []


def test_the_readme_explains_every_exit_code() -> None:
    for code in ("0", "1", "2", "3"):
        assert re.search(rf"^\| `{code}` \|", README, flags=re.MULTILINE)
