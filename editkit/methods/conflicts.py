"""Conflicts of what was learned elsewhere, as each method finds them.

Nothing heavy is imported before a method is asked: an import of a bundle needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editkit.methods.registry import registered
from editkit_store import Store

__all__ = ["find_conflicts"]

Conflicts = dict[str, dict[str, dict[str, float]]]
"""By model and edit: earlier edits that it conflicts with, with the distances of their keys."""


def find_conflicts(store: Store, learned: Mapping[str, Sequence[str]]) -> Conflicts:
    """Returns the conflicts of artifacts that came from elsewhere, as their methods find them.

    Args:
        store: The history, with the artifacts in it.
        learned: Ids of their edits, by the fingerprint of the model.

    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    found: Conflicts = {}
    for one in registered().values():
        find = None if one.spec is None else one.spec.load_conflicts()
        for fingerprint, conflicts in ({} if find is None else find(store, learned)).items():
            found.setdefault(fingerprint, {}).update(conflicts)
    return found
