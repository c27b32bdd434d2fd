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
    "ElderConfig": "methods.elder.peft:PeftElderConfig",
    "GraceConfig": "methods.grace.config:GraceConfig",
    "Kit": "kit.kit:Kit",
    "evaluate": "evaluation.evaluate:evaluate",
    "open": "kit.open:open",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
