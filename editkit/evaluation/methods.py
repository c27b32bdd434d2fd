"""The methods that an evaluation can compare, by name; see ``names``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from editkit.errors import UnsupportedMethod
from editkit.evaluation.contestants import Contestant, RecordedEdits
from editkit.evaluation.names import method_names
from editkit.evaluation.prompting import PromptMemory
from editkit.evaluation.tuned import FineTuning, Lora
from editkit.methods.registry import find_method
from editkit.methods.spec import Variant
from editkit.models.load import ModelSpec

__all__ = ["maker"]

_BASELINES: dict[str, Callable[..., Contestant]] = {
    "fine-tuning": FineTuning,
    "lora": Lora,
    "prompt-memory": PromptMemory,
    "base": Contestant,
}


def maker(name: str, model: ModelSpec, **options: Any) -> Callable[[Path], Contestant]:
    """Returns a factory that creates a method in a folder of its own.

    Args:
        name: Name of the method.
        model: As for ``editkit.open``.
        options: More options for ``editkit.open``.

    Raises:
        UnsupportedMethod: There is no such method.
    """
    known = method_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        raise UnsupportedMethod(
            f"there is no method '{name}' to evaluate",
            hint=(f"did you mean '{close[0]}'? " if close else "") + f"methods: {', '.join(known)}",
        )
    if name in _BASELINES:
        return lambda folder: _BASELINES[name](name, model, folder, **options)
    method, _, chosen = name.partition(":")
    variant = find_method(method).variants[chosen] if chosen else Variant()
    return lambda folder: RecordedEdits(
        name, model, folder, method=method, variant=variant, **options
    )
