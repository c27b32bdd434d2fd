"""A bundle to try things on, and what is in it: for the tests of exports and of imports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import append

from editkit_store import Store, canonical_json


def make_bundle(store: Store, path: Path) -> Path:
    """Exports three active edits, a superseded, a reverted and a failed one."""
    append(store, "a", "1", author="Ada", reason='"quoted" \u2028 \U0001f600 \0')
    append(store, "b", "2", chat=({"role": "user", "content": "b"},), idempotency_key="k")
    append(store, "a", "3", rephrases=("x", "y"))
    append(store, "c", "4")
    append(store, "d", "5", activate=False)
    store.revert(append(store, "e", "6").id)
    store.tag("v2", "prod")
    store.export(path)
    return path


def files(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it, with what they hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(folder: Path, name: str) -> list[Any]:
    """The records of a file of a bundle."""
    # Other characters end a line for `splitlines`, and may stand in a prompt.
    return [json.loads(line) for line in (folder / name).read_bytes().split(b"\n")[:-1]]


def state(store: Store) -> list[tuple[Any, ...]]:
    """Everything that a store holds."""
    tables = (
        "edits", "operations", "membership", "tags", "artifacts", "payloads", "snapshots",
        "tensors", "snapshot_versions",
    )  # fmt: skip
    return [tuple(store._db.query(f"SELECT * FROM {name} ORDER BY ALL")) for name in tables]


def resealed(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file and makes the manifest agree with it."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(canonical_json(manifest) + "\n")


def edited(folder: Path, name: str, change: Callable[[list[Any]], None]) -> None:
    """Changes the records of a file, and makes the manifest agree with it."""
    found = lines(folder, name)
    change(found)
    data = "".join(canonical_json(one) + "\n" for one in found).encode()
    if name == "manifest.json":
        (folder / name).write_bytes(data)
    else:
        resealed(folder, name, data)
