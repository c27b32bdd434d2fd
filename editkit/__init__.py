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

from editkit.methods.elder.peft.register import register_with_peft
from editkit_store.errors import EditkitError
from editkit_store.records import EditRequest

if TYPE_CHECKING:
    from editkit.config import GraceConfig
    from editkit.evaluation.evaluate import evaluate
    from editkit.kit import Kit
    from editkit.kit.open import open
    from editkit.methods.elder.config import ElderConfig

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

register_with_peft()

_HOMES = {
    "ElderConfig": "methods.elder.config",
    "GraceConfig": "config",
    "Kit": "kit",
    "evaluate": "evaluation.evaluate",
    "open": "kit.open",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
