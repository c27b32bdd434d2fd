"""How the maps that are added differ between two versions. Needs no torch and no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from editkit_store import Store

__all__ = ["compare"]


def compare(
    store: Store,
    before: int,
    after: int,
    fingerprint: str,
    changes: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """Returns the norms of the maps that came and that went; see ``editkit.history.diff``."""
    came, went = (_norms(store, fingerprint, ids) for ids in changes)
    return {"came": came, "went": went} if came or went else {}


def _norms(store: Store, fingerprint: str, edit_ids: Sequence[str]) -> dict[str, float]:
    found = store.artifacts.on_model(edit_ids, fingerprint)
    return {
        edit_id: found[edit_id].metrics["norm"]
        for edit_id in edit_ids
        if edit_id in found and found[edit_id].method == "rankone" and found[edit_id].usable
    }
