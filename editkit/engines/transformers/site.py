"""Edit sites: the feed-forward output of a block, found by structure.

A site is a module named by its dotted path. By default it is the output of a block's feed-forward
part: its last linear map into the hidden size, or the norm after it if there is one (Gemma, OLMo
2). Such a norm rescales its input, so a value before it could change only the direction of the
output, not its length.
"""

from __future__ import annotations

import difflib
import re

import torch
from torch import nn

from editkit.config import PresetName
from editkit.engines.learning import Site
from editkit.errors import UnknownSite, UnsupportedModel
from editkit.models.layout import layout_of, text_config

__all__ = ["Site", "default_site", "feed_forward", "ffn_output", "find_site", "shape_of"]

# Depth of the site as a fraction of all layers. `paper`: layer 27 of 32, the common setting for
# Llama-2-7B. `default`: lower. Values are learned in fewer steps there (results/site_depth.txt) and
# generalize better to rephrases (results/quality.md), since more blocks are above the site.
_DEPTH: dict[PresetName, float] = {"default": 0.67, "paper": 0.84}

# Names of a norm between the FFN and the residual stream.
_FFN_NORM = re.compile(r"post_?(feedforward|ffn|ffw|mlp)", re.IGNORECASE)

# Sites that the authors published otherwise: GPT2-XL, block 35 of 48, the FFN's first linear map.
_PAPER: dict[str, tuple[float, str | None]] = {"gpt2": (35 / 48, "mlp.c_fc")}


def default_site(model: nn.Module, *, preset: PresetName = "default") -> Site:
    """Returns the default site of a model.

    Raises:
        UnsupportedModel: The model cannot be edited, or no FFN was found.
    """
    layout = layout_of(model)
    path, blocks = layout.path, layout.blocks
    depth, inner = _DEPTH[preset], None
    if preset == "paper":
        depth, inner = _PAPER.get(str(text_config(model).model_type), (depth, None))
    # Other tokens see the value only through the attention of blocks above the site, so at least
    # one block must be left above it, even in a shallow model.
    index = max(0, min(len(blocks) - 2, round(depth * len(blocks))))
    if inner is None:
        inner = ffn_output(blocks[index], int(text_config(model).hidden_size))
    if inner is None:
        raise UnsupportedModel(
            f"no feed-forward output was found in '{path}.{index}'",
            hint="name the module to edit with GraceConfig(site=...)",
        )
    return find_site(model, f"{path}.{index}.{inner}")


def feed_forward(model: nn.Module, depth: float) -> Site:
    """Returns the last linear map of a block's feed-forward part; see ``LearningEngine``.

    Raises:
        UnsupportedModel: The model cannot be edited, or no such map was found.
    """
    layout = layout_of(model)
    index = max(0, min(len(layout.blocks) - 1, round(depth * len(layout.blocks))))
    inner = ffn_output(layout.blocks[index], int(text_config(model).hidden_size), norms=False)
    if inner is None:
        raise UnsupportedModel(f"no feed-forward output was found in '{layout.path}.{index}'")
    return find_site(model, f"{layout.path}.{index}.{inner}")


def find_site(model: nn.Module, path: str) -> Site:
    """Returns the site at a path; ``layers[27]`` may be written for ``layers.27``.

    Raises:
        UnknownSite: There is no such module, it is not inside a block, or its width is unknown.
        UnsupportedModel: The model cannot be edited.
    """
    asked = re.sub(r"\[(\d+)\]", r".\1", path)
    modules = dict(model.named_modules())
    module = modules.get(asked)
    if module is None:
        matches = tuple(difflib.get_close_matches(asked, modules, n=3))
        raise UnknownSite(
            f"there is no module '{path}' in this model",
            site=path,
            matches=matches,
            hint=f"did you mean {' or '.join(matches)}?" if matches else None,
        )
    layout = layout_of(model)
    inside = re.match(re.escape(layout.path) + r"\.(\d+)\.", asked)
    if inside is None:
        raise UnknownSite(
            f"'{path}' is not inside one of the blocks '{layout.path}.0' to "
            f"'{layout.path}.{len(layout.blocks) - 1}'",
            site=path,
            hint="the site of an encoder-decoder is in its encoder, which reads the prompt"
            if layout.family == "encoder-decoder"
            else None,
        )
    shape = shape_of(module)
    if shape is None:
        raise UnknownSite(
            f"'{path}' is a {type(module).__name__}, not a linear map or a norm", site=path,
            hint="choose a linear module of a feed-forward part",
        )  # fmt: skip
    return Site(asked, module, int(inside[1]), *shape, layout)


def ffn_output(block: nn.Module, hidden: int, *, norms: bool = True) -> str | None:
    """Returns the path within a block of its feed-forward output, None if there is none.

    Args:
        block: The block.
        hidden: Its hidden size.
        norms: Whether a norm after the feed-forward part counts as its output.
    """
    for name, module in block.named_children():
        if norms and _FFN_NORM.search(name) and shape_of(module) is not None:
            return name
    found = None
    for name, module in block.named_modules():
        shape = shape_of(module)
        # FFNs follow attention in every layout, so the last map into the hidden size is the FFN's.
        if shape is not None and shape[1] == hidden and "norm" not in name.lower():
            found = name
    return found


def shape_of(module: nn.Module) -> tuple[int, int] | None:
    """Returns input and output width of a linear map (also ``Conv1D``, quantised) or a norm."""
    for inputs, outputs in (("in_features", "out_features"), ("nx", "nf")):
        if hasattr(module, inputs) and hasattr(module, outputs):
            return int(getattr(module, inputs)), int(getattr(module, outputs))
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, torch.Tensor):
        return int(weight.shape[0]), int(weight.shape[1])
    if isinstance(weight, torch.Tensor) and weight.dim() == 1:  # a norm
        return int(weight.shape[0]), int(weight.shape[0])
    return None
