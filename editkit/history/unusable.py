"""Warnings about active edits whose methods are not available."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from editkit.methods.registry import registered
from editkit_store import Store

__all__ = ["unusable"]


def unusable(store: Store, version: int, is_usable: Callable[[str], bool]) -> dict[str, str]:
    """Returns a warning for each unavailable method that active edits were made with.

    Args:
        store: The history.
        version: The version.
        is_usable: Whether a method is available, by its name.
    """
    history = store.history
    names = [name for name in history.method_names() if not is_usable(name)]
    if not names:
        return {}
    counts = Counter(history.methods_of(history.active_ids(version)).values())
    found = {}
    for name in names:
        if not counts[name]:
            continue
        edits = f"{counts[name]} active edit{' was' if counts[name] == 1 else 's were'} made"
        found[name] = (
            f"{edits} with the method '{name}', which is not available ({_reason(store, name)}): "
            "the model answers without them"
        )
    return found


def _reason(store: Store, name: str) -> str:
    known = registered().get(name)
    if known is None:
        package = store.artifacts.package_of(name)
        if package is None:
            return "install the package that provides it"
        return f"install '{package}', the package that the history records"
    return known.fault or "it cannot be opened on this model"
