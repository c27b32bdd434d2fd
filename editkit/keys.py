"""What edits are looked up by on a model: keys of prompts, or hidden states."""

from __future__ import annotations

import functools

from editkit.config import GraceConfig, KeyName
from editkit.errors import UnsupportedModel
from editkit.models.load import LoadedModel
from editkit.prompts import Encoder
from editkit.scope import PooledKeys
from editkit.scope.information import of_model

__all__ = ["kind_of_key", "pooled_keys"]


def kind_of_key(loaded: LoadedModel, encoder: Encoder, config: GraceConfig) -> KeyName:
    """Returns what GRACE looks its edits up by.

    Raises:
        UnsupportedModel: Keys of prompts were asked for, of a model that does not continue one.
    """
    kind = config.key or ("pooled" if encoder.family == "decoder" else "state")
    if kind != "state" and encoder.family != "decoder":
        raise UnsupportedModel(
            f"{kind} keys are for models that continue a prompt, not for "
            f"{type(loaded.model).__name__}",
            hint="leave `key` out, or set it to 'state'",
        )
    return kind


def pooled_keys(loaded: LoadedModel) -> PooledKeys:
    """Returns what gives pooled keys of a model's prompts."""
    known = functools.partial(
        of_model,
        loaded.model,
        loaded.tokenizer,
        fingerprint=loaded.fingerprint,
        # Of a pair from somebody's program nobody knows whether it ever comes back.
        is_kept=loaded.path is not None,
    )
    return PooledKeys(loaded.model, loaded.tokenizer, known)
