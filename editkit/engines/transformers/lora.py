"""A LoRA a row, as it is added to a linear map's output."""

from __future__ import annotations

import torch

__all__ = ["lora_output"]


def lora_output(inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Returns what LoRAs add to a layer's output, ``(n, length, out)`` in their dtype.

    Args:
        inputs: ``(n, length, in)``, entering the layer.
        down: ``(n, r, in)``, one a row.
        up: ``(n, out, r)``, likewise.
    """
    return inputs.to(down.dtype) @ down.transpose(1, 2) @ up.transpose(1, 2)
