"""The history of edits in one DuckDB file. Stands alone: no torch, no numpy, no editkit.

Example:
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "history.db"
    >>> with open_store(path, write=True, create=True) as store:
    ...     store.version()
    'v0'
"""

from editkit_store.artifacts import Artifacts
from editkit_store.digest import canonical_json, digest_bytes, digest_json
from editkit_store.errors import EditkitError
from editkit_store.history import History, Operation
from editkit_store.opening import open_store
from editkit_store.schema import SCHEMA_VERSION
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
