"""What the fault tests share: how much to run, processes to harm, and what a whole store is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from editkit_store import Store, digest_bytes, open_store
from editkit_store.digest import digest_json
from editkit_store.history import Operation, prompt_digest

Number = TypeVar("Number", int, float)

LONG = os.environ.get("EDITKIT_FAULTS") == "long"
SEED = int(os.environ.get("EDITKIT_FAULTS_SEED", "20260102"))
TESTS = Path(__file__).parents[1]
WAIT = 120.0
"""Seconds after which a child counts as hanging, where a test gives no limit of its own."""


def size(short: Number, long: Number) -> Number:
    """How many of something this run does, or how long."""
    return long if LONG else short


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: no settings of editkit's, one thread, our tests importable."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("EDITKIT_")}
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **more,
    }


def child(*arguments: object, **how: Any) -> subprocess.Popen[str]:
    """Starts a Python process."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=how.pop("stdout", subprocess.PIPE),
        stderr=how.pop("stderr", subprocess.PIPE),
        text=True,
        env=how.pop("env", None) or environment(),
        **how,
    )


def finish(process: subprocess.Popen[str], seconds: float = WAIT) -> tuple[str, str]:
    """Waits for a child and returns what it printed; one that hangs is killed and fails."""
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"hung for {seconds:.0f} s; it had said:\n{out}\n{err}") from None


# Figures ------------------------------------------------------------------------------------


@dataclass
class Figures:
    """Counts for the table at the end: what was done, and what came of it."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, title: str, outcome: str, count: int = 1) -> None:
        self.counts.setdefault(title, Counter())[outcome] += count

    def lines(self) -> list[str]:
        return [
            f"{title:<44} " + ", ".join(f"{count} {what}" for what, count in found.items())
            for title, found in self.counts.items()
        ]


# Children with a model ----------------------------------------------------------------------


class Nursery:
    """A process that has imported torch and editkit, and forks children that run commands.

    So a command's process begins where it begins to work, and two hundred of them take minutes.
    """

    def __init__(self) -> None:
        self._process = child(
            "-m", "faults.nursery", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._ask({"task": "ready"}) == {"ready": True}, "the nursery did not start"

    def start(self, folder: Path, task: str, *arguments: object) -> Forked:
        """Starts a task in a child of its own, in a folder that gets its output."""
        out, err = folder.with_name(folder.name + ".out"), folder.with_name(folder.name + ".err")
        out.write_bytes(b"")
        err.write_bytes(b"")
        asked = {
            "task": task,
            "arguments": [str(a) if isinstance(a, Path) else a for a in arguments],
            "folder": str(folder),
            "out": str(out),
            "err": str(err),
        }
        return Forked(int(self._ask(asked)["pid"]), out, err, self)

    def run(self, folder: Path, task: str, *arguments: object) -> None:
        """Runs a task to its end; it must succeed."""
        started = self.start(folder, task, *arguments)
        code = started.wait()
        assert code == 0, f"{task} {arguments} left with {code}:\n{started.err.read_text()}"

    def ended(self, pid: int) -> int | None:
        """Returns the exit code of a child as `subprocess` gives it, or None while it runs."""
        code = self._ask({"task": "ended", "pid": pid})["code"]
        return None if code is None else int(code)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery has died"
        found: dict[str, Any] = json.loads(answer)
        return found


@dataclass
class Forked:
    """A child of the nursery."""

    pid: int
    out: Path
    err: Path
    nursery: Nursery

    def said(self) -> list[Any]:
        """Returns the lines printed so far; a line that was cut off is no acknowledgement."""
        lines = self.out.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def wait_for_a_line(self) -> None:
        deadline = time.monotonic() + WAIT
        while not self.said():
            code = self.nursery.ended(self.pid)
            assert code is None, f"it ended with {code} first:\n{self.err.read_text()}"
            assert time.monotonic() < deadline, "it said nothing"
            time.sleep(0.005)

    def kill(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self, seconds: float = WAIT) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.nursery.ended(self.pid)) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"hung for {seconds:.0f} s")
            time.sleep(0.005)
        return code


KILLED = """
import os, sys
from conftest import append
from editkit_store import open_store
store = open_store(sys.argv[1], write=True)
for number in range(int(sys.argv[2])):
    append(store, f"p{number}", "x" * 300)
