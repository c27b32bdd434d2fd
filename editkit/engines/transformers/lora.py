"""Per-row LoRA outputs of a linear map."""

from __future__ import annotations

import torch

__all__ = ["lora_output"]


def lora_output(inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Returns the LoRA terms of a layer's output, ``(n, length, out)`` in the LoRAs' dtype.

    Args:
        inputs: ``(n, length, in)``, input of the layer.
        down: ``(n, r, in)``, one per row.
        up: ``(n, out, r)``, one per row.
    """
    return inputs.to(down.dtype) @ down.transpose(1, 2) @ up.transpose(1, 2)
