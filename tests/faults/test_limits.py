"""Full disks, missing permissions, files that go away, clocks that go back, and crowds."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import append
from faults.conftest import Prepared
from faults.harness import (
    LONG,
    SEED,
    Figures,
    check_whole,
    child,
    environment,
    finish,
    leave_a_log,
    size,
)

from editkit_store import open_store
from editkit_store.database.holding import lock_path

pytestmark = pytest.mark.slow

WORK = ("add", "rollback", "learn", "reopen", "compact", "export")


def writer(*arguments: object, **how: Any) -> subprocess.Popen[str]:
    return child("-m", "faults.writer", *arguments, **how)


def said(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def copied(prepared: Prepared, folder: Path) -> Path:
    """A history of its own, in a folder where nothing else lies."""
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(prepared.base, folder / "history.db"))


# Full disks ----------------------------------------------------------------------------------


def check_full(out: str, err: str, code: int, path: Path) -> dict[str, Any]:
    """Asserts what has to hold after the disk was full; returns the error that said so."""
    assert code == 0, err
    lines = said(out)
    (error,) = [line for line in lines if "error" in line]
    assert error["error"] in ("StoreUnwritable", "BundleUnwritable"), error
    done = [line["operations"] for line in lines if "operations" in line]
    acknowledged = done[-2] if len(done) > 1 else 0
    # The last one was written after there was space again, by the same process.
    assert lines[-1].get("afterwards"), lines[-1]
    assert acknowledged < done[-1] <= acknowledged + 2 or not acknowledged
    assert len(check_whole(path)) == done[-1]
    # Without room to fold it into the file, the log stays, and is no less part of the history.
    found = {f.name for f in path.parent.iterdir() if not f.name.startswith("bundle")}
    assert found <= {path.name, path.name + ".wal"}
    for bundle in path.parent.glob("bundle*"):
        with open_store(":memory:", write=True, create=True) as store:
            assert store.import_bundle(bundle, dry_run=True).edits
    return error


@pytest.mark.parametrize("number", range(size(1, 12)))
@pytest.mark.parametrize("work", WORK if LONG else ("add", "export"))
def test_a_full_disk_is_an_error_and_what_was_acknowledged_stays(
    work: str, number: int, prepared: Prepared, place: Path, figures: Figures
) -> None:
    path = copied(prepared, place)
    chance = random.Random(f"{SEED} full {work} {number}")
    # `rollback` writes little, and reaches a limit only in the log beside the file.
    most = 40_000 if work == "rollback" else 400_000
    least = 0 if work == "rollback" else path.stat().st_size
    limit = least + chance.randint(4096, most)
    running = writer("full", work, path, limit)
    out, err = finish(running)
    error = check_full(out, err, running.returncode, path)
    figures.add(f"no file may grow any more, {work}", error["error"])


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An empty folder to mount a disk at; skips where that is not permitted."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("mounting a small disk needs Linux and unshare")
    folder = tmp_path / "disk"
    folder.mkdir()
    tried = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {tried.stderr.strip()}")
    return folder


@pytest.mark.parametrize("number", range(size(1, 4)))
@pytest.mark.parametrize("work", WORK if LONG else ("learn", "reopen"))
def test_a_full_small_disk_is_an_error_and_what_was_acknowledged_stays(
    work: str, number: int, prepared: Prepared, disk: Path, tmp_path: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} disk {work} {number}")
    size_kb = (
        prepared.base.stat().st_size + chance.randint(150_000, size(300_000, 900_000))
    ) // 1024
    kept = tmp_path / "kept"
    kept.mkdir()
    # The disk is gone with the process that mounted it, so what lies on it is copied out first.
    script = (
        'set -e; mount -t tmpfs -o size="$1"k none "$2"; cp "$3" "$2/history.db"; '
        'head -c 131072 /dev/zero > "$2/ballast"; '
        '"$5" -m faults.writer full "$6" "$2/history.db" 0; cp -r "$2/." "$4"'
    )
    running = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", script, "sh",
         str(size_kb), str(disk), str(prepared.base), str(kept), sys.executable, work],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    out, err = finish(running)
    error = check_full(out, err, running.returncode, kept / "history.db")
    figures.add(f"a small disk is full, {work}", error["error"])


# Permissions ---------------------------------------------------------------------------------


@pytest.fixture
def public(prepared: Prepared) -> Iterator[Path]:
    """A folder that others can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        os.chmod(folder, 0o700)


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds, but for the lock: whoever finds one left behind takes it away."""
    lock = lock_path(folder / "history.db")
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name != lock.name}


# Mode of the file, mode of the folder, and whether a killed process left its log there.
MODES = [(0o444, 0o777, True), (0o444, 0o555, False)]
if LONG:
    MODES = [(f, d, log) for f in (0o444, 0o666) for d in (0o555, 0o777) for log in (False, True)]
    MODES = [mode for mode in MODES if mode[:2] != (0o666, 0o777)]


@pytest.mark.parametrize(("file", "folder", "has_log"), MODES)
def test_what_may_only_be_read_is_read_and_never_changed(
    file: int, folder: int, has_log: bool, prepared: Prepared, public: Path
) -> None:
    path = copied(prepared, public)
    log = check_whole(path)
    if has_log:  # killed while it was open: the newest operation lies in the log beside it
        leave_a_log(path, 1).chmod(file)
    path.chmod(file)
    public.chmod(folder)
    before = contents(public)
    running = writer("permission", path)
    out, err = finish(running)
    assert running.returncode == 0, err
    read, wrote = said(out)
    assert read.get("version") == f"v{prepared.edits + 2 * has_log}", read
    # Where only the folder is closed, a log that is there already can still be written to.
    is_written = has_log and (file, folder) == (0o666, 0o555)
    assert is_written or wrote.get("error") == "StoreUnwritable", wrote
    public.chmod(0o700)
    if not is_written:
        assert contents(public) == before
    path.chmod(0o600)
    assert len(check_whole(path)) == len(log) + 2 * has_log + ("version" in wrote)


# Files that go away --------------------------------------------------------------------------

GONE: tuple[str, ...] = ("removed", "replaced")
if LONG:
    GONE += ("removed with its log", "renamed", "its log removed")


def taken_away(prepared: Prepared, place: Path, what: str) -> tuple[Path, list[dict[str, Any]]]:
    path = copied(prepared, place)
    if what == "replaced":
        shutil.copy(path, place / "copy.db")
    running = writer("removed", path, what)
    out, err = finish(running)
    assert running.returncode == 0, err
    return path, said(out)


@pytest.mark.parametrize("what", GONE)
def test_a_file_that_goes_away_takes_nothing_else_along(
    what: str, prepared: Prepared, place: Path
) -> None:
    path, lines = taken_away(prepared, place, what)
    assert lines[0] == {"did": "before"}
    if what == "renamed":
        check_whole(place / "elsewhere.db")
    if path.exists():
        check_whole(path)
    # The name can be used again.
    with open_store(path, write=True, create=True) as store:
        append(store, "a new beginning", "x")
    check_whole(path)


@pytest.mark.parametrize("what", ["removed with its log", "replaced"] if LONG else ["replaced"])
def test_nothing_is_acknowledged_that_goes_into_a_file_without_a_name(
    what: str, prepared: Prepared, place: Path
) -> None:
    _, lines = taken_away(prepared, place, what)
    assert [line.get("did") for line in lines].count("add") == 0


def test_the_log_of_a_store_that_is_gone_does_not_spoil_a_new_one(
    prepared: Prepared, place: Path
) -> None:
    path = copied(prepared, place)
    leave_a_log(path, 1)
    path.unlink()
    with open_store(path, write=True, create=True) as store:
        append(store, "a new beginning", "x")
    assert len(check_whole(path)) == 1


# Clocks --------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_times_and_nothing_else(tmp_path: Path) -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    # Back by a second, by ten years, before 1970, and on again.
    shifts = (0, -1, -2, -315_360_000, -2_000_000_000, 5, 5, 4)
    times = [start + timedelta(seconds=shift) for shift in shifts]
    path = tmp_path / "history.db"
    ticks = iter([start] * 10)  # of the migrations
    open_store(path, write=True, create=True, clock=lambda: next(ticks)).close()
    for number, now in enumerate(times):
        with open_store(path, write=True, clock=lambda now=now: now) as store:
            append(store, f"p{number % 3}", f"t{number}")
            store.tag("@", "newest")
            if number == 5:
                store.undo()
                store.redo()
    log = check_whole(path)
    assert [one.time for one in log if one.kind == "add"] == times
    with open_store(path) as store:
        current = store.history.current()
        # The newest by the log, whatever the clock said.
        active = {edit.prompt: edit.target for edit in store.history.active(current)}
        assert active == {"p0": "t6", "p1": "t7", "p2": "t5"}
        assert store.history.tags() == {"newest": current}
        store.export(tmp_path / "bundle")
    with open_store(tmp_path / "other.db", write=True, create=True) as store:
        store.import_bundle(tmp_path / "bundle")
        brought = {e.prompt: e.target for e in store.history.active(store.history.current())}
    assert brought == active
    check_whole(tmp_path / "other.db")


# Crowds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(size(2, 25)))
def test_two_that_create_at_once_share_one_store_even_if_one_is_killed(
    number: int, place: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} create {number}")
    path = place / "history.db"
    start = time.time() + 0.8
    env = environment(EDITKIT_LOCK_WAIT="60")
    both = [writer("create", path, start, env=env) for _ in range(2)]
    is_killed = number % 2 == 1
    if is_killed:
        time.sleep(max(0.0, start - time.time()) + chance.uniform(0, 0.15))
        both[0].kill()
    results = [finish(one) for one in both]
    assert both[1].returncode == 0, results[1][1]
    assert both[0].returncode in ((0, -signal.SIGKILL) if is_killed else (0,)), results[0][1]
    acknowledged = {line["edit"] for out, _ in results for line in said(out)}
    with open_store(path, write=True) as store:
        store.tag("@", "after")
    log = check_whole(path)
    there = {one.edit_id for one in log if one.kind == "add"}
    assert acknowledged <= there
    assert len(there) <= 2
    left = {file.name for file in place.iterdir()} - {"history.db"}
    # Killed while it was making the store, it leaves the folder that it made it in.
    assert len(left) <= is_killed
    assert all(name.startswith(".history.db-") for name in left), left
    figures.add("two create at once" + (", one is killed" if is_killed else ""), "times")
    figures.add("two create at once, one is killed", "left its folder", len(left))


@pytest.mark.parametrize("with_compaction", [False, True] if LONG else [True])
def test_eight_that_append_in_turn_lose_nothing(
    with_compaction: bool, prepared: Prepared, place: Path, figures: Figures
) -> None:
    path = copied(prepared, place)
    before = len(check_whole(path))
    each = size(2, 60)
    env = environment(EDITKIT_LOCK_WAIT="60")
    crowd = [writer("turn", path, f"writer {n}", each, env=env) for n in range(8)]
    if with_compaction:
        crowd.append(writer("compact", path, each, env=env))
    lines: list[dict[str, Any]] = []
    for one in crowd:
        out, err = finish(one, 600)
        assert one.returncode == 0, err
        lines += said(out)
    done = [line for line in lines if "edit" in line]
    assert len(done) == 8 * each
    log = check_whole(path)
    assert len(log) == before + len(done)
    assert {one.seq: one.edit_id for one in log[before:]} == {d["seq"]: d["edit"] for d in done}
    assert {file.name for file in place.iterdir()} == {"history.db"}
    title = "eight append in turn" + (" while one compacts" if with_compaction else "")
    figures.add(title, "acknowledged operations", len(done))
    figures.add(title, "of them lost", 0)
    if with_compaction:
        figures.add(title, "compactions", sum("compacted" in line for line in lines))
        figures.add(title, "refused without waiting", sum("refused" in line for line in lines))
