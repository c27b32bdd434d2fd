"""Whether two names mean the same model. Imports no torch."""

from __future__ import annotations

from editkit.models import resolve
from editkit_store.errors import EditkitError

__all__ = ["full_name", "is_same_model"]


def full_name(name: str) -> str:
    """Returns the name of a model that is valid in every folder: a full path, or a hub id.

    An unknown name is returned as it is.
    """
    try:
        found = resolve(name)
    except EditkitError:
        return name
    return str(found.path) if found.path is not None else found.hub_id or found.name


def is_same_model(one: str, other: str) -> bool:
    """Returns whether two names mean the same model, as far as names can tell."""
    return one == other or full_name(one) == full_name(other)
