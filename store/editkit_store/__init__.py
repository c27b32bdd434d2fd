"""The history of edits in one DuckDB file. Stands alone: no torch, no numpy, no editkit.

Names are loaded when they are first used: a command that talks to a server needs the records and
errors, and not DuckDB, which takes longer to load than all the rest.

Example:
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "history.db"
    >>> with open_store(path, write=True, create=True) as store:
    ...     store.version()
    'v0'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editkit_store.artifacts.artifacts import Artifacts
    from editkit_store.database.schema import SCHEMA_VERSION
    from editkit_store.digest import canonical_json, digest_bytes, digest_json
    from editkit_store.errors import EditkitError
    from editkit_store.history.log import History, Operation
    from editkit_store.opening import open_store
    from editkit_store.store import NewEdit, Store

__all__ = [
    "SCHEMA_VERSION",
    "Artifacts",
    "EditkitError",
    "History",
    "NewEdit",
    "Operation",
    "Store",
    "canonical_json",
    "digest_bytes",
    "digest_json",
    "open_store",
]

_HOMES = {
    "SCHEMA_VERSION": "database.schema",
    "Artifacts": "artifacts",
    "EditkitError": "errors",
    "History": "history",
    "NewEdit": "store",
    "Operation": "history",
    "Store": "store",
    "canonical_json": "digest",
    "digest_bytes": "digest",
    "digest_json": "digest",
    "open_store": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
