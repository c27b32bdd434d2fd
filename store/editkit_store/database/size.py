"""Space usage of the file by content, and conversion of values to JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from editkit_store.database.connection import Database

__all__ = ["plain", "space"]


def space(database: Database) -> dict[str, int]:
    """Returns the bytes of a file by content, including freed blocks."""
    (row,) = database.query(
        "SELECT block_size, free_blocks FROM pragma_database_size() "
        "WHERE database_name = current_database()"
    )
    block, free = int(row[0]), int(row[1])
    blocks = {
        table: database.one(
            "SELECT count(DISTINCT block_id) "
            f"FROM pragma_storage_info('{table}') WHERE persistent AND block_id >= 0"
        )
        for table in (
            "payloads",
            "artifacts",
            "edits",
            "operations",
            "membership",
            "snapshots",
            "tensors",
            "snapshot_versions",
        )
    }
    used = {table: block * int(found[0]) if found else 0 for table, found in blocks.items()}
    return {
        "tensors": used["payloads"],
        "adaptors": used["snapshots"] + used["tensors"] + used["snapshot_versions"],
        "artifacts": used["artifacts"],
        "edits": used["edits"],
        "log": used["operations"] + used["membership"],
        "free": block * free,
    }


def plain(value: Any) -> Any:
    """Converts a value to JSON types: bytes to hex digits, times and special numbers to text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return str(value)
