"""Comparing the codebooks of two versions: rows and radii. Needs no torch.

Radii are derived from the columns stored with the artifacts, for the rows that were added, removed,
or conflict with one of those. Tensors are read only if edits were learned under rule ``paper``,
whose fold needs the keys, or before conflicts were recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from editkit.methods.grace.payload import METHOD
from editkit.methods.grace.radii import give_way
from editkit.methods.grace.restore import load_memories
from editkit_store import Store
from editkit_store.artifacts import Row
from editkit_store.records.comparisons import CodebookDiff, CodebookRow, RadiusChange

__all__ = ["codebook_diff", "compare"]

_ORDERED = '"rule":"paper"'
"""Marks, in the metrics, edits whose fold depends on their order."""


def compare(
    store: Store,
    before: int,
    after: int,
    fingerprint: str,
    changes: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """Returns the differences; see ``editkit.history.diff.Compare``."""
    return {"codebook": codebook_diff(store, before, after, fingerprint, changes)}


def codebook_diff(
    store: Store,
    before: int,
    after: int,
    fingerprint: str,
    changes: tuple[Sequence[str], Sequence[str]],
) -> CodebookDiff:
    """Returns how the codebook of one model differs between two versions.

    Args:
        store: The history.
        before: The first version.
        after: The second version.
        fingerprint: Fingerprint of the model.
        changes: Ids of the added and of the removed edits, see ``History.changes``.
    """
    if store.artifacts.has_unknown_reaches(fingerprint, method=METHOD, marked=_ORDERED):
        old, new = _folded(store, fingerprint, before), _folded(store, fingerprint, after)
    else:
        old, new = _derived(store, fingerprint, before, after, changes)
    added = tuple(CodebookRow(edit_id=e, radius=r) for e, r in new.items() if e not in old)
    removed = tuple(CodebookRow(edit_id=e, radius=r) for e, r in old.items() if e not in new)
    changed = tuple(
        RadiusChange(edit_id=e, before=old[e], after=r)
        for e, r in new.items()
        if e in old and old[e] != r
    )
    return CodebookDiff(
        added=len(added),
        removed=len(removed),
        radius_changed=len(changed),
        added_rows=added,
        removed_rows=removed,
        changed_rows=changed,
        missing=tuple(store.history.active_among(store.artifacts.untried(fingerprint), after)),
        fingerprint=fingerprint,
    )


def _derived(
    store: Store,
    fingerprint: str,
    before: int,
    after: int,
    changes: tuple[Sequence[str], Sequence[str]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the radii before and after of the rows that can differ, oldest edit first.

    See ``methods.grace.radii`` for the rule.
    """
    added, removed = (set(ids) for ids in changes)
    rows = store.artifacts.reaches(fingerprint, added | removed, method=METHOD)
    near = _with_partners(rows) | added | removed
    if near != added | removed:
        # A row near a changed one may conflict with others too, which still limit its radius.
        rows = store.artifacts.reaches(fingerprint, near, method=METHOD)
    learned = set(store.artifacts.learned_among(fingerprint, _with_partners(rows)))
    kept = set(store.history.active_among(learned - added - removed, after))
    return (
        _radii(rows, near, kept | removed & learned),
        _radii(rows, near, kept | added & learned),
    )


def _with_partners(rows: Mapping[str, Row]) -> set[str]:
    return set(rows).union(*(row.conflicts for row in rows.values()))


def _radii(rows: Mapping[str, Row], wanted: set[str], active: set[str]) -> dict[str, float]:
    """Returns the radii of the wanted rows that are active, float32 as in the running model."""
    ids = sorted(_with_partners(rows))
    place = {edit_id: number for number, edit_id in enumerate(ids)}
    # A partner's own radius does not matter, only whether it is active.
    radii = np.array(
        [(rows[e].radius if e in rows else 0.0) if e in active else -1.0 for e in ids], np.float32
    )
    first, second, apart = list[int](), list[int](), list[float]()
    for edit_id, row in rows.items():
        first += [place[edit_id]] * len(row.conflicts)
        second += [place[other] for other in row.conflicts]
        apart += row.conflicts.values()
    give_way(radii, first, second, apart)
    return {e: float(radii[place[e]]) for e in rows if e in wanted and e in active}


def _folded(store: Store, fingerprint: str, version: int) -> dict[str, float]:
    """Returns the radii of all rows of a version, folded from keys."""
    ids: Iterable[str] = store.history.active_ids(version)
    found: dict[str, float] = {}
    for memory in load_memories(store, fingerprint).values():
        radii = memory.radii(memory.rows(ids))
        found |= {
            memory.edit_id(row): float(radii[row])
            for row in memory.rows(ids).tolist()
            if radii[row] >= 0
        }
    return found
