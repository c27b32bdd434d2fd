"""Where a history stands, with what the methods of its edits warn of. Needs no model."""

from __future__ import annotations

from editkit.methods.registry import registered
from editkit_store import Store
from editkit_store.records import Status

__all__ = ["status"]


def status(store: Store) -> Status:
    """Returns where a store stands."""
    found = store.status()
    warnings = list(found.warnings)
    version = store.history.current()
    for name in store.history.method_names():
        method = registered().get(name)
        warn = None if method is None or method.spec is None else method.spec.load_warnings()
        if warn is not None:
            warnings += warn(store, version)
    return found.model_copy(update={"warnings": tuple(warnings)})
