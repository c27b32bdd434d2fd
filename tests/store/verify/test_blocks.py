"""Blocks that no query reads: their checksums, and what verify says of them."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pytest
from conftest import append

from editkit_store import open_store
from editkit_store.database.compact import compact
from editkit_store.errors import StoreDamaged
from editkit_store.verify.blocks import checksum, damaged_blocks

FACTOR = 0xBF58476D1CE4E5B9


def literal(data: bytes) -> int:
    """DuckDB's checksum, word by word."""
    found = 5381
    for start in range(0, len(data), 8):
        found ^= int.from_bytes(data[start : start + 8], "little") * FACTOR % 2**64
    return found


@pytest.mark.parametrize("words", [0, 1, 2, 3, 4, 5, 8, 31, 64, 1000, 8191])
def test_the_checksum_is_that_of_the_words_one_by_one(words: int) -> None:
    data = random.Random(words).randbytes(8 * words)
    assert checksum(data) == literal(data)
    assert checksum(b"\xff" * len(data)) == literal(b"\xff" * len(data))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with enough edits for indexes of several blocks, and some freed ones."""
    path = tmp_path / "history.db"
    with open_store(path, write=True, create=True) as store:
        for number in range(300):
            append(store, f"prompt {number}", "x" * 50)
    with open_store(path, write=True) as store:
        append(store, "one more", "y")
    return path


def blocks(path: Path) -> tuple[int, int, set[int]]:
    """Size and number of blocks, and those that tables are in, by DuckDB's own account."""
    with duckdb.connect(str(path), read_only=True) as connection:
        (size, count) = connection.execute(
            "SELECT block_size, total_blocks FROM pragma_database_size()"
        ).fetchone()
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        used = {
            row[0]
            for (name,) in tables
            for row in connection.execute(
                "SELECT block_id FROM pragma_storage_info(?)", [name]
            ).fetchall()
        }
    return size, count, used


def outcome(path: Path) -> str:
    """What becomes of a store with a damaged block: refused, or what verify names first."""
    try:
        with open_store(path) as store:
            found = store.verify()
    except StoreDamaged:
        return "refused"
    return found.problems[0].name if found.problems else "nothing"


def flip(path: Path, at: int, mask: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def test_a_byte_of_any_block_that_tables_are_not_in_is_found_and_compacting_mends_it(
    path: Path,
) -> None:
    size, count, used = blocks(path)
    chance = random.Random(0)
    whole = path.read_bytes()
    found = {}
    for number in set(range(count)) - used:
        flip(path, 3 * 4096 + number * size + chance.randrange(size), chance.randint(1, 255))
        found[number] = outcome(path)
        if found[number] == f"block {number}":
            compact(path)
            assert outcome(path) == "nothing"
        path.write_bytes(whole)
    # DuckDB reads those of its own lists on opening.
    assert set(found.values()) <= {"refused", *(f"block {number}" for number in found)}
    assert any(found[number] == f"block {number}" for number in found)


def test_what_is_not_written_yet_is_no_damage(path: Path) -> None:
    with open_store(path, write=True) as store:
        for number in range(20):
            append(store, f"later {number}", "z")
            assert damaged_blocks(store._db) == []
        assert store.verify().ok
        store._db.checkpoint()
        assert store.verify().ok


def test_a_store_in_memory_has_no_blocks_and_one_without_its_file_says_so(path: Path) -> None:
    with open_store(":memory:", write=True, create=True) as store:
        append(store, "a", "b")
        assert store.verify().ok
    with open_store(path) as store:
        path.rename(path.with_name("elsewhere"))
        (problem,) = store.verify().problems
        assert problem.kind == "file"
        assert "removed" in problem.message
        path.with_name("elsewhere").rename(path)
        assert store.verify().ok


def test_blocks_that_were_cut_off_or_emptied_are_found(path: Path) -> None:
    compact(path)  # nothing is free then
    size, count, used = blocks(path)
    whole = path.read_bytes()
    for number in set(range(count)) - used:
        start = 3 * 4096 + number * size
        path.write_bytes(whole[:start] + bytes(size) + whole[start + size :])
        assert outcome(path) in ("refused", f"block {number}")
    path.write_bytes(whole[:-100])
    assert outcome(path) != "nothing"
