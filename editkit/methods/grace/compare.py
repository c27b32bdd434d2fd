"""How a codebook differs between two versions: rows and radii. Needs no torch.

Radii are derived anew from the columns beside the artifacts, for the rows that came, went, or
conflict with one that did. No tensor is read, except where edits were learned under rule ``paper``,
whose fold needs the keys, or before conflicts were written down.
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
"""In the metrics of edits whose fold depends on their order."""


def compare(
    store: Store,
    before: int,
    after: int,
    fingerprint: str,
    changes: tuple[Sequence[str], Sequence[str]],
) -> dict[str, Any]:
    """Returns what differs; see ``editkit.history.diff.Compare``."""
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
        before: Version.
        after: Version.
        fingerprint: The model.
        changes: Ids of the edits that came and that went, see ``History.changes``.
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
    """Radii before and after of the rows that can differ, oldest edit first.

    See ``methods.grace.radii`` for the rule.
    """
    came, went = (set(ids) for ids in changes)
    rows = store.artifacts.reaches(fingerprint, came | went, method=METHOD)
    near = _with_partners(rows) | came | went
    if near != came | went:
        # A row that is near a changed one may be near others, which hold its radius down as before.
        rows = store.artifacts.reaches(fingerprint, near, method=METHOD)
    there = set(store.artifacts.learned_among(fingerprint, _with_partners(rows)))
    stays = set(store.history.active_among(there - came - went, after))
    return _radii(rows, near, stays | went & there), _radii(rows, near, stays | came & there)


def _with_partners(rows: Mapping[str, Row]) -> set[str]:
    return set(rows).union(*(row.conflicts for row in rows.values()))


def _radii(rows: Mapping[str, Row], wanted: set[str], active: set[str]) -> dict[str, float]:
    """Radii of the wanted rows that are active, float32 as the running model has them."""
    ids = sorted(_with_partners(rows))
    place = {edit_id: number for number, edit_id in enumerate(ids)}
    # What a partner's own radius is, nobody asks: only whether it is there.
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
    """Radii of all rows of a version, folded from keys."""
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
