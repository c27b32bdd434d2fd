"""Writes to a store until something stops it: `python -m faults.writer TASK ARGUMENTS`.

Prints one JSON line for each operation whose call has returned, and for each error of editkit's;
any other exception is a traceback and an exit code of 1. Loads no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
from conftest import append

from editkit_store import Store, digest_bytes, open_store
from editkit_store.database.compact import compact
from editkit_store.errors import EditkitError, QueryFailed, StoreLocked
from editkit_store.records import Artifact

WRITES = 400
"""More than fit under any of the limits."""


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def said_error(error: EditkitError) -> None:
    say(error=type(error).__name__, message=str(error), hint=error.hint)


# What there is to write. Each returns the log's length after it. -----------------------------


def _adding(path: Path) -> Iterator[int]:
    chance = random.Random(1)
    with open_store(path, write=True) as store:
        for number in range(WRITES):
            append(store, f"p{number} " + chance.randbytes(3000).hex(), "x")
            yield store.history.count()


def _rolling_back(path: Path) -> Iterator[int]:
    with open_store(path, write=True) as store:
        newest = store.history.current()
        for number in range(WRITES * 10):
            store.rollback(f"v{number % newest}")
            store.tag("@", f"t{number}")
            yield store.history.count()


def _learning(path: Path) -> Iterator[int]:
    """Batches of artifacts, as a replay stores them."""
    chance = random.Random(2)
    with open_store(path, write=True) as store:
        edits = store.history.active(store.history.current())
        for number in range(WRITES):
            learned = []
            for edit in edits:
                data = chance.randbytes(4000)
                one = Artifact(
                    edit_id=edit.id, fingerprint=f"sha256:{number}", model="m", method="grace",
                    verified=True, usable=True, digest=digest_bytes(data), radius=1.0, conflicts={},
                )  # fmt: skip
                learned.append((one, data))
            store.put_artifacts(learned)
            yield store.history.count()


def _reopening(path: Path) -> Iterator[int]:
    """As commands do it: opened, written and closed each time."""
    chance = random.Random(3)
    for number in range(WRITES):
        with open_store(path, write=True) as store:
            append(store, f"p{number} " + chance.randbytes(20_000).hex(), "x")
            count = store.history.count()
        yield count


def _compacting(path: Path) -> Iterator[int]:
    for number in range(WRITES):
        compact(path)
        with open_store(path, write=True) as store:
            append(store, f"p{number} " + "x" * 20_000, "x")
            count = store.history.count()
        yield count


def _exporting(path: Path) -> Iterator[int]:
    for number in range(WRITES):
        with open_store(path, write=True) as store:
            append(store, f"p{number} " + "x" * 60_000, "x")
            yield store.history.count()
            # Beside the file, where a full disk is just as full.
            store.export(path.with_name(f"bundle{number}"))


WORK: dict[str, Callable[[Path], Iterator[int]]] = {
    "add": _adding,
    "rollback": _rolling_back,
    "learn": _learning,
    "reopen": _reopening,
    "compact": _compacting,
    "export": _exporting,
}


# Tasks ---------------------------------------------------------------------------------------


def until_full(work: str, path: str, limit: str) -> None:
    """Works until no file may grow beyond ``limit`` bytes; 0: until the disk is full."""
    if int(limit):
        # A limit on file size fails writes as a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    try:
        for count in WORK[work](Path(path)):
            say(operations=count)
        say(enough=True)
    except EditkitError as error:
        said_error(error)
    # Space is free again: the same process goes on.
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        Path(path).with_name("ballast").unlink()
    with open_store(path, write=True) as store:
        append(store, "space again", "x")
        say(operations=store.history.count(), afterwards=True)


def in_turn(path: str, name: str, count: str) -> None:
    """Appends edits, one opening each, among others that do the same."""
    for number in range(int(count)):
        with open_store(path, write=True, create=True) as store:
            edit = append(store, f"{name} {number}", "x")
            seq = store.history.count()
        say(edit=edit.id, seq=seq)


def create(path: str, start: str) -> None:
    """Makes a store, or finds it made, at a moment that several processes agreed on."""
    time.sleep(max(0.0, float(start) - time.time()))
    with open_store(path, write=True, create=True) as store:
        edit = append(store, f"by {os.getpid()}", "x")
        say(edit=edit.id)


def without_permission(path: str) -> None:
    """Reads and writes as somebody who may not write here; says what came of each."""
    # The store imports these when it needs them; who may not read our files cannot by then.
    for module in ("getpass", "tempfile"):
        importlib.import_module(module)
    if os.geteuid() == 0:  # the superuser may write everywhere
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    for name, act in (("read", _read), ("write", _write)):
        try:
            say(tried=name, version=act(Path(path)))
        except EditkitError as error:
            say(tried=name, error=type(error).__name__, message=str(error))


def _read(path: Path) -> str:
    with open_store(path) as store:
        assert store.verify().ok
        return store.version()


def _write(path: Path) -> str:
    with open_store(path, write=True) as store:
        append(store, "not permitted", "x")
        return store.version()


def removed(path: str, what: str) -> None:
    """Goes on writing to a store whose file somebody takes away."""
    place = Path(path)
    store = open_store(place, write=True)
    append(store, "before", "x")
    say(did="before")
    _take_away(place, what)
    for name, act in (
        ("add", lambda: append(store, "after", "x")),
        ("verify", store.verify),
        ("add", lambda: append(store, "after that", "x")),
        ("close", store.close),
    ):
        try:
            act()
            say(did=name)
        except EditkitError as error:
            said_error(error)


def _take_away(place: Path, what: str) -> None:
    log = place.with_name(place.name + ".wal")
    if what in ("removed", "removed with its log"):
        place.unlink()
    if what in ("its log removed", "removed with its log"):
        log.unlink()
    if what == "renamed":
        place.rename(place.with_name("elsewhere.db"))
    if what == "replaced":
        os.replace(place.with_name("copy.db"), place)


def compacting(path: str, count: str) -> None:
    """Compacts among others that write."""
    done = 0
    while done < int(count):
        try:
            compact(Path(path))
        except StoreLocked:  # taken by another one between the two times that it is opened
            say(refused=True)
        else:
            done += 1
            say(compacted=True)


def _noisy(store: Store, marker: Path) -> None:
    """Does one of the things that a process may do with a store that it holds."""
    path = store.path

    def again(**how: Any) -> None:
        with contextlib.suppress(StoreLocked):
            open_store(path, wait=0, **how).close()
            say(met="a second opening in one process")

    def refused(query: str) -> None:
        with contextlib.suppress(QueryFailed):
            store.sql(query)

    def compacted() -> None:
        marker.unlink()  # others may read meanwhile, and somebody with DuckDB alone be faster
        with contextlib.suppress(StoreLocked):
            store.compact()
        _alone(marker)

    random.choice(
        [
            lambda: store.sql("SELECT count(*) FROM operations"),
            lambda: refused(f"COPY (SELECT 1) TO '{path}' (FORMAT csv, USE_TMP_FILE false)"),
            lambda: again(write=True),
            lambda: again(write=False),
            lambda: store.verify(),
            compacted,
            lambda: store.export(path.with_name(f"bundle-{os.getpid()}-{time.monotonic_ns()}")),
            lambda: os.waitpid(os.fork() or os._exit(0), 0),
        ]
    )()


def contending(path: str, name: str, seed: str) -> None:
    """Writes in bursts among others that do the same, until it is killed.

    Whoever has the store to write leaves its process id beside it, and takes that of nobody but a
    dead one away: two writers would meet there.
    """
    random.seed(f"{name} {seed}")
    marker = Path(path).with_name("writer")
    number = 0
    while True:
        time.sleep(random.uniform(0, 0.05))
        try:
            # By DuckDB alone, too, whose lock is the one that was lost.
            if random.random() < 0.3:
                with contextlib.suppress(duckdb.Error), duckdb.connect(path) as raw:
                    _alone(marker)
                    raw.execute("SELECT count(*) FROM operations").fetchall()
                    marker.unlink()
                continue
            store = open_store(path, write=True, wait=0)
        except StoreLocked:
            continue
        with store:
            _alone(marker)
            for _ in range(random.randrange(1, 4)):
                edit = append(store, f"{name} {seed} {number}", "x" * random.randrange(3000))
                number += 1
                say(edit=edit.id, seq=store.history.count(), by=name)
                if random.random() < 0.5:
                    _noisy(store, marker)
            marker.unlink()


def _alone(marker: Path) -> None:
    try:
        other = int(marker.read_text() or 0)
    except (FileNotFoundError, ValueError):
        other = 0
    if other and Path(f"/proc/{other}").exists() and "Z" not in _state(other):
        say(met=f"process {other} was writing when {os.getpid()} got in")
    marker.write_text(str(os.getpid()))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


TASKS: dict[str, Callable[..., None]] = {
    "full": until_full,
    "turn": in_turn,
    "create": create,
    "permission": without_permission,
    "removed": removed,
    "compact": compacting,
    "contend": contending,
}

if __name__ == "__main__":
    TASKS[sys.argv[1]](*sys.argv[2:])
