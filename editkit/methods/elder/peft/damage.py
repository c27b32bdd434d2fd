"""Validation of a saved adapter before any of it is loaded.

Torch would copy the tensors that fit before it raises for those that do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from editkit.methods.elder import routing
from editkit.methods.elder.peft.config import PeftElderConfig

__all__ = ["check"]


def check(
    found: Mapping[str, torch.Tensor], model: nn.Module, adapter: str, config: PeftElderConfig
) -> None:
    """Raises if saved tensors are not a complete, valid adapter.

    Args:
        found: The tensors, by their names in the model.
        model: The model with the adapter to load them into.
        adapter: Name of the adapter.
        config: Its config.

    Raises:
        ValueError: A tensor is missing, has another shape, or holds invalid codes.
    """
    mine = {
        name: tensor for name, tensor in model.state_dict().items()
        if "elder_" in name and name.endswith(f".{adapter}")
    }  # fmt: skip
    for name, tensor in mine.items():
        if name not in found:
            raise ValueError(f"the adapter lacks the tensor '{name}'; nothing was loaded")
        if "elder_queries" in name or "elder_owners" in name:
            continue  # their length is the number of wordings; see below
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"the adapter's tensor '{name}' is {tuple(found[name].shape)} and should be "
                f"{tuple(tensor.shape)}; nothing was loaded"
            )
    layers = sum("elder_router" in name for name in mine)
    for name in mine:
        if "elder_codes" in name and not _is_sound(found[name], layers, config):
            raise ValueError(f"the adapter's codes, '{name}', are damaged; nothing was loaded")

    queries = next(found[name] for name in mine if "elder_queries" in name)
    owners = next(found[name] for name in mine if "elder_owners" in name)
    width = next(mine[name].shape[1] for name in mine if "elder_queries" in name)
    known = set(owners.tolist()) if owners.dtype == torch.int64 else {-1}
    edits = set(range(len(config.edits)))
    # With a radius, an edit without a query could never fire.
    wanted = edits if config.radius is not None else known
    if queries.shape != (len(owners), width) or not wanted <= known <= set(
        range(len(config.edits))
    ):
        raise ValueError("the adapter's queries do not belong to its edits; nothing was loaded")


def _is_sound(codes: torch.Tensor, layers: int, config: PeftElderConfig) -> bool:
    """Whether codes ``(n, bytes)`` set exactly ``top_k`` experts per layer and no other bits."""
    if codes.dtype != torch.uint8:
        return False
    found = codes.cpu().numpy()
    try:
        allocations = routing.allocations_of(found, layers, config.num_experts)
    except ValueError:
        return False
    repacked = routing.packed(allocations, config.num_experts)
    is_same = np.array_equal(repacked, found)
    return not len(found) or (allocations.shape[2] == config.top_k and is_same)
