"""Two writers never meet: locks that nothing loses, and what notices if they did meet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from conftest import append

from editkit_store import Store, open_store
from editkit_store.database.holding import lock_path
from editkit_store.database.outputs import write_output
from editkit_store.errors import (
    NotAStore,
    QueryFailed,
    StoreChanged,
    StoreError,
    StoreGone,
    StoreLocked,
    UnsafeTarget,
)

pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="only Linux tells which process holds which lock"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with two edits."""
    where = tmp_path / "history.db"
    with open_store(where, write=True, create=True) as store:
        append(store, "a", "1")
        append(store, "b", "2")
    return where


def locks(path: Path) -> set[tuple[str, str]]:
    """What this process holds on a store: DuckDB's lock and ours, each to READ or to WRITE."""
    inodes = {file.stat().st_ino for file in (path, lock_path(path)) if file.exists()}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if int(words[4]) == os.getpid() and int(words[5].rpartition(":")[2]) in inodes:
            found.add((words[1], words[3]))
    return found


WRITER = {("POSIX", "WRITE"), ("FLOCK", "WRITE")}
READER = {("POSIX", "READ"), ("FLOCK", "READ")}


def elsewhere(path: Path, *, write: bool) -> str:
    """What becomes of an opening in another process: by us, and by DuckDB alone."""
    code = """
        import sys, duckdb
        from editkit_store import open_store
        from editkit_store.errors import StoreLocked
        path, write = sys.argv[1], sys.argv[2] == "write"
        said = []
        try:
            open_store(path, write=write, wait=0).close()
            said.append("ours")
        except StoreLocked as error:
            said.append(str(error.pid))
        try:
            duckdb.connect(path, read_only=not write).close()
            said.append("duckdb's")
        except duckdb.IOException:
            said.append("refused")
        print(*said)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path, "write" if write else "read"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_an_open_store_has_two_locks_and_leaves_nothing_beside_it(path: Path) -> None:
    with open_store(path, write=True):
        assert locks(path) == WRITER
    assert locks(path) == set()
    with open_store(path):
        assert locks(path) == READER
    assert locks(path) == set()
    assert [file.name for file in path.parent.iterdir()] == ["history.db"]


def _again(store: Store, *, write: bool) -> None:
    with pytest.raises(StoreLocked, match="open in this process already") as caught:
        open_store(store.path, write=write)
    assert caught.value.pid == os.getpid()


def _linked(store: Store) -> None:
    for make in (os.symlink, os.link):
        other = store.path.with_name(f"{make.__name__}.db")
        make(store.path, other)
        with pytest.raises(StoreLocked, match="open in this process already"):
            open_store(other, write=True)
        other.unlink()


def _by_duckdb(store: Store) -> None:
    for read_only in (False, True):
        with pytest.raises(duckdb.ConnectionException):
            duckdb.connect(str(store.path), read_only=read_only)
    alike = {"autoinstall_known_extensions": False}  # then it is the same database for DuckDB
    duckdb.connect(str(store.path), config=alike).close()


def _refused(store: Store) -> None:
    with pytest.raises(QueryFailed):
        store.sql("COPY (SELECT 1) TO 'x'")
    with pytest.raises(UnsafeTarget):
        write_output(store.path, b"x")
    with pytest.raises(UnsafeTarget):
        write_output(store.path.with_name("history.db.wal"), b"x")


def _failed(store: Store) -> None:
    with pytest.raises(StoreError), store._db.transaction():
        store._db.execute("DELETE FROM no_such_table")


def _forked(_: Store) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


DONE: dict[str, Callable[[Store], object]] = {
    "sql": lambda store: store.sql("SELECT count(*) FROM edits"),
    "a second opening to write": lambda store: _again(store, write=True),
    "a second opening to read": lambda store: _again(store, write=False),
    "an opening by another name": _linked,
    "an opening by DuckDB itself": _by_duckdb,
    "verify": lambda store: store.verify(),
    "export": lambda store: store.export(store.path.with_name("bundle")),
    "compact": lambda store: store.compact(),
    "a copy": lambda store: store._db.copy_to(store.path.with_name("copy.db")),
    "status and log": lambda store: (store.status(), store.log()),
    "a write that was refused": _refused,
    "a transaction that failed": _failed,
    "a checkpoint": lambda store: store._db.checkpoint(),
    "a child that ended": _forked,
}


@pytest.mark.parametrize("what", DONE)
def test_a_writer_keeps_its_locks_after(what: str, path: Path) -> None:
    with open_store(path, write=True) as store:
        DONE[what](store)
        assert locks(path) == WRITER
        assert elsewhere(path, write=True) == f"{os.getpid()} refused"
        assert elsewhere(path, write=False) == f"{os.getpid()} refused"
        append(store, "c", "3")
        assert store.verify().ok
    with open_store(path) as store:
        assert store.log()[0].target == "3"


@pytest.mark.parametrize("what", ["sql", "verify", "export", "status and log", "a copy"])
def test_a_reader_keeps_its_locks_after(what: str, path: Path) -> None:
    with open_store(path) as store:
        DONE[what](store)
        with open_store(path) as second:  # several readers in one process are fine
            assert second.version() == "v2"
        assert locks(path) == READER
        assert elsewhere(path, write=True) == f"{os.getpid()} refused"
        assert elsewhere(path, write=False) == "ours duckdb's"
        with pytest.raises(StoreLocked, match="open in this process already"):
            open_store(path, write=True)


def test_somebody_who_uses_duckdb_beside_us_keeps_the_lock(path: Path) -> None:
    with duckdb.connect(str(path)) as raw:
        for write in (False, True):
            with pytest.raises(StoreLocked):
                open_store(path, write=write)
        assert ("POSIX", "WRITE") in locks(path)
    alike = {"autoinstall_known_extensions": False}
    with duckdb.connect(str(path), config=alike) as raw:
        for _ in range(2):
            open_store(path, write=True).close()
        assert ("POSIX", "WRITE") in locks(path)
        assert elsewhere(path, write=True).endswith("refused")
        assert raw.execute("SELECT count(*) FROM edits").fetchall() == [(2,)]
    assert elsewhere(path, write=True) == "ours duckdb's"


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"\0" * 100, b"PAR1" * 50, b""])
def test_what_is_no_store_is_not_kept_open(content: bytes, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(content)
    for write in (False, True):
        with pytest.raises(NotAStore):
            open_store(other, write=write)
    assert locks(other) == set()
    assert [file.name for file in tmp_path.iterdir()] == ["other.db"]


def test_a_lock_that_was_left_behind_locks_nobody_out(path: Path) -> None:
    lock_path(path).touch()
    with open_store(path, write=True) as store:
        append(store, "c", "3")
    assert not lock_path(path).exists()


def test_a_child_does_not_hold_what_its_parent_let_go(path: Path) -> None:
    read, write = os.pipe()
    with open_store(path, write=True):
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is through
            os._exit(0)
    os.close(read)
    try:
        assert elsewhere(path, write=True) == "ours duckdb's"
    finally:
        os.close(write)
        os.waitpid(child, 0)


# What notices that two have met all the same -------------------------------------------------


def written_by_another(path: Path) -> None:
    """Does what a second writer does, of whom no lock kept us: the bytes of its history are there.

    In a file of its own, and then copied into ours, since nobody gets in the usual way any more.
    """
    other = path.with_name("other.db")
    shutil.copyfile(path, other)
    log = path.with_name("history.db.wal")
    if log.exists():
        shutil.copyfile(log, other.with_name("other.db.wal"))
    with open_store(other, write=True) as store:
        append(store, "theirs", "5")
    path.write_bytes(other.read_bytes())
    log.unlink(missing_ok=True)
    other.unlink()


def test_what_another_wrote_is_noticed_and_kept(path: Path) -> None:
    store = open_store(path, write=True)
    append(store, "ours", "4")
    written_by_another(path)
    theirs = path.read_bytes()
    with pytest.raises(StoreChanged, match="another process wrote") as caught:
        append(store, "lost", "6")
    assert "verify" in str(caught.value.hint)
    for act in (
        lambda: store.rollback("v0"),
        lambda: store.remember(model="x"),
        lambda: store.sql("SELECT 1"),
        lambda: store.compact(),
    ):
        with pytest.raises(StoreChanged):
            act()
    problems = store.verify().problems
    assert [(one.kind, "another process" in one.message) for one in problems] == [("file", True)]
    with pytest.raises(StoreChanged):  # so that nobody says that everything is written down
        store.close()
    assert path.read_bytes() == theirs
    with open_store(path) as after:
        assert [entry.prompt for entry in after.log()] == ["theirs", "ours", "b", "a"]
        assert after.verify().ok


def test_a_store_that_is_only_closed_writes_nothing_over_what_another_wrote(path: Path) -> None:
    store = open_store(path, write=True)
    append(store, "ours", "4")
    written_by_another(path)
    theirs = path.read_bytes()
    with pytest.raises(StoreChanged):
        store.close()
    assert path.read_bytes() == theirs


@pytest.mark.parametrize("what", ["header", "log", "log cut", "log gone"])
def test_whatever_changes_in_the_file_or_its_log_is_noticed(what: str, path: Path) -> None:
    store = open_store(path, write=True)
    append(store, "ours", "4")
    log = path.with_name("history.db.wal")
    if what == "header":
        with path.open("r+b") as file:
            file.seek(4096 + 8)
            file.write(b"\xff")
    elif what == "log gone":
        log.rename(log.with_name("aside"))
    else:
        with log.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            if what == "log":
                file.write(b"more")
            else:
                file.truncate(10)
    assert not store.verify().ok
    with pytest.raises(StoreChanged):
        append(store, "lost", "6")
    with pytest.raises(StoreChanged):
        store.close()


def test_a_reader_notices_in_verify_what_was_written_under_it(path: Path) -> None:
    with open_store(path) as store:
        assert store.verify().ok
        written_by_another(path)
        assert not store.verify().ok


def test_a_store_that_was_replaced_is_as_before_gone(path: Path) -> None:
    store = open_store(path, write=True)
    path.rename(path.with_name("moved.db"))
    with pytest.raises(StoreGone):
        append(store, "lost", "6")
    store.close()


def test_our_own_writing_is_never_taken_for_another_s(path: Path) -> None:
    with open_store(path, write=True) as store:
        for number in range(30):
            append(store, f"p{number}", "x" * 2_000_000)  # past DuckDB's automatic checkpoints
        store._db.checkpoint()
        append(store, "c", "3")
        store.compact()
        append(store, "d", "4")
        with pytest.raises(StoreError), store._db.transaction():
            store._db.execute("DELETE FROM no_such_table")
        append(store, "e", "5")
        assert store.verify().ok
