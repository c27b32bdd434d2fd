"""Conflicts of imported artifacts, as each method finds them.

Methods are imported only when needed: importing a bundle needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editkit.methods.registry import registered
from editkit_store import Store

__all__ = ["find_conflicts"]

Conflicts = dict[str, dict[str, dict[str, float]]]
"""By model and edit: the earlier edits in conflict, with the distances of their keys."""


def find_conflicts(store: Store, learned: Mapping[str, Sequence[str]]) -> Conflicts:
    """Returns the conflicts of imported artifacts, as their methods find them.

    Args:
        store: The history, including the artifacts.
        learned: Ids of their edits, by model fingerprint.

    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    found: Conflicts = {}
    for one in registered().values():
        find = None if one.spec is None else one.spec.load_conflicts()
        for fingerprint, conflicts in ({} if find is None else find(store, learned)).items():
            found.setdefault(fingerprint, {}).update(conflicts)
    return found
