"""Checking the blocks of a DuckDB file that queries do not read: those of indexes, and free ones.

DuckDB stores a checksum in every block and checks it when the block is read. Reading a table reads
its blocks; blocks of an index are only read by a lookup that needs them, so a damaged one would
surface some day, but not in a verification. This module reads them from the file.

A file is three header blocks of 4,096 bytes, then blocks of one size. A block begins with its
checksum, 8 bytes: 5381 xor the sum modulo 2, over its other 64-bit words w, of w * K mod 2^64.
"""

from __future__ import annotations

import functools
from typing import Literal

from editkit_store.database.connection import Database

__all__ = ["checksum", "damaged_blocks"]

_HEADERS = 3 * 4096  # bytes
_START = 5381
_FACTOR = 0xBF58476D1CE4E5B9  # K
_WORD = (1 << 64) - 1


def damaged_blocks(database: Database) -> list[int]:
    """Returns the numbers of the blocks outside tables whose checksums do not match.

    Args:
        database: An open file. Data that is not written yet is skipped, so all of an in-memory
            database.

    Raises:
        StoreDamaged: DuckDB cannot list the blocks of its tables.
    """
    if str(database.path) == ":memory:":
        return []
    with database.turn:
        (row,) = database.query(
            "SELECT block_size, total_blocks, free_blocks FROM pragma_database_size() "
            "WHERE database_name = current_database()"
        )
        size, count, free = map(int, row)
        read = _blocks_of_tables(database)
        others = [number for number in range(count) if number not in read]
        found = {number: _state(database, number, size) for number in others}
        empty = [number for number in others if found[number] == "empty"]
        # Blocks that were never written (beyond the end of the file, or holes in it) are free,
        # unless a process is writing. If more are empty than free, some were in use.
        lost = set(empty) if database.read_only and len(empty) > free else set()
        return [number for number in others if found[number] == "damaged" or number in lost]


def _state(database: Database, number: int, size: int) -> Literal["sound", "damaged", "empty"]:
    block = database.read_file(_HEADERS + number * size, size)
    if len(block) < size or not any(block):
        return "empty"
    is_sound = checksum(block[8:]) == int.from_bytes(block[:8], "little")
    return "sound" if is_sound else "damaged"


def _blocks_of_tables(database: Database) -> set[int]:
    names = database.query("SELECT table_name FROM duckdb_tables() WHERE NOT internal")
    found: set[int] = set()
    for (name,) in names:
        for number, more in database.query(
            "SELECT block_id, additional_block_ids FROM pragma_storage_info(?) WHERE persistent",
            [name],
        ):
            found.add(int(number))
            found.update(more or ())
    return found


def checksum(data: bytes) -> int:
    """Returns DuckDB's checksum of some bytes, a multiple of 8 of them.

    All words are multiplied at once, as parts of one large integer: a loop in Python would take a
    second for every few megabytes. Even and odd words are multiplied separately, so that the
    128-bit products do not overlap.
    """
    lanes, width = _lanes(len(data))
    words = int.from_bytes(data, "little")
    products = (words & lanes) * _FACTOR ^ ((words >> 64) & lanes) * _FACTOR
    while width > 1:  # XORs the upper half of the lanes into the lower
        width //= 2
        products = (products >> (128 * width)) ^ (products & ((1 << (128 * width)) - 1))
    return (_START ^ products) & _WORD


@functools.lru_cache(maxsize=4)
def _lanes(length: int) -> tuple[int, int]:
    """Returns the mask of every other word, and their number rounded up to a power of two."""
    count = (length // 8 + 1) // 2
    width = 1 << max(0, count - 1).bit_length()
    return int.from_bytes((b"\xff" * 8 + b"\0" * 8) * count, "little"), width
