"""kill -9 at random moments: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from faults.conftest import Prepared
from faults.harness import LONG, SEED, Figures, Forked, Nursery, check_whole, child, size

from editkit_cli.commands.shared.add_file import TOGETHER
from editkit_store import open_store
from editkit_store.history import Operation

pytestmark = pytest.mark.slow

COMMANDS = ("add", "kit.add", "add --from", "replay", "rollback", "compact")
KILLS = [(command, number) for command in COMMANDS for number in range(size(2, 34))]
WHOLE = [
    (command, number)
    for command in (("rollback", "compact", "add --from") if LONG else ("rollback", "compact"))
    for number in range(size(1, 8))
]

LINES = size(40, 120)
"""Edits in the file of `add --from`."""

# Seconds from the first acknowledgement to the kill, at most: several operations' worth.
LATEST = {
    "add": size(0.4, 0.8),
    "kit.add": 0.4,
    "add --from": size(0.2, 0.5),
    "replay": size(0.7, 1.5),
    "rollback": 0.4,
    "compact": 0.8,
}

LOCK = ".history.db.lock"
"""Locks nobody out: whoever held it is gone."""

LEFT_OF_COMPACT = ".history.db-private-"


def start(nursery: Nursery, prepared: Prepared, place: Path, command: str, seed: int) -> Forked:
    arguments: dict[str, tuple[str, list[Any]]] = {
        "add": ("add", [prepared.model, seed]),
        "kit.add": ("kit.add", [prepared.model, seed]),
        "add --from": ("cli", ["add", "--from", "edits.jsonl", "--json", "--nl", "--quiet"]),
        "replay": ("replay", [prepared.other, prepared.edits]),
        "rollback": ("rollback", [prepared.edits, seed]),
        "compact": ("compact", [prepared.edits, seed]),
    }
    task, given = arguments[command]
    return nursery.start(place, task, *given)


def write_edits(place: Path) -> None:
    words = ("Paris", "Rome", "Oslo", "red", "green", "blue")
    lines = [
        json.dumps({"prompt": f"Line {i} is", "target": words[i % len(words)]})
        for i in range(LINES)
    ]
    (place / "edits.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lay_out(prepared: Prepared, place: Path) -> int:
    """Puts a history and edits to add where a command will run; returns the length of its log."""
    shutil.copy(prepared.base, place / "history.db")
    write_edits(place)
    return prepared_length(prepared)


def check_acknowledged(command: str, said: list[Any], new: list[Operation]) -> None:
    """Every operation that was acknowledged is in the log, in its place; at most one more is.

    Of a file's edits as many more as are appended together.
    """
    if command == "replay":
        ends = [one.target_version for one in new if one.target_version is not None]
        done = [one["to"] for one in said]
        # Beside the ends of replays there are only their batches, each of one replay.
        batches = [one for one in new if one.target_version is None]
        learning = [one for one in said if one["learned"] + one["failed"]]
        assert all("records" in one.detail for one in batches)
        assert len(learning) <= len(batches) <= len(learning) + 1
        found: list[Any] = list(ends)
    elif command in ("rollback", "compact"):
        done = [(one["version"], one["to"]) for one in said if "version" in one]
        found = [(f"v{one.version}", one.target_version) for one in new]
    else:
        done = [(one["version"], _edit_id(one)) for one in said]
        found = [(f"v{one.version}", one.edit_id) for one in new]
    assert found[: len(done)] == done
    assert len(found) <= len(done) + (TOGETHER if command == "add --from" else 1)


def _edit_id(said: dict[str, Any]) -> str:
    edit = said["edit"]
    return str(edit["id"] if isinstance(edit, dict) else edit)


def check_strays(place: Path, command: str) -> set[str]:
    """Only the store, its write-ahead log and what a compaction leaves may lie there."""
    found = {file.name for file in place.iterdir()} - {"edits.jsonl"}
    allowed = {"history.db", "history.db.wal", LOCK}
    if command == "compact":
        allowed |= {name for name in found if name.startswith(LEFT_OF_COMPACT)}
    assert found <= allowed, found - allowed
    return found


def go_on(nursery: Nursery, prepared: Prepared, place: Path, command: str) -> None:
    """Runs the next command of the same kind to its end."""
    commands: dict[str, list[Any]] = {
        "add": ["add", "--prompt", "Afterwards is", "--target", "Oslo"],
        "add --from": ["add", "--from", "edits.jsonl"],
        "replay": ["replay", "history.db", "--model", prepared.other],
        "rollback": ["rollback", "v1"],
        "compact": ["compact"],
    }
    arguments = commands[command.replace("kit.add", "add")]
    nursery.run(place, "cli", *arguments, "--json", "--quiet")


def check_after(prepared: Prepared, place: Path, command: str, old: list[Operation]) -> None:
    """Asserts that the history went on from where it was, and that nothing is left lying about."""
    assert {file.name for file in place.iterdir()} <= {"history.db", "edits.jsonl"}
    log = check_whole(place / "history.db")
    assert [one.digest for one in log[: len(old)]] == [one.digest for one in old]
    if command == "add --from":
        with open_store(place / "history.db") as store:
            prompts = [e.prompt for e in store.history.active(store.history.current())]
        assert sorted(p for p in prompts if p.startswith("Line")) == sorted(
            f"Line {i} is" for i in range(LINES)
        )
        assert len(log) == prepared_length(prepared) + LINES
    elif command != "compact":
        assert len(log) > len(old)


def prepared_length(prepared: Prepared) -> int:
    with open_store(prepared.base) as store:
        return store.history.count()


@pytest.mark.parametrize(("command", "number"), KILLS)
def test_a_kill_at_any_moment_loses_nothing_acknowledged(
    command: str, number: int, nursery: Nursery, prepared: Prepared, place: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} {command} {number}")
    before = lay_out(prepared, place)
    running = start(nursery, prepared, place, command, number)
    running.wait_for_a_line()
    time.sleep(chance.uniform(0, LATEST[command]))
    code = running.kill()
    assert code == -signal.SIGKILL, running.err.read_text()
    found = check_strays(place, command)
    log = check_whole(place / "history.db")
    said = running.said()
    check_acknowledged(command, said, log[before:])
    go_on(nursery, prepared, place, command)
    check_after(prepared, place, command, log)
    title = f"kill -9 in {command}"
    figures.add(title, "kills")
    figures.add(title, "acknowledged operations", len(said))
    figures.add(title, "written but not yet acknowledged", _unacknowledged(said, log[before:]))
    figures.add(title, "left a write-ahead log", int("history.db.wal" in found))
    if command == "compact":
        has_copy = any(name.startswith(LEFT_OF_COMPACT) for name in found)
        figures.add(title, "left an unfinished copy", int(has_copy))


def _unacknowledged(said: list[Any], new: list[Operation]) -> int:
    ends = [one for one in new if one.kind != "replay" or one.target_version is not None]
    return len(ends) - sum("compacted" not in one for one in said)


@pytest.mark.parametrize(("command", "number"), WHOLE)
def test_a_kill_of_a_whole_process_loses_nothing_acknowledged(
    command: str, number: int, nursery: Nursery, prepared: Prepared, place: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} whole {command} {number}")
    before = lay_out(prepared, place)
    arguments = {
        "rollback": ["rollback", "v3"],
        "compact": ["compact"],
        "add --from": ["add", "--from", "edits.jsonl", "--nl"],
    }[command]
    started = time.monotonic()
    running = child("-m", "editkit_cli", *arguments, "--json", "--quiet", cwd=place)
    lines: list[str] = []
    if command == "add --from":  # its start takes seconds, so it is waited for
        assert running.stdout is not None
        lines.append(running.stdout.readline())
        started = time.monotonic()
    latest = 0.6 if command != "add --from" else LATEST[command]
    time.sleep(max(0.0, started + chance.uniform(0, latest) - time.monotonic()))
    running.kill()
    # Not communicate(): it passes over what the first line's reader has taken in beyond that line.
    with running as dead:
        assert dead.stdout is not None
        assert dead.stderr is not None
        lines += dead.stdout.readlines()
        assert dead.wait(60) in (0, -signal.SIGKILL), dead.stderr.read()
    check_strays(place, command)
    log = check_whole(place / "history.db")
    if command == "add --from":
        said = [json.loads(line) for line in lines if line.endswith("\n")]
        check_acknowledged(command, said, log[before:])
    elif command == "rollback":
        assert len(log) - before in ((1,) if lines else (0, 1))
    else:
        assert len(log) == before
    go_on(nursery, prepared, place, command)
    check_after(prepared, place, command, log)
    title = f"kill -9 of a whole process, {command}"
    figures.add(title, "kills" if running.returncode else "were done before")
