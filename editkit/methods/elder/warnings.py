"""Warnings for ``status``: codes that no longer separate edits from other text. Needs no torch."""

from __future__ import annotations

from editkit_store import Store

__all__ = ["warnings"]


def warnings(store: Store, version: int) -> list[str]:
    """Returns a warning for each model whose codes no longer separate; see ``MethodSpec``."""
    found = []
    names = store.artifacts.model_names()
    for fingerprint, digest in store.snapshots.at(version).items():
        if digest is None:
            continue
        apart = store.snapshots.get(digest, only=()).settings.get("separation")
        if apart is not None and apart[0] >= apart[1]:
            found.append(
                f"ELDER's codes on {names.get(fingerprint, fingerprint)} no longer separate edits "
                f"from other text: wordings lie up to {apart[0]} bits from the code of their "
                f"edit, and 1% of other text within {apart[1]} bits of some edit's"
            )
    return found
