"""Snapshots of adaptors to try things on, and edits that lead to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from editkit_store import Store, digest_bytes
from editkit_store.artifacts.snapshots import Snapshot, Tensor, digest_of
from editkit_store.records import Artifact, EditRequest

MODEL = "sha256:model"


def tensor(values: Any, dtype: str = "I16") -> Tensor:
    found = np.array(values, {"I16": "<i2", "F32": "<f4", "U8": "u1"}[dtype])
    return Tensor(dtype, found.shape, found.tobytes())


def snapshot(seed: int = 0, **more: Tensor) -> Snapshot:
    noise = np.random.default_rng(seed)
    tensors = {
        "still": tensor(np.arange(500)),
        "moves": tensor(np.random.default_rng(0).normal(0, 30, 4000) + 2 * noise.normal(size=4000)),
        "codes": tensor(noise.integers(0, 256, (seed + 1, 3)), "U8"),
    }
    return Snapshot({"format": "test", "seed": seed}, {**tensors, **more})


def add(
    store: Store,
    prompt: str,
    found: Snapshot | None = None,
    *,
    activate: bool = True,
    shared_by: str | None = None,
) -> Any:
    """Adds an edit, with what the weights that it shares become."""
    edit = store.prepare(EditRequest(prompt=prompt, target="t", method="elder"))
    payload = prompt.encode()
    metrics = {} if found is None else {"snapshot": digest_of(found)}
    if shared_by is not None:
        metrics["shared_by"] = shared_by
    artifact = Artifact(
        edit_id=edit.id, fingerprint=MODEL, model="tiny", method="elder", verified=True,
        usable=activate, digest=digest_bytes(payload), conflicts={}, metrics=metrics,
    )  # fmt: skip
    return store.add(
        edit, artifact=artifact, payload=payload, activate=activate, snapshot=found,
        shared_by=shared_by,
    )  # fmt: skip
