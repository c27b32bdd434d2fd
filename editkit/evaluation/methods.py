"""The methods that an evaluation can compare, by name.

==========================  =======================================================================
grace                       GRACE with the default preset
grace:strict, grace:broad   the same with another scope
grace:sentence              the same with keys of a sentence encoder
grace:paper                 GRACE with the published constants
elder                       ELDER with the default preset
elder:paper                 ELDER as published: constants, and the procedure of learning
fine-tuning                 gradient descent on one module of the model
lora                        one LoRA on the model
prompt-memory               corrections looked up and put in front of the prompt
base                        the untouched model
==========================  =======================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from editkit.errors import UnsupportedMethod
from editkit.evaluation.editors import Editor, Elder, Grace
from editkit.evaluation.names import METHODS
from editkit.evaluation.prompting import PromptMemory
from editkit.evaluation.tuned import FineTuning, Lora
from editkit.models.load import ModelSpec

__all__ = ["maker"]

Maker = Callable[..., Editor]

_MAKERS: dict[str, Maker] = {
    "grace": Grace,
    "grace:strict": partial(Grace, changes={"scope": "strict"}),
    "grace:broad": partial(Grace, changes={"scope": "broad"}),
    "grace:sentence": partial(Grace, changes={"key": "sentence"}),
    "grace:paper": partial(Grace, preset="paper"),
    "elder": Elder,
    "elder:paper": partial(Elder, preset="paper"),
    "fine-tuning": FineTuning,
    "lora": Lora,
    "prompt-memory": PromptMemory,
    "base": Editor,
}
assert set(_MAKERS) == set(METHODS)


def maker(name: str, model: ModelSpec, **options: Any) -> Callable[[Path], Editor]:
    """Returns what makes a method in a folder of its own.

    Args:
        name: Name of the method.
        model: As for ``editkit.open``.
        options: For ``editkit.open``, besides those that make the method.

    Raises:
        UnsupportedMethod: There is none of that name.
    """
    if name not in _MAKERS:
        close = difflib.get_close_matches(name, _MAKERS, n=1)
        raise UnsupportedMethod(
            f"there is no method '{name}' to evaluate",
            hint=(f"did you mean '{close[0]}'? " if close else "")
            + f"methods: {', '.join(METHODS)}",
        )
    make = _MAKERS[name]
    return lambda folder: make(name, model, folder, **options)
