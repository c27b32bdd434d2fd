"""Queries of somebody's own: one SELECT, on a copy, with an end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import append

from editkit_store import Store, open_store
from editkit_store.database.sandbox import SqlQuery, check_query
from editkit_store.errors import QueryFailed, QueryStopped

ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range > b.range"


@pytest.fixture(params=["alone", "held"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with two edits: open to read, or to write as a server has it."""
    path = tmp_path / "history.db"
    with open_store(path, write=True, create=True) as made:
        append(made, "a", "1")
    with open_store(path, write=True) as made:
        append(made, "b", "2")
    with open_store(path, write=request.param == "held") as opened:
        yield opened


SELECTS = [
    "SELECT target FROM edits ORDER BY target",
    "select target from edits order by target;",
    "  -- a comment\n/* and another */ SELECT target FROM edits ORDER BY 1; -- the end",
    "FROM edits SELECT target ORDER BY target",
    "WITH x AS (SELECT target FROM edits) SELECT * FROM x ORDER BY 1",
    "SELECT '1' UNION ALL SELECT '2'",
    "VALUES ('1'), ('2')",
]


@pytest.mark.parametrize("query", SELECTS)
def test_a_select_is_answered_in_every_spelling(query: str, store: Store) -> None:
    assert store.sql(query).rows == (("1",), ("2",))


@pytest.mark.parametrize(
    "query", ["DESCRIBE edits", "SHOW TABLES", "SUMMARIZE edits", "EXPLAIN SELECT * FROM edits",
              "explain /* how? */ select 1"],
)  # fmt: skip
def test_what_tells_about_tables_is_answered(query: str, store: Store) -> None:
    assert store.sql(query).rows


# The store's own path, the log that DuckDB would read at the next opening, and beside them.
PLACES = ["{path}", "{path}.wal", "{folder}/new.csv", "{name}", "{name}.wal", "{path}.tmp/x"]

WRITES = [
    "COPY (SELECT 1) TO '{place}' (FORMAT csv, USE_TMP_FILE false)",
    "copy (select 1) to '{place}'",
    "COPY edits TO '{place}' (FORMAT blob)",
    "COPY (SELECT 'x'::BLOB) TO '{place}' (FORMAT blob)",
    "/* SELECT */ COPY (SELECT 1) TO '{place}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{place}'",
    "explain analyse COPY (SELECT 1) TO '{place}'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{place}'",
    "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{place}'",
    "EXPLAIN -- hm\n ANALYZE COPY (SELECT 1) TO '{place}'",
    "EXPLAIN COPY (SELECT 1) TO '{place}'",
    "PREPARE p AS COPY (SELECT 1) TO '{place}'",
    "PREPARE p AS COPY (SELECT 1) TO '{place}'; EXECUTE p",
    "EXECUTE p",
    "SELECT 1; COPY (SELECT 1) TO '{place}'",
    "COPY (SELECT 1) TO '{place}'; SELECT 1",
    "BEGIN; COPY (SELECT 1) TO '{place}'; COMMIT",
    "EXPORT DATABASE '{place}'",
    "ATTACH '{place}' AS other",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT 1",
    "INSERT INTO tags VALUES (1, 'x', 1)",
    "UPDATE edits SET target = '3'",
    "DELETE FROM edits",
    "MERGE INTO edits USING edits AS b ON true WHEN MATCHED THEN DELETE",
    "DROP TABLE edits",
    "TRUNCATE edits",
    "ALTER TABLE edits ADD COLUMN x INT",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "VACUUM",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA database_size",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "USE memory",
    "PIVOT edits ON method",
    "",
    " ; ",
    "-- nothing",
    "not a query",
    "SELECT",
    "SELECT 'open",
]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_but_one_select_gets_through(
    place: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where relative names lead to
    store._db.execute("CHECKPOINT") if store.is_writable else None
    where = place.format(path=store.path, folder=tmp_path, name=store.path.name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for query in WRITES:
        with pytest.raises(QueryFailed):
            store.sql(query.format(place=where))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert store.verify().ok


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('{path}')",
        "SELECT * FROM read_blob('{path}.wal')",
        "SELECT * FROM read_csv('{path}')",
        "FROM '{path}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM sniff_csv('{path}')",
        "SELECT getenv('HOME')",
        "WITH x AS (DELETE FROM edits RETURNING target) SELECT * FROM x",
        "SELECT * FROM query('DELETE FROM edits')",
        "SELECT * FROM checkpoint()",
        "SELECT * FROM force_checkpoint('history')",
    ],
)
def test_a_select_that_does_more_than_ask_reaches_nothing(query: str, store: Store) -> None:
    whole = {file: file.read_bytes() for file in store.path.parent.iterdir()}
    try:
        store.sql(query.format(path=store.path, folder=store.path.parent))
    except QueryFailed:
        pass
    else:  # on a copy, which it may have
        assert "checkpoint" in query
    after = {file: file.read_bytes() for file in store.path.parent.iterdir()}
    # A store that is held is checkpointed to be copied, by us.
    assert after.keys() - whole.keys() == set()
    assert store.history.count() == 2
    assert store.verify().ok


