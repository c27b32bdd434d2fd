"""Which layers of a model ELDER adapts: those a config names, or feed-forward outputs."""

from __future__ import annotations

import difflib
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import nn

from editkit.engines.transformers.layout import Layout, layout_of, text_config
from editkit.engines.transformers.site import ffn_output, shape_of
from editkit.errors import UnknownSite, UnsupportedModel
from editkit.methods.elder.config import ElderConfig

__all__ = ["adapted_paths", "default_modules"]

_LAYERS = 6


def adapted_paths(model: nn.Module, layout: Layout, config: ElderConfig) -> list[str]:
    """Returns the dotted paths of the layers that a config names.

    Raises:
        UnknownSite: None matches, or one that does is not a linear map in a block.
    """
    if config.target_modules is None:
        config.target_modules = default_modules(model, config)
    paths = [
        path
        for path, module in model.named_modules()
        if path
        and not any(part.startswith("elder_") for part in path.split("."))
        and not path.endswith(".base_layer")
        and check_target_module_exists(config, path)
    ]
    asked = config.target_modules
    if not paths:
        known = sorted({path.rpartition(".")[2] for path, _ in model.named_modules()})
        name = asked if isinstance(asked, str) else ", ".join(sorted(asked))
        matches = tuple(difflib.get_close_matches(name.rpartition(".")[2], known, n=3))
        raise UnknownSite(
            f"no module of the model is called '{name}'"
            + (" in those layers" if config.layers_to_transform is not None else ""),
            site=name,
            matches=matches,
            hint=f"did you mean {' or '.join(matches)}?" if matches else None,
        )
    for path in paths:
        module = model.get_submodule(path)
        module = _base(module)
        weight = getattr(module, "weight", None)  # a quantised layer may have none
        if shape_of(module) is None or getattr(weight, "dim", lambda: 2)() == 1:
            raise UnknownSite(f"'{path}' is a {type(module).__name__}, not a linear map", site=path)
        if not path.startswith(f"{layout.path}."):
            raise UnknownSite(f"'{path}' is not inside one of the blocks", site=path)
    return paths


def default_modules(model: nn.Module, config: ElderConfig) -> list[str]:
    """Returns the paths of the feed-forward outputs of the blocks to adapt.

    Raises:
        UnknownSite: No such block.
        UnsupportedModel: A block has none.
    """
    layout = layout_of(model)
    count = min(_LAYERS, len(layout.blocks))
    first = min(round(config.depth * len(layout.blocks)), len(layout.blocks) - count)
    asked = config.layers_to_transform
    blocks = list(range(first, first + count))
    if asked is not None:
        blocks = [asked] if isinstance(asked, int) else list(asked)
    hidden = int(text_config(model).hidden_size)
    found = []
    for index in blocks:
        if not 0 <= index < len(layout.blocks):
            raise UnknownSite(
                f"there is no block {index}: '{layout.path}' has {len(layout.blocks)}",
                site=f"{layout.path}.{index}",
            )
        inner = ffn_output(layout.blocks[index], hidden, norms=False)
        if inner is None:
            raise UnsupportedModel(
                f"no feed-forward output was found in '{layout.path}.{index}'",
                hint="name the modules with ElderConfig(target_modules=...)",
            )
        # Inside a layer that another adapter adapts lies the linear map itself.
        found.append(f"{layout.path}.{index}.{inner.removesuffix('.base_layer')}")
    return found


def _base(module: Any) -> Any:
    """Returns a module without the layers of adapters around it."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
