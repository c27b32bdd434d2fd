"""The layers that ELDER adapts: those that the config names, or feed-forward outputs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from editkit.engines.base import Keys, Patch
from editkit.engines.transformers.site import ffn_output, shape_of
from editkit.errors import UnknownSite, UnsupportedModel
from editkit.methods.elder.config import ElderConfig
from editkit.models.layout import Layout, text_config

__all__ = ["adapted_paths", "default_modules", "first_block", "patch_for"]

_LAYERS = 6


def adapted_paths(model: nn.Module, layout: Layout, config: ElderConfig) -> list[str]:
    """Returns the dotted paths of the layers that a config names.

    Raises:
        UnknownSite: No module matches, or a match is not a linear map in a block.
    """
    asked = config.target_modules
    if asked is None:
        asked = default_modules(model, layout, config)
    paths = [
        path
        for path, _ in model.named_modules()
        if path
        and not any(part.startswith("elder_") for part in path.split("."))
        and not path.endswith(".base_layer")
        and not _matches(config.exclude_modules or (), path)
        and _is_selected(path, asked, layout, config)
    ]
    if not paths:
        known = sorted({path.rpartition(".")[2] for path, _ in model.named_modules()})
        name = asked if isinstance(asked, str) else ", ".join(sorted(asked))
        matches = tuple(difflib.get_close_matches(name.rpartition(".")[2], known, n=3))
        raise UnknownSite(
            f"no module of the model is named '{name}'"
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


def default_modules(model: nn.Module, layout: Layout, config: ElderConfig) -> list[str]:
    """Returns the paths of the feed-forward outputs of the blocks to adapt.

    Raises:
        UnknownSite: There is no such block.
        UnsupportedModel: A block has no feed-forward output.
    """
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
        # If another adapter wraps the layer, the linear map itself is inside.
        found.append(f"{layout.path}.{index}.{inner.removesuffix('.base_layer')}")
    return found


def first_block(model: nn.Module, layout: Layout, paths: Sequence[str]) -> int:
    """Returns the index of the first block that contains one of the layers.

    Args:
        model: The model.
        layout: Its layout.
        paths: Dotted paths of the layers.

    Raises:
        UnknownSite: A layer is not in one of the model's blocks.
    """
    blocks = [path.removeprefix(f"{layout.path}.").split(".")[0] for path in paths]
    known = {path for path, _ in model.named_modules()}
    for path, block in zip(paths, blocks, strict=True):
        if path not in known or not block.isdecimal() or int(block) >= len(layout.blocks):
            raise UnknownSite(
                f"the history's adaptors were learned in '{path}', which this model does not have",
                site=path,
            )
    return min(map(int, blocks))


def patch_for(model: nn.Module, layout: Layout, paths: Sequence[str], keys: Keys | None) -> Patch:
    """Returns the patch of the adapted layers.

    Args:
        model: The model.
        layout: Its layout.
        paths: Dotted paths of the layers.
        keys: Computes pooled queries; None to use the hidden state at the first such block.

    Raises:
        UnknownSite: A layer is not in one of the model's blocks.
    """
    first = first_block(model, layout, paths)
    modules = tuple(model.get_submodule(path) for path in paths)
    return Patch("add", modules, keys, entry=layout.blocks[first])


def _is_selected(
    path: str, asked: Collection[str] | str, layout: Layout, config: ElderConfig
) -> bool:
    """Returns whether a module is selected, by PEFT's rules for ``target_modules``."""
    if not _matches(asked, path):
        return False
    layers = config.layers_to_transform
    if isinstance(asked, str) or path in asked or layers is None or layers == []:
        return True
    patterns = config.layers_pattern or [re.escape(layout.path.rpartition(".")[2])]
    patterns = [patterns] if isinstance(patterns, str) else patterns
    found = (re.search(rf"(?:^|\.){pattern}\.(\d+)\.", path) for pattern in patterns)
    block = next((int(one[1]) for one in found if one is not None), None)
    return block in ([layers] if isinstance(layers, int) else layers)


def _matches(names: Collection[str] | str, path: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, path) is not None
    return path in names or any(path.endswith(f".{name}") for name in names)


def _base(module: Any) -> Any:
    """Returns a module without the adapter layers around it."""
    inner = getattr(module, "get_base_layer", None)
    return module if inner is None else inner()