def test_a_log_that_a_crash_left_is_copied_along(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    here = str(Path(__file__).parents[2])
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2])\n"
        "from conftest import append\n"
        "from editkit_store import open_store\n"
        "store = open_store(sys.argv[1], write=True, create=True)\n"
        "append(store, 'a', '1'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, path, here], check=False).returncode == 9
    log = path.with_name("history.db.wal").read_bytes()
    with open_store(path) as store:
        for query in WRITES[:8]:
            with pytest.raises(QueryFailed):
                store.sql(query.format(place=f"{path}.wal"))
        assert store.sql("SELECT target FROM edits").rows == (("1",),)
    assert path.with_name("history.db.wal").read_bytes() == log


def test_the_error_says_what_it_is_and_what_is_answered() -> None:
    with pytest.raises(QueryFailed, match="must be exactly one SELECT, and this is copy") as caught:
        check_query("COPY (SELECT 1) TO 'x'")
    assert "README" in str(caught.value.hint)
    with pytest.raises(QueryFailed, match="this is select, delete"):
        check_query("SELECT 1; DELETE FROM edits")
    with pytest.raises(QueryFailed, match="this is nothing"):
        check_query("")
    with pytest.raises(QueryFailed, match="the query failed: Parser Error"):
        check_query("SELEC 1")


def test_a_query_without_end_is_stopped_in_time(store: Store) -> None:
    started = time.monotonic()
    with pytest.raises(QueryStopped, match="it was stopped before it finished"):
        store.sql(ENDLESS, seconds=0.2)
    assert time.monotonic() - started < 60
    assert store.sql("SELECT count(*) FROM edits").rows == ((2,),)


@pytest.mark.parametrize("begun", [False, True])
def test_a_query_is_stopped_from_another_thread(begun: bool, store: Store) -> None:
    query = SqlQuery(ENDLESS)
    ended = threading.Event()

    def run() -> None:
        with pytest.raises(QueryStopped):
            store.sql(query)
        ended.set()

    if not begun:
        query.stop()
    thread = threading.Thread(target=run)
    thread.start()
    if begun:
        time.sleep(0.3)
        query.stop()
    thread.join(60)
    assert ended.is_set()
    assert not list(store.path.parent.glob(".*"))[1:]  # the lock, and no private folder


def test_an_answer_that_is_too_large_is_refused(store: Store) -> None:
    with pytest.raises(QueryFailed, match="more than 1000 values") as caught:
        store.sql("SELECT * FROM range(1000000000)", cells=1000)
    assert "LIMIT" in str(caught.value.hint)
    assert len(store.sql("SELECT * FROM range(1000)", cells=1000).rows) == 1000


def test_what_a_killed_query_left_behind_is_swept_at_the_next_opening_to_write(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.db"
    open_store(path, write=True, create=True).close()
    code = (
        "import sys; from editkit_store import open_store\n"
        "store = open_store(sys.argv[1])\n"
        f"print('asks', flush=True); store.sql({ENDLESS!r})"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    asking.stdout.readline()
    deadline = time.monotonic() + 60
    while not (left := list(tmp_path.glob(".history.db-private-*/history.db"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    asking.kill()
    asking.wait()
    asking.stdout.close()
    with open_store(path):
        assert left[0].exists()  # whoever reads leaves it: others may be reading, too
    with open_store(path, write=True) as store:
        assert not left[0].parent.exists()
        store.sql("SELECT 1")
    assert [file.name for file in tmp_path.iterdir()] == ["history.db"]


def test_what_a_living_query_uses_is_not_swept(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    open_store(path, write=True, create=True).close()
    query = SqlQuery(ENDLESS)

    def ask() -> None:
        with open_store(path) as store, pytest.raises(QueryStopped):
            store.sql(query)

    from editkit_store.database.files import sweep

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 60
    while not (folders := list(tmp_path.glob(".history.db-private-*"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sweep(path)
    assert folders[0].exists()
    query.stop()
    thread.join(60)
    assert not folders[0].exists()
