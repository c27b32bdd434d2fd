"""Loading a model by name into an engine."""

from __future__ import annotations

from typing import Any

from editkit.engines.transformers.engine import TransformersEngine
from editkit.models.load import ModelSpec, load_model

__all__ = ["load_engine"]


def load_engine(spec: ModelSpec, **options: Any) -> TransformersEngine:
    """Returns a learning engine for a model.

    Args:
        spec: Alias, hub id, folder, GGUF file, or a loaded ``(model, tokenizer)``.
        **options: See ``load_model``.

    Raises:
        UnknownModel, ModelUnavailable, UnsupportedModel, TypeError, ValueError: See ``load_model``.
    """
    return TransformersEngine(load_model(spec, **options))
