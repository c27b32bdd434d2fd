"""editkit: correct a language model while it runs.

Example:
    import editkit

    with editkit.open("history.db", model="smollm2-135m") as kit:
        kit.add(prompt="The capital of Australia is", target="Canberra")
        print(kit.generate("The capital of Australia is"))

Names are loaded when they are first used: importing the package costs no torch, so that commands
which need no model start quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from editkit_store.errors import EditkitError
from editkit_store.records import EditRequest

if TYPE_CHECKING:
    from editkit.evaluation.evaluate import evaluate
    from editkit.kit import Kit
    from editkit.kit.open import open
    from editkit.methods.elder.peft import PeftElderConfig as ElderConfig
    from editkit.methods.grace.config import GraceConfig

__version__ = "0.1.0"

__all__ = [
    "EditRequest",
    "EditkitError",
    "ElderConfig",
    "GraceConfig",
    "Kit",
    "__version__",
    "evaluate",
    "open",
]

_HOMES = {
    "Kit": "kit.kit:Kit",
    "evaluate": "evaluation.evaluate:evaluate",
    "open": "kit.open:open",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        value = getattr(importlib.import_module(f".{module}", __name__), attribute)
    elif name in __all__:  # what methods export
        value = _exported(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _exported(name: str) -> Any:
    from editkit.methods.registry import registered

    for one in registered().values():
        if one.spec is not None and name in one.spec.exports:
            return one.spec.load_export(name)
    raise AttributeError(f"no method that is installed brings {__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
