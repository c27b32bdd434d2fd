"""The mixture of LoRAs in one linear layer: only the k chosen of N experts are computed.

    y = W_0 v + b + sum_{i in top-k} s_i (alpha / r) B_i A_i v

where s_i are the router's scores, not renormalized after the selection (the paper), or 1/k each.
All tokens of a sequence use the same experts, so the k experts of a row are concatenated once into
one LoRA of rank k r, and a token costs two small matrix products.
"""

from __future__ import annotations

import torch

__all__ = ["selected"]


def selected(
    lora_A: torch.Tensor,  # noqa: N803  (the field's names)
    lora_B: torch.Tensor,  # noqa: N803
    allocations: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the chosen experts of each row as one LoRA, ``(n, k r, in)`` and ``(n, out, k r)``.

    Args:
        lora_A: ``(N, r, in)``.
        lora_B: ``(N, out, r)``.
        allocations: ``(n, k)`` int64, the experts.
        weights: ``(n, k)``, their scores times alpha / r.
    """
    rows, k = allocations.shape
    _, rank, inputs = lora_A.shape
    down = lora_A[allocations].reshape(rows, k * rank, inputs)
    up = lora_B[allocations] * weights[..., None, None].to(lora_B.dtype)
    return down, up.transpose(1, 2).reshape(rows, lora_B.shape[1], k * rank)
