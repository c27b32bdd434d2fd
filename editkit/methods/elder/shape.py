"""Where on a model ELDER applies, given the paths of the layers that it adapts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from editkit.applied import Keys
from editkit.errors import UnknownSite
from editkit.families import Layout
from editkit.hooks import Adapted

__all__ = ["adapted"]


def adapted(
    model: Any, layout: Layout, paths: Sequence[str], keys: Keys | None
) -> tuple[int, Adapted]:
    """Returns the first block with adapted layers, by its index, and the layers for an attachment.

    Args:
        model: The model.
        layout: Its layout.
        paths: Dotted paths of the layers.
        keys: What gives pooled queries; None for the state that enters that block.

    Raises:
        UnknownSite: The model has no such layer in one of its blocks.
    """
    blocks = [path.removeprefix(f"{layout.path}.").split(".")[0] for path in paths]
    known = {path for path, _ in model.named_modules()}
    for path, block in zip(paths, blocks, strict=True):
        if path not in known or not block.isdecimal() or int(block) >= len(layout.blocks):
            raise UnknownSite(
                f"the history's adaptors were learned in '{path}', which this model does not have",
                site=path,
            )
    first = min(map(int, blocks))
    modules = tuple(model.get_submodule(path) for path in paths)
    return first, Adapted(layout.blocks[first], modules, keys)
