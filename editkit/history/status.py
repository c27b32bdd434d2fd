"""The status of a history, with its methods' warnings. Needs no model."""

from __future__ import annotations

from editkit.history.unusable import unusable
from editkit.methods.registry import registered
from editkit_store import Store
from editkit_store.records import Status

__all__ = ["status"]


def status(store: Store) -> Status:
    """Returns the status of a store."""
    found = store.status()
    version = store.history.current()
    specs = {name: one.spec for name, one in registered().items() if one.spec is not None}
    warnings = [*found.warnings, *unusable(store, version, specs.__contains__).values()]
    for name in store.history.method_names():
        warn = specs[name].load_warnings() if name in specs else None
        if warn is not None:
            warnings += warn(store, version)
    return found.model_copy(update={"warnings": tuple(warnings)})