store.rollback("v1")
os._exit(0)
"""


def leave_a_log(path: Path, edits: int) -> Path:
    """Appends so many edits and a rollback in a process that dies; returns the log it leaves."""
    finish(child("-c", KILLED, path, edits))
    log = path.with_name(path.name + ".wal")
    assert log.exists()
    return log


# What a whole store is ----------------------------------------------------------------------


def check_whole(path: Path) -> list[Operation]:
    """Asserts that a store holds together, by reading it anew; returns its log, oldest first.

    The views are folded here from the raw rows, so they do not depend on the queries under test.
    """
    with open_store(path, wait=30) as store:
        found = store.verify()
        assert found.ok, found.problems
        log = store.history.operations()[::-1]
        assert len(store.log()) == len(log)
        assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
        expected = fold(store)
        current = store.history.current()
        assert sorted(expected) == list(range(current + 1))
        ids = [str(row[0]) for row in store._db.query("SELECT edit_id FROM edits")]
        # Each takes milliseconds: in a short run the newest, and some of the rest.
        step = 1 if LONG else 10
        for version in {*range(0, current, step), max(0, current - 1), current}:
            states = expected[version]
            active = [edit_id for edit_id, state in states.items() if state == "active"]
            assert sorted(store.history.active_ids(version)) == sorted(active), version
            assert store.history.active_count(version) == len(active), version
        found_states = {e.id: e.status for e in store.history.edits(ids, at=current).values()}
        assert found_states == expected[current]
        return log


def fold(store: Store) -> dict[int, dict[str, str]]:
    """Returns the state of every edit at every version."""
    edits = store._db.query(
        "SELECT e.edit_id, prompt_digest, ordinal, o.version, o.changed FROM edits e "
        "JOIN operations o ON o.seq = e.seq"
    )
    rows = store._db.query("SELECT version, edit_id, member FROM membership ORDER BY version")
    last = store._db.query("SELECT coalesce(max(version), 0) FROM operations")[0][0]
    states: dict[int, dict[str, str]] = {}
    members: set[str] = set()
    for version in range(last + 1):
        for at, edit_id, member in rows:
            if at == version:
                (members.add if member else members.discard)(edit_id)
        newest: dict[str, tuple[int, str]] = {}
        for edit_id, prompt, ordinal, *_ in edits:
            if edit_id in members:
                newest[prompt] = max(newest.get(prompt, (0, "")), (ordinal, edit_id))
        on_top = {edit_id for _, edit_id in newest.values()}
        states[version] = {
            edit_id: ("active" if edit_id in on_top else "superseded")
            if edit_id in members
            else ("reverted" if changed else "failed")
            for edit_id, *_, changed in edits
        }
    return states


def at_version(store: Store, version: int) -> list[Any]:
    """Returns all that can be read from a store about one version."""
    return [
        store.history.maker(version).digest,
        store.history.active_count(version),
        [edit.model_dump(mode="json") for edit in store.history.active(version)],
    ]


def everything(store: Store) -> dict[str, str]:
    """Returns the digests of all that can be read from a store: its log, every version, ..."""
    current = store.history.current()
    ids = [str(row[0]) for row in store._db.query("SELECT edit_id FROM edits ORDER BY ordinal")]
    status = store.status().model_dump(mode="json", exclude={"store", "store_bytes", "space"})
    edits = store.history.edits(ids, at=current)
    seen: dict[str, Any] = {
        "status": status,
        "log": [entry.model_dump(mode="json") for entry in store.log()],
        "edits": [edits[edit_id].model_dump(mode="json") for edit_id in ids],
        "artifacts": [
            one.model_dump(mode="json")
            for edit_id in ids
            for one in store.artifacts.of_edit(edit_id)
        ],
        "changes": store.history.changes(0, current),
        "provenance": [
            one.provenance.model_dump(mode="json") for one in store.history.operations()
        ],
        "prompts": [store.history.same_prompt(prompt_digest(edits[i]), current) for i in ids],
    }
    for version in range(current + 1):
        seen[f"v{version}"] = at_version(store, version)
    for fingerprint in sorted(status["models"]):
        seen[f"tensors {fingerprint}"] = sorted(
            [one.age, one.edit_id, digest_bytes(one.payload), str(one.conflicts)]
            for part in store.artifacts.usable(fingerprint, method="grace")
            for one in part
        )
    for view in ("active_edits", "edit_history", "operation_log", "codebook_rows"):
        seen[view] = [[str(cell) for cell in row] for row in store._db.query(f"FROM {view}")]
    return {name: digest_json(value) for name, value in seen.items()}
