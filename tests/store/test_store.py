from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest
from conftest import append

from editkit_store import SCHEMA_VERSION, Store, open_store
from editkit_store.errors import (
    NotAStore,
    SchemaMismatch,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreNotFound,
    StoreUnwritable,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with two edits."""
    where = tmp_path / "closed.db"
    with open_store(where, write=True, create=True) as store:
        append(store, "a", "1")
        append(store, "b", "2")
    return where


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    here = str(Path(__file__).parents[1])
    prelude = f"import sys; sys.path.insert(0, {here!r})\n"
    return subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    for write in (False, True):
        with pytest.raises(StoreNotFound, match="there is no store at") as caught:
            open_store(tmp_path / "none.db", write=write)
        assert "editkit init" in str(caught.value.hint)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="folder of .* does not exist"):
        open_store(tmp_path / "no" / "h.db", write=True, create=True)


@pytest.mark.parametrize("content", [b"", b"hello " * 500, b"SQLite format 3\0" + bytes(4096)])
def test_a_file_that_is_not_duckdb_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    where = tmp_path / "x.db"
    where.write_bytes(content)
    for write in (False, True):
        with pytest.raises(NotAStore, match="is not a DuckDB file"):
            open_store(where, write=write, create=write)
    assert where.read_bytes() == content


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="is a folder"):
        open_store(tmp_path)


def test_another_duckdb_file_is_refused_and_kept(tmp_path: Path) -> None:
    where = tmp_path / "other.db"
    with duckdb.connect(str(where)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS one")
    for write in (False, True):
        with pytest.raises(NotAStore, match="not an editkit store"):
            open_store(where, write=write, create=write)
    with duckdb.connect(str(where)) as connection:
        assert connection.execute("SELECT table_name FROM duckdb_tables").fetchall() == [("t",)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_a_damaged_file_is_refused_or_its_data_is_still_right(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    at = int(share * len(data))
    data[at : at + 64] = bytes(byte ^ 0xFF for byte in data[at : at + 64])
    path.write_bytes(data)
    with contextlib.suppress(StoreDamaged, NotAStore), open_store(path) as store:
        assert [e.target for e in store.history.active(2)] == ["1", "2"]


def test_a_truncated_file_is_called_damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: 8192 * 3])
    with pytest.raises(StoreDamaged, match="is damaged"), open_store(path) as store:
        store.history.active(2)


def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 'from the future', now())")
    before = path.read_bytes()
    for write in (False, True):
        with pytest.raises(SchemaMismatch, match="has schema 99") as caught:
            open_store(path, write=write)
        assert (caught.value.found, caught.value.supported) == (99, SCHEMA_VERSION)
        assert "upgrade editkit" in str(caught.value.hint)
    assert path.read_bytes() == before


def test_an_older_schema_is_migrated_by_writers_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editkit_store.database import schema

    more = schema.Migration(SCHEMA_VERSION + 1, "a column", ("ALTER TABLE tags ADD COLUMN x INT",))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, more))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="opening it for reading does not migrate"):
        open_store(path)
    assert path.read_bytes() == before
    with open_store(path, write=True) as store:
        assert store.status().schema_version == SCHEMA_VERSION + 1
        assert store.version() == "v2"
    with open_store(path) as store:
        assert store.status().schema_version == SCHEMA_VERSION + 1


def test_a_failing_migration_leaves_the_store_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editkit_store.database import schema

    bad = schema.Migration(SCHEMA_VERSION + 1, "bad", ("CREATE TABLE extra (i INT)", "NO SQL"))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, bad))
        patch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        with pytest.raises(StoreError):
            open_store(path, write=True)
    with open_store(path, write=True) as store:
        assert store.version() == "v2"


def test_a_store_held_by_another_process_names_its_pid(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(f"""
            import sys
            from editkit_store import open_store
            with open_store({str(path)!r}, write=True):
                print("held", flush=True)
                sys.stdin.read()
        """)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for write in (False, True):
            with pytest.raises(StoreLocked, match=f"held by process {holder.pid}") as caught:
                open_store(path, write=write, wait=0.1)
            assert caught.value.pid == holder.pid
    finally:
        holder.communicate("")
    with open_store(path, write=True) as store:
        assert store.version() == "v2"


def test_readers_share_a_store(path: Path) -> None:
    with open_store(path) as store:
        other = run_python(
            """
            from editkit_store import open_store
            with open_store(sys.argv[1]) as store: print(store.version())
            """,
            path,
        )
        assert other.stdout == "v2\n"
        assert store.version() == "v2"


def test_reading_never_writes(path: Path) -> None:
    before = path.read_bytes()
    with open_store(path) as store:
        store.log()
        store.show("v1")
        store.status()
        with pytest.raises(StoreUnwritable):
            append(store, "c", "3")
    assert path.read_bytes() == before


def test_a_killed_process_leaves_the_last_whole_version(path: Path) -> None:
    killed = run_python(
        """
        import os
        from conftest import append
        from editkit_store import open_store
        store = open_store(sys.argv[1], write=True)
        append(store, "c", "3")
        with store._db.transaction():
            store._db.execute("DELETE FROM edits")
            os._exit(9)
        """,
        path,
    )
    assert killed.returncode == 9, killed.stderr
    with open_store(path) as store:  # readers recover from the log too
        assert [e.target for e in store.history.active(3)] == ["1", "2", "3"]
    with open_store(path, write=True) as store:
        append(store, "d", "4")
        assert store.version() == "v4"


def test_a_full_disk_is_a_clear_error_and_loses_nothing_acknowledged(path: Path) -> None:
    full = run_python(
        """
        import resource, signal
        from conftest import append
        from editkit_store import open_store
        from editkit_store.errors import StoreError
        # A limit on file size fails writes as a full disk does.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = open_store(sys.argv[1], write=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        done = 0
        try:
            while done < 500:
                append(store, f"p{done}" + "x" * 2000, "1")
                done += 1
        except StoreError as error:
            print(done, type(error).__name__, error, "|", error.hint)
        """,
        path,
    )
    assert full.stdout, full.stderr
    done, name, message = full.stdout.split(" ", 2)
    assert name == "StoreUnwritable"
    assert "free disk space" in message
    with open_store(path, write=True) as store:
        assert store.history.current() == 2 + int(done)
        assert len(store.history.active(store.history.current())) == 2 + int(done)
        append(store, "after", "1")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to read-only files")
def test_a_read_only_file_cannot_be_opened_to_write(path: Path) -> None:
    path.chmod(0o444)
    with pytest.raises(StoreUnwritable, match="read-only"):
        open_store(path, write=True)


def test_a_failed_operation_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    append(store, "a", "1")
    insert = store._db.insert

    def failing(table: str, rows: list[list[object]]) -> None:
        if table == "membership":
            raise StoreError("no", path="x")
        insert(table, rows)

    with monkeypatch.context() as patch:
        patch.setattr(store._db, "insert", failing)
        with pytest.raises(StoreError):
            append(store, "b", "2")
    assert store.version() == "v1"
    assert store.history.count() == 1
    append(store, "b", "2")
    assert store.version() == "v2"


def test_copying_the_one_file_copies_the_history(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.db"
    shutil.copy(path, copy)
    with open_store(copy) as store:
        assert [entry.target for entry in store.log()] == ["2", "1"]


def test_two_processes_that_create_at_once_share_one_store(tmp_path: Path) -> None:
    where = tmp_path / "new.db"
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from conftest import append\n"
        "from editkit_store import open_store\n"
        "with open_store(sys.argv[1], write=True, create=True, wait=30) as s: append(s, 'p', 'x')"
    )
    here = str(Path(__file__).parents[1])
    both = [subprocess.Popen([sys.executable, "-c", code, where, here]) for _ in range(3)]
    assert [process.wait(60) for process in both] == [0, 0, 0]
    with open_store(where) as store:
        assert store.version() == "v3"
    assert [file.name for file in tmp_path.iterdir()] == ["new.db"]


def test_an_altered_payload_is_found_when_it_is_read(store: Store) -> None:
    edit = append(store, "a", "1")
    (artifact,) = store.artifacts.of_edit(edit.id)
    assert artifact.digest is not None
    assert store.artifacts.payloads([artifact.digest]) == {artifact.digest: b"a->1"}
    store._db.execute("UPDATE payloads SET bytes = 'other'::BLOB")
    with pytest.raises(StoreDamaged, match="does not match its digest"):
        store.artifacts.payloads([artifact.digest])
    store._db.execute("DELETE FROM payloads")
    with pytest.raises(StoreDamaged, match="is missing"):
        store.artifacts.payloads([artifact.digest])


def test_views_are_there_for_any_duckdb_shell(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as shell:
        active = shell.execute("SELECT prompt, target FROM active_edits").fetchall()
        assert active == [("a", "1"), ("b", "2")]
        log = shell.execute("SELECT version, operation, prompt FROM operation_log").fetchall()
        assert log == [("v1", "add", "a"), ("v2", "add", "b")]
        assert shell.execute("SELECT active FROM edit_history").fetchall() == [(True,), (True,)]


def test_show_takes_a_version_or_an_edit_id(store: Store) -> None:
    edit = append(store, "a", "1", reason="wrong", author="ada")
    append(store, "b", "2")
    by_version, by_id = store.show("v1"), store.show(edit.id[:8])
    assert by_version == by_id
    assert by_version.edit == edit
    assert by_version.view == 1
    assert by_version.provenance is not None
    assert (by_version.provenance.author, by_version.provenance.reason) == ("ada", "wrong")
    assert store.show("v0").operation is None


def test_status_says_where_the_store_stands(store: Store) -> None:
    append(store, "a", "1")
    store.tag("v1", "prod")
    status = store.status()
    assert (status.version, status.edits, status.operations) == ("v1", 1, 2)
    assert status.tags == {"prod": "v1"}
    assert status.store_bytes >= store.path.stat().st_size > 0


def test_exactly_this_request_is_counted_while_it_is_part_of_the_view(store: Store) -> None:
    edit = append(store, "a", "1")
    request = edit.model_dump(exclude={"id", "time", "status"})
    from editkit_store.records import EditRequest

    assert store.count_requests(EditRequest(**request)) == 1
    assert store.count_requests(EditRequest(**{**request, "target": "2"})) == 0
    append(store, "a", "2")
    append(store, "a", "1")
    assert store.count_requests(EditRequest(**request)) == 2
    store.rollback("v0")
    assert store.count_requests(EditRequest(**request)) == 0
