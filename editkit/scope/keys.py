"""Keys of prompts: what edits are looked up by where they are not looked up by hidden states."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from editkit.scope.information import of_model
from editkit.scope.pooled import PooledKeys
from editkit.scope.sentences import SentenceKeys
from editkit.scope.texts import TextKeys

if TYPE_CHECKING:
    from editkit.engines.base import Family
    from editkit.models.load import LoadedModel

__all__ = ["PromptKeys", "pooled_keys"]

PromptKeys = PooledKeys | SentenceKeys
"""What gives the keys of prompts from their words."""


def pooled_keys(loaded: LoadedModel, family: Family) -> PooledKeys:
    """Returns what gives keys of a model's prompts from their words.

    Args:
        loaded: The model.
        family: What kind of model it is.
    """
    known = functools.partial(
        of_model,
        loaded.model,
        loaded.tokenizer,
        fingerprint=loaded.fingerprint,
        # Of a pair from somebody's program nobody knows whether it ever comes back.
        is_kept=loaded.path is not None,
    )
    made = TextKeys if family == "classifier" else PooledKeys
    return made(loaded.model, loaded.tokenizer, known)
