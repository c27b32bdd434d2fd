"""What edits are looked up by on a model: keys of prompts, or hidden states."""

from __future__ import annotations

import functools

from editkit.config import GraceConfig, KeyName
from editkit.engines.transformers.layout import layout_of
from editkit.engines.transformers.tokens import Encoder
from editkit.errors import UnsupportedModel
from editkit.models.load import LoadedModel
from editkit.scope.information import has_words, of_model
from editkit.scope.pooled import PooledKeys
from editkit.scope.sentences import SentenceKeys
from editkit.scope.texts import TextKeys

__all__ = ["PromptKeys", "kind_of_key", "pooled_keys"]

PromptKeys = PooledKeys | SentenceKeys
"""What gives the keys of prompts from their words, where edits are not looked up by states."""

_ASKED = {
    "pooled": "models that continue a prompt",
    "text": "classifiers whose tokenizer knows words",
    "sentence": "models that continue a prompt, or classifiers whose tokenizer knows words",
}


def kind_of_key(loaded: LoadedModel, encoder: Encoder, config: GraceConfig) -> KeyName:
    """Returns what GRACE looks its edits up by.

    Raises:
        UnsupportedModel: Keys were asked for that the model's inputs have none of.
    """
    default: KeyName = "state"
    if encoder.family == "decoder":
        default = "pooled"
    # What a decoder knows of its tokens it says itself; of others their vocabulary has to tell.
    elif encoder.family == "classifier" and has_words(loaded.tokenizer):
        default = "text"
    if config.key is None or config.key in ("state", default):
        return config.key or default
    if default == "state" or config.key != "sentence":
        raise UnsupportedModel(
            f"{config.key} keys are for {_ASKED[config.key]}, not for "
            f"{type(loaded.model).__name__}{'' if default != 'state' else ' and its tokenizer'}",
            hint=f"leave `key` out, or set it to '{default}'",
        )
    return config.key


def pooled_keys(loaded: LoadedModel) -> PooledKeys:
    """Returns what gives keys of a model's prompts from their words."""
    known = functools.partial(
        of_model,
        loaded.model,
        loaded.tokenizer,
        fingerprint=loaded.fingerprint,
        # Of a pair from somebody's program nobody knows whether it ever comes back.
        is_kept=loaded.path is not None,
    )
    made = TextKeys if layout_of(loaded.model).family == "classifier" else PooledKeys
    return made(loaded.model, loaded.tokenizer, known)
