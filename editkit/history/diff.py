"""Comparing two versions without a model: which edits came and went, and what their methods say.

Takes time in proportion to what differs between the versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from editkit.methods.registry import registered
from editkit_store import Store
from editkit_store.history.versions import format_version
from editkit_store.records.comparisons import Diff

__all__ = ["Compare", "diff"]


class Compare(Protocol):
    """What a method names as ``MethodSpec.compare``."""

    def __call__(
        self,
        store: Store,
        before: int,
        after: int,
        fingerprint: str,
        changes: tuple[Sequence[str], Sequence[str]],
    ) -> dict[str, Any]:
        """Returns what differs between two versions of what one model learned by the method.

        Args:
            store: The history.
            before: A version.
            after: Another one.
            fingerprint: The model.
            changes: Ids of the edits that came and that went, of any method.

        Returns:
            Fields of ``Diff``, or plain data of its own, which ``Diff.details`` gets.
        """


def diff(store: Store, before: str, after: str, *, fingerprint: str | None = None) -> Diff:
    """Returns what changed from one version to another.

    Args:
        store: The history.
        before: Version expression.
        after: Version expression.
        fingerprint: Model of which what was learned is compared; by default the one that the store
            remembers.

    Raises:
        UnknownVersion: An expression names no version.
    """
    first, second = store.history.resolve(before), store.history.resolve(after)
    changes = store.history.changes(first, second)
    came, went = changes
    # Removed edits are shown in the state they have at the later version: reverted or superseded.
    edits = store.history.edits([*came, *went], at=second, active=came)
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
        added=tuple(edits[edit_id] for edit_id in came),
        removed=tuple(edits[edit_id] for edit_id in went),
        details=details,
        **fields,
    )
