"""Names of the methods and scores of an evaluation, for the command line; needs no framework.

==========================  =======================================================================
grace, elder, ...           an installed editing method with the default preset
grace:paper, ...            one of its variants, see ``MethodSpec.variants``
fine-tuning                 gradient descent on one module of the model
lora                        one LoRA on the model
prompt-memory               corrections looked up and put in front of the prompt
base                        the unedited model
==========================  =======================================================================
"""

from __future__ import annotations

from editkit.methods.registry import registered

__all__ = ["BASELINES", "CEILINGS", "SCORES", "method_names"]

BASELINES = ("fine-tuning", "lora", "prompt-memory", "base")
"""Baselines that installed methods are compared with."""

CEILINGS = ("fired_other",)
"""Shares that are better when smaller: what is required is a maximum."""

SCORES = (
    "edit_success", "reliability", "generalization", "locality", "neighbours",
    "right", "right_free", "fired_same", "delivered_free", *CEILINGS,
)  # fmt: skip
"""Shares that can be given a required value."""


def method_names() -> tuple[str, ...]:
    """Returns the names of all methods that can be compared."""
    found = []
    for name, one in registered().items():
        if one.spec is not None:
            found += [name, *(f"{name}:{variant}" for variant in one.spec.variants)]
    return (*found, *BASELINES)
