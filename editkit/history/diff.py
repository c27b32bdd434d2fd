"""Comparing two versions without a model: added and removed edits, and the methods' comparisons.

Runs in time proportional to the difference between the versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from editkit.methods.registry import registered
from editkit_store import Store
from editkit_store.history.adjustments import stances
from editkit_store.history.versions import format_version
from editkit_store.records import AdjustmentChange, Stance
from editkit_store.records.comparisons import Diff

__all__ = ["Compare", "diff"]


class Compare(Protocol):
    """The function that a method names as ``MethodSpec.compare``."""

    def __call__(
        self,
        store: Store,
        before: int,
        after: int,
        fingerprint: str,
        changes: tuple[Sequence[str], Sequence[str]],
    ) -> dict[str, Any]:
        """Compares what one model learned with the method at two versions.

        Args:
            store: The history.
            before: The first version.
            after: The second version.
            fingerprint: Fingerprint of the model.
            changes: Ids of the added and of the removed edits, of any method.

        Returns:
            Fields of ``Diff``; other plain data goes to ``Diff.details``.
        """


def diff(store: Store, before: str, after: str, *, fingerprint: str | None = None) -> Diff:
    """Returns what changed from one version to another.

    Args:
        store: The history.
        before: Version expression.
        after: Version expression.
        fingerprint: Model whose artifacts are compared; by default the one that the store
            remembers.

    Raises:
        UnknownVersion: An expression does not name a version.
    """
    first, second = store.history.resolve(before), store.history.resolve(after)
    changes = store.history.changes(first, second)
    added, removed = changes
    # Removed edits are shown with their status at the second version: reverted or superseded.
    edits = store.history.edits([*added, *removed], at=second, active=added)
    model = fingerprint or store.setting("fingerprint")
    fields: dict[str, Any] = {}
    details: dict[str, dict[str, Any]] = {}
    for name, one in registered().items():
        compare = None if one.spec is None else one.spec.load_compare()
        found = (
            {}
            if compare is None or model is None
            else compare(store, first, second, model, changes)
        )
        own = {key: value for key, value in found.items() if key not in Diff.model_fields}
        fields |= {key: value for key, value in found.items() if key in Diff.model_fields}
        if own:
            details[name] = own
    return Diff(
        from_=format_version(first),
        to=format_version(second),
        added=tuple(edits[edit_id] for edit_id in added),
        removed=tuple(edits[edit_id] for edit_id in removed),
        adjusted=tuple(_adjusted(store, first, second)),
        details=details,
        **fields,
    )


def _adjusted(store: Store, first: int, second: int) -> Iterator[AdjustmentChange]:
    """Yields the prompts that two versions say different things of, by edit, oldest first."""
    history = store.history
    found = [_stances(store, version) for version in (first, second)]
    edits = history.edits(history.in_order(found[0].keys() | found[1].keys()), at=second)
    for edit_id in history.in_order(list(edits)):
        before, after = (one.get(edit_id, {}) for one in found)
        for key in dict.fromkeys([*before, *after]):
            old, new = before.get(key), after.get(key)
            if (old and old[0]) != (new and new[0]):
                yield AdjustmentChange(
                    edit_id=edit_id,
                    edit_prompt=edits[edit_id].prompt,
                    target=edits[edit_id].target,
                    prompt=(new or old or ("", ""))[1],
                    before=old and old[0],
                    after=new and new[0],
                )


def _stances(store: Store, version: int) -> dict[str, dict[str, tuple[Stance, str]]]:
    """Returns what a version says of wordings, for the edits that are active at it."""
    found = store.history.adjustments(at=version)
    active = store.history.active_among(list(found), version)
    return {edit_id: stances(found[edit_id]) for edit_id in active}
