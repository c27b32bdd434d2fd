"""Comparing the adaptors of two versions: weights, routers and codes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.methods.elder.tensors import array, ids_of, weights
from editkit_store import Store
from editkit_store.artifacts.snapshots import Snapshot, Snapshots
from editkit_store.records.comparisons import AdaptorChange, CodesDiff, ExpertChange

__all__ = ["changes", "compare"]

_Array = npt.NDArray[np.float64]


def compare(
    store: Store,
    before: int,
    after: int,
    fingerprint: str,
    changed: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """Returns the differences; see ``editkit.history.diff.Compare``."""
    old, new = (store.snapshots.at(version).get(fingerprint) for version in (before, after))
    adaptors, codes = changes(store.snapshots, old, new)
    return {"adaptors": adaptors, "codes": codes}


def changes(
    snapshots: Snapshots, before: str | None, after: str | None
) -> tuple[tuple[AdaptorChange, ...], CodesDiff]:
    """Returns the differences between two snapshots; reads only the tensors that differ.

    Args:
        snapshots: The store's snapshots.
        before: Digest of the first, None for empty adaptors.
        after: Digest of the second.

    Raises:
        StoreDamaged: A snapshot or a tensor is missing or was altered.
    """
    if before == after:
        return (), CodesDiff()
    digests = [{} if one is None else snapshots.digests(one) for one in (before, after)]
    differing = [
        name
        for name in {**digests[0], **digests[1]}
        if digests[0].get(name) != digests[1].get(name)
    ]
    # One of an expert's two tensors may be unchanged, but the product needs both.
    needed = {other for name in differing for other in (name, _partner(name))}
    found = [
        None if one is None else snapshots.get(one, only=sorted(needed)) for one in (before, after)
    ]
    sides = [_Side(one) for one in found]
    layers = {**dict.fromkeys(sides[0].paths), **dict.fromkeys(sides[1].paths)}
    found_changes = [_layer(path, sides[0], sides[1], set(differing)) for path in layers]
    return tuple(one for one in found_changes if one is not None), _codes(sides[0], sides[1])


def _partner(name: str) -> str:
    """Returns the tensor that is needed to interpret another."""
    kind, _, rest = name.partition(".")
    other = {"lora_A": "lora_B", "lora_B": "lora_A", "codes": "edits", "edits": "codes"}
    return ".".join(filter(None, (other.get(kind, kind), rest)))


class _Side:
    """One of the two snapshots; a missing one counts as zeros."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.about: Mapping[str, Any] = {} if snapshot is None else snapshot.settings
        self._tensors = {} if snapshot is None else snapshot.tensors
        self.paths: list[str] = list(self.about.get("paths", ()))

    def expert(self, path: str, expert: int) -> tuple[_Array, _Array] | None:
        """Returns B and A of an expert, with B scaled by alpha / r; None if there is none."""
        names = [f"{name}.{path}.{expert}" for name in ("lora_B", "lora_A")]
        if any(name not in self._tensors for name in names):
            return None
        up, down = (
            weights(array(self._tensors[name]), self.about["resolution"]).astype(np.float64)
            for name in names
        )
        return up * self.about["scaling"], down

    def router(self, path: str) -> _Array | None:
        """Returns the router of a layer, ``(N, d)``."""
        found = self._tensors.get(f"router.{path}")
        return None if found is None else array(found).astype(np.float64)

    def codes(self) -> dict[str, bytes]:
        """Returns the codes by edit id."""
        if "codes" not in self._tensors or "edits" not in self._tensors:
            return {}
        rows = array(self._tensors["codes"])
        ids = ids_of(array(self._tensors["edits"]))
        return {edit_id: row.tobytes() for edit_id, row in zip(ids, rows, strict=True)}


def _layer(path: str, old: _Side, new: _Side, differing: set[str]) -> AdaptorChange | None:
    count = max(old.about.get("num_experts", 0), new.about.get("num_experts", 0))
    experts = [
        ExpertChange(
            expert=number,
            delta_norm=_product_change(old.expert(path, number), new.expert(path, number)),
        )
        for number in range(count)
        if {f"lora_A.{path}.{number}", f"lora_B.{path}.{number}"} & differing
    ]
    drift = 0.0
    if f"router.{path}" in differing:
        was, now = old.router(path), new.router(path)
        one = was if was is not None else np.zeros(())
        other = now if now is not None else np.zeros(())
        drift = float(np.linalg.norm(other - one))
    if not experts and not drift:
        return None
    total = float(np.sqrt(sum(one.delta_norm**2 for one in experts)))
    return AdaptorChange(layer=path, delta_norm=total, router_drift=drift, experts=tuple(experts))


def _product_change(old: tuple[_Array, _Array] | None, new: tuple[_Array, _Array] | None) -> float:
    """Returns the Frobenius norm of B' A' - B A from factors of rank 2 r, not the full matrix."""
    pairs = [one for one in (new, None if old is None else (-old[0], old[1])) if one is not None]
    if not pairs:
        return 0.0
    up = np.concatenate([one for one, _ in pairs], axis=1)
    down = np.concatenate([one for _, one in pairs], axis=0)
    square = np.sum((up.T @ up) * (down @ down.T))
    return float(np.sqrt(max(square, 0.0)))


def _codes(old: _Side, new: _Side) -> CodesDiff:
    was, now = old.codes(), new.codes()
    return CodesDiff(
        added=tuple(one for one in now if one not in was),
        removed=tuple(one for one in was if one not in now),
        changed=tuple(one for one in now if one in was and was[one] != now[one]),
        threshold_before=old.about.get("threshold"),
        threshold_after=new.about.get("threshold"),
    )
