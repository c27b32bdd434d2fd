"""Whatever a column of any table is set to, `verify` says so and goes on."""

from __future__ import annotations

import itertools
import shutil
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from conftest import START, append

from editkit_store import open_store
from editkit_store.records import Verified
from editkit_store.verify import check
from editkit_store.verify.sql import DOUBTFUL_OPERATIONS

TABLES = ("edits", "operations", "membership", "tags", "artifacts", "payloads")

# Values that fit the type and are not what anything here is.
VALUES = {
    "VARCHAR": ("'x'", "'null'", "NULL"),
    "BIGINT": ("-1", "9223372036854775807"),
    "DOUBLE": ("'NaN'", "'-inf'"),
    "TIMESTAMP": ("'infinity'", "'0044-03-15 (BC) 10:00:00'"),
    "BOOLEAN": ("true", "false"),
    "BLOB": ("''::BLOB",),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with every kind of row that a GRACE history has, an import among them."""
    folder = tmp_path_factory.mktemp("columns")
    for name, words in (("other.db", "pqr"), ("history.db", "ab")):
        ticks = itertools.count()
        with open_store(
            folder / name, write=True, create=True,
            clock=lambda ticks=ticks: START + timedelta(seconds=next(ticks)),
        ) as store:  # fmt: skip
            for word in words:
                append(store, word, "1")
            if name == "other.db":
                store.export(folder / "bundle")
            else:
                store.import_bundle(folder / "bundle")
                newest = append(store, "a", "2", idempotency_key="k")
                append(store, "chat", "3", chat=({"role": "user", "content": "chat"},))
                store.tag("v2", "prod")
                store.revert(newest.id)
    return folder / "history.db"


def altered(path: Path, copy: Path, sql: str) -> int:
    """Copies a store, runs a statement on the copy, and returns how many rows it changed."""
    shutil.copy(path, copy)
    with duckdb.connect(str(copy)) as connection:
        try:
            row = connection.execute(sql).fetchone()
        except duckdb.ConstraintException:
            return 0
    return row[0] if row else 0


def verified(path: Path) -> Verified:
    with open_store(path) as store:
        return store.verify()


def test_the_history_is_in_order(path: Path) -> None:
    assert verified(path).problems == ()


@pytest.mark.parametrize("table", TABLES)
def test_an_alteration_of_any_column_is_found(path: Path, tmp_path: Path, table: str) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        columns = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ?",
            [table],
        ).fetchall()
    tried = 0
    for name, kind in columns:
        for value in VALUES[kind]:
            sql = f"UPDATE {table} SET {name} = {value} WHERE {name} IS DISTINCT FROM {value}"
            if altered(path, tmp_path / "copy.db", sql):
                tried += 1
                assert not verified(tmp_path / "copy.db").ok, sql
    assert tried >= len(columns) / 2  # those of a key cannot all be set to one value


SWAPPED = "UPDATE edits SET ordinal = {0} - ordinal WHERE ordinal IN ({1}, {2})"


@pytest.mark.parametrize(("one", "two"), [(1, 2), (2, 3), (3, 4)], ids=["ours", "both", "imported"])
def test_edits_that_changed_places_are_found(
    path: Path, tmp_path: Path, one: int, two: int
) -> None:
    copy = tmp_path / "copy.db"
    assert altered(path, copy, SWAPPED.format(one + two, one, two)) == 2
    assert any("the place of another" in p.message for p in verified(copy).problems)


def test_ordinary_additions_need_no_python(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute(DOUBTFUL_OPERATIONS, [-1, 1 << 40]).fetchall()
    kinds = [row[1] for row in found]
    # The addition is that of a conversation, whose digest is not of the prompt alone.
    assert kinds == ["import", "add", "tag", "revert"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE operations SET active_count = 7 WHERE seq = 2",
        "UPDATE operations SET parent_digest = digest WHERE seq = 2",
        "UPDATE membership SET member = NOT member WHERE version = 2",
        "DELETE FROM operations WHERE seq = 2",
        "DELETE FROM edits WHERE prompt = 'b'",
        "DELETE FROM artifacts",
        "UPDATE edits SET target = '9'",
        "UPDATE edits SET added_at = added_at + INTERVAL 1 SECOND",
        "UPDATE artifacts SET record_digest = upper(record_digest)",
    ],
)
def test_python_and_duckdb_find_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    copy = tmp_path / "copy.db"
    assert altered(path, copy, sql)
    found = verified(copy)
    every = DOUBTFUL_OPERATIONS.replace("WHERE NOT coalesce(", "WHERE true OR coalesce(")
    assert every != DOUBTFUL_OPERATIONS
    monkeypatch.setattr(check, "DOUBTFUL_OPERATIONS", every)
    assert not found.ok
    assert verified(copy).problems == found.problems
