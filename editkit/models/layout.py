"""The structure of a model: its family, and its list of blocks.

    decoder          Llama, GPT-2, Qwen, Gemma, Mistral, ...: the prompt and the answer share one
                     sequence, and the blocks see both
    encoder-decoder  T5, BART, ...: the blocks are the encoder's, which sees only the prompt
    classifier       BERT, or a decoder with a classification head: the answer is a label

It does not depend on class names of particular architectures: the blocks are the first
``ModuleList`` with as many members as the config has layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from editkit.config import Position
from editkit.errors import UnsupportedModel

if TYPE_CHECKING:
    from editkit.engines.base import Family

__all__ = ["Layout", "layout_of", "text_config"]

_HEADS = ("classifier", "score", "classification_head")


@dataclass(frozen=True)
class Layout:
    """The parts of a model that editing needs.

    Attributes:
        family: Kind of model.
        host: The module whose call runs every block once; it receives the tokens and their mask.
        path: Dotted path of the list of blocks.
        blocks: The blocks, first to last.
        position: Token whose hidden state determines the answer: the last one with causal
            attention, the first ([CLS]) in a bidirectional classifier.
    """

    family: Family
    host: nn.Module
    path: str
    blocks: Sequence[nn.Module]
    position: Position


def text_config(model: Any) -> Any:
    """Returns the config of the language part of a model."""
    config = model.config
    # In an encoder-decoder this would return the decoder's config.
    if getattr(config, "is_encoder_decoder", False):
        return config
    return config.get_text_config(decoder=True)


def layout_of(model: Any) -> Layout:
    """Returns the layout of a model.

    Raises:
        UnsupportedModel: It is neither a generative language model nor a sequence classifier, or no
            list of blocks was found.
    """
    if getattr(model, "config", None) is None:
        raise _refusal(model)
    if getattr(model.config, "is_encoder_decoder", False):
        if not hasattr(model, "generate"):
            raise _refusal(model)
        host = model.get_encoder()
        family: Family = "encoder-decoder"
    elif hasattr(model, "generate"):
        host, family = model, "decoder"
    elif any(isinstance(getattr(model, name, None), nn.Module) for name in _HEADS):
        host, family = model, "classifier"
    else:
        raise _refusal(model)
    depth = int(text_config(model).num_hidden_layers)
    inside = {id(module) for module in host.modules()}
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and id(module) in inside:
            # A decoder with a classification head (`score`) uses its last token.
            first = family == "classifier" and not hasattr(model, "score")
            return Layout(family, host, path, list(module), "first" if first else "last")
    raise UnsupportedModel(f"no list of {depth} blocks was found in {type(model).__name__}")


def _refusal(model: Any) -> UnsupportedModel:
    return UnsupportedModel(
        f"{type(model).__name__} neither generates text nor classifies sequences",
        hint="load it with a language-model head (AutoModelForCausalLM, AutoModelForSeq2SeqLM) or "
        "as a sequence classifier (AutoModelForSequenceClassification)",
    )
