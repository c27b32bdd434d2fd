"""A shell in an empty folder: the commands in this process, and stores to run them on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from editkit_cli.backend.local import LocalBackend
from editkit_cli.main import cli
from editkit_store import digest_bytes, open_store
from editkit_store.records import Artifact, EditRequest

FINGERPRINT = "sha256:" + "ab" * 32


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


Shell = Callable[..., Ran]


def backend_of(kit: Any) -> LocalBackend:
    """Returns a backend of this process whose model is loaded already."""
    return LocalBackend(
        kit.store.path,
        provenance=kit.provenance,
        open_kit=lambda: contextlib.nullcontext(kit),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no editkit settings from outside."""
    for name in [name for name in os.environ if name.startswith("EDITKIT_")]:
        if name not in ("EDITKIT_HOME", "EDITKIT_JUDGE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EDITKIT_LOCK_WAIT", "0.1")
    monkeypatch.setenv("EDITKIT_AUTHOR", "ada")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sh(folder: Path) -> Shell:
    """Runs a command line in this process."""

    def run(*args: str, stdin: str | bytes | None = None) -> Ran:
        result = CliRunner().invoke(cli, list(args), input=stdin, prog_name="editkit")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def process(folder: Path) -> Callable[..., Ran]:
    """Runs a command line in a process of its own."""

    def run(*args: str, **how: Any) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "editkit_cli", *args],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            **how,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def fill(folder: Path) -> Callable[[Path, list[tuple[str, str]]], list[str]]:
    """Adds edits to a store as if a model had learned them; returns their ids."""
    return _fill


@pytest.fixture
def history(folder: Path) -> list[str]:
    """`history.db` with three edits, the second superseded by the third; their ids."""
    return _fill(
        Path("history.db"), [("The sky is", "blue"), ("2 + 2 =", "4"), ("2 + 2 =", "four")]
    )


def _fill(path: Path, edits: list[tuple[str, str]]) -> list[str]:
    ids = []
    with open_store(path, write=True, create=True) as store:
        for prompt, target in edits:
            edit = store.prepare(EditRequest(prompt=prompt, target=target))
            payload = f"{prompt} {target}".encode()
            artifact = Artifact(
                edit_id=edit.id,
                fingerprint=FINGERPRINT,
                model="some-model",
                method="grace",
                verified=True,
                usable=True,
                digest=digest_bytes(payload),
            )
            store.add(edit, artifact=artifact, payload=payload, activate=True)
            ids.append(edit.id)
    return ids


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the tiny random model."""
    from tiny import save_tiny

    return str(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with another tiny random model."""
    from tiny import save_tiny

    return str(save_tiny(tmp_path_factory.mktemp("models") / "other", seed=1))
