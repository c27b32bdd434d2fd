"""Models by name: fetching, loading and fingerprinting.

Importing this package is cheap; each name below is imported on first use, so that listing the
aliases needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aliases import ALIASES, DEFAULT_MODEL, Alias, close_matches, find_alias, list_models
    from .cache import cache_root
    from .fetch import pull_model
    from .identity import fingerprint
    from .load import LoadedModel, ModelSpec, load_model
    from .progress import Progress
    from .source import Source, resolve

__all__ = [
    "ALIASES",
    "DEFAULT_MODEL",
    "Alias",
    "LoadedModel",
    "ModelSpec",
    "Progress",
    "Source",
    "cache_root",
    "close_matches",
    "find_alias",
    "fingerprint",
    "list_models",
    "load_model",
    "pull_model",
    "resolve",
]

_HOMES = {
    "ALIASES": "aliases",
    "Alias": "aliases",
    "DEFAULT_MODEL": "aliases",
    "LoadedModel": "load",
    "ModelSpec": "load",
    "Progress": "progress",
    "Source": "source",
    "cache_root": "cache",
    "close_matches": "aliases",
    "find_alias": "aliases",
    "fingerprint": "identity",
    "list_models": "aliases",
    "load_model": "load",
    "pull_model": "fetch",
    "resolve": "source",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # later accesses do not call __getattr__
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
