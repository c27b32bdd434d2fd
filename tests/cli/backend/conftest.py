"""The same history twice: in a folder where nobody serves it, and in one where somebody does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Ran
from cli.http.conftest import Running, running
from click.testing import CliRunner

import editkit
from editkit_cli.main import cli
from editkit_store.records import Provenance

ASKED = (
    ("The red cat is", "blue"),
    ("tall tree", "gold"),
    ("The red cat is", "green"),
)

_DIFFERS = (
    (re.compile(r"http://127\.0\.0\.1:\d+"), "URL"),
    (re.compile(r"(sha256:)?\b[0-9a-f]{12,64}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)"), "TIME"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "TIME"),
    (re.compile(r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4} \w+"), "TIME"),
    (re.compile(r'("seconds": |seconds +|about )[\d.]+'), r"\1N"),
    (re.compile(r"\b\d+\.\d+ (s|MB)\b"), r"N \1"),
    (re.compile(r'("(store_bytes|tensors|artifacts|edits|log|free|write_ahead_log|bytes|before'
                r'|after)": )\d+'), r"\1N"),
)  # fmt: skip


def alike(text: str) -> str:
    """Takes out what differs between any two runs: ids, times, bytes of a file."""
    for pattern, instead in _DIFFERS:
        text = pattern.sub(instead, text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


@dataclass
class Place:
    """A folder with a history, where commands are run.

    Attributes:
        folder: The working folder.
        server: Who holds the store, if somebody does.
        ids: The edits, oldest first.
    """

    folder: Path
    server: Running | None = None
    ids: list[str] = field(default_factory=list)

    def run(self, *args: str, stdin: str | None = None) -> Ran:
        """Runs a command line in this process; `{0}` stands for the first edit's id."""
        line = [arg.format(*self.ids) if re.search(r"\{\d\}", arg) else arg for arg in args]
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(cli, line, input=stdin, prog_name="editkit")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)


@dataclass
class Pair:
    """The same history, with and without a server."""

    alone: Place
    served: Place

    def same(self, *args: str, stdin: str | None = None) -> Ran:
        """Runs a command line in both places, asserts that nobody can tell, and returns one."""
        alone = self.alone.run(*args, stdin=stdin)
        served = self.served.run(*args, stdin=stdin)
        assert served.code == alone.code, (alone, served)
        assert alike(served.stderr) == alike(alone.stderr)
        assert alike(served.stdout) == alike(alone.stdout)
        for place, ran in ((self.alone, alone), (self.served, served)):
            if args[0] == "add" and "--json" in args and ran.stdout[:1] == "{":
                place.ids.append(json.loads(ran.stdout)["edit"]["id"])
        return served


@pytest.fixture(scope="module")
def quiet_environment() -> Iterator[None]:
    """No editkit settings from outside; short waits."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("EDITKIT_")]:
            if name not in ("EDITKIT_HOME", "EDITKIT_JUDGE"):
                patch.delenv(name)
        patch.setenv("EDITKIT_LOCK_WAIT", "0.1")
        patch.setenv("EDITKIT_AUTHOR", "ada")
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> tuple[Path, list[str]]:
    """A store with three edits and a tag; the ids of the edits."""
    path = tmp_path_factory.mktemp("base") / "history.db"
    who = Provenance(author="grace", command="made up", tool="editkit 0.1.0")
    with editkit.open(path, model=tiny_model, provenance=who) as kit:
        ids = [kit.add(prompt, target).edit.id for prompt, target in ASKED]
        kit.tag("v2", "prod")
        kit.tag("v0", "raw")
    return path, ids


@contextlib.contextmanager
def served_pair(folder: Path, base: tuple[Path, list[str]], model: str) -> Iterator[Pair]:
    """Copies the base twice, and serves one of the copies until the body ends."""
    path, ids = base
    places = []
    for name in ("alone", "served"):
        (folder / name).mkdir()
        shutil.copy(path, folder / name / "history.db")
        places.append(Place(folder / name, ids=list(ids)))
    with running(folder / "served" / "history.db", model) as server:
        places[1].server = server
        yield Pair(*places)


@pytest.fixture(scope="module")
def calm_pair(
    tmp_path_factory: pytest.TempPathFactory,
    base: tuple[Path, list[str]],
    tiny_model: str,
    quiet_environment: None,
) -> Iterator[Pair]:
    """For commands that change nothing."""
    with served_pair(tmp_path_factory.mktemp("calm"), base, tiny_model) as pair:
        yield pair


@pytest.fixture
def pair(
    tmp_path: Path, base: tuple[Path, list[str]], tiny_model: str, quiet_environment: None
) -> Iterator[Pair]:
    """For commands that change something."""
    with served_pair(tmp_path, base, tiny_model) as pair:
        yield pair


@pytest.fixture
def serving(
    tmp_path: Path, base: tuple[Path, list[str]], tiny_model: str, quiet_environment: None
) -> Iterator[Callable[[], Place]]:
    """Starts servers on one copy of the base, one after the other."""
    shutil.copy(base[0], tmp_path / "history.db")
    with contextlib.ExitStack() as stack:

        def start() -> Place:
            server = stack.enter_context(running(tmp_path / "history.db", tiny_model))
            return Place(tmp_path, server, list(base[1]))

        yield start


def forbidden(*_: Any, **__: Any) -> Any:
    """Stands where nobody should come by."""
    raise AssertionError("the command went on alone")
