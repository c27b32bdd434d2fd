"""Comparing two versions without a model: edits, and codebook rows with their radii."""

from __future__ import annotations

from collections.abc import Sequence

from editkit.artifacts import load_memories
from editkit_store import Store
from editkit_store.records import CodebookDiff, CodebookRow, Diff, RadiusChange
from editkit_store.versions import format_version

__all__ = ["codebook_diff", "diff"]


def diff(store: Store, before: str, after: str, *, fingerprint: str | None = None) -> Diff:
    """Returns what changed from one version to another.

    Args:
        store: The history.
        before: Version expression.
        after: Version expression.
        fingerprint: Model whose codebooks are compared; by default the one the store remembers.

    Raises:
        UnknownVersion: An expression names no version.
    """
    first, second = store.history.resolve(before), store.history.resolve(after)
    ids_before, ids_after = store.history.active_ids(first), store.history.active_ids(second)
    added = [edit_id for edit_id in ids_after if edit_id not in set(ids_before)]
    removed = [edit_id for edit_id in ids_before if edit_id not in set(ids_after)]
    came = store.history.edits(added, at=second)
    # Removed edits are shown in the state they have at the later version: reverted or superseded.
    went = store.history.edits(removed, at=second)
    return Diff(
        from_=format_version(first),
        to=format_version(second),
        added=tuple(came[edit_id] for edit_id in added),
        removed=tuple(went[edit_id] for edit_id in removed),
        codebook=codebook_diff(
            store, ids_before, ids_after, fingerprint or store.setting("fingerprint")
        ),
    )


def codebook_diff(
    store: Store, before: Sequence[str], after: Sequence[str], fingerprint: str | None
) -> CodebookDiff:
    """Returns how the codebook of one model differs between two sets of active edits.

    Args:
        store: The history.
        before: Ids active at the first version, oldest first.
        after: Ids active at the second version, oldest first.
        fingerprint: The model.
    """
    if fingerprint is None:
        return CodebookDiff()
    memories = load_memories(store, fingerprint)
    old: dict[str, float] = {}
    new: dict[str, float] = {}
    for memory in memories.values():
        for ids, found in ((before, old), (after, new)):
            rows = memory.rows(ids)
            radii = memory.radii(rows)
            found |= {memory.edit_id(r): float(radii[r]) for r in rows.tolist() if radii[r] >= 0}
    attempted = store.artifacts.attempted(fingerprint)
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
        missing=tuple(edit_id for edit_id in after if edit_id not in attempted),
        fingerprint=fingerprint,
    )
