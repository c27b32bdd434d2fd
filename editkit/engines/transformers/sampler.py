"""Sampling row by row: each with its own temperature, nucleus and seed, whatever batch it is in.

``generate`` has one setting for a batch, and draws from torch's global generator, which other
threads draw from as well. Here a row's noise comes from a generator of its own, so a seed gives the
same answer alone and among others. By the Gumbel-max trick: adding Gumbel noise to log
probabilities and taking the largest is drawing from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from editkit.engines.base import Sampling

__all__ = ["Sampler"]


class Sampler(LogitsProcessor):
    """Turns greedy decoding into sampling, for the rows that want it.

    Args:
        rows: For each row how it is sampled; ``None`` for greedy.
    """

    def __init__(self, rows: Sequence[Sampling | None]) -> None:
        self._rows = list(rows)
        self._generators: dict[int, torch.Generator] = {}
        for index, row in enumerate(self._rows):
            if row is not None:
                generator = torch.Generator()
                if row.seed is None:
                    generator.seed()
                else:
                    generator.manual_seed(row.seed)
                self._generators[index] = generator

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Returns ``(rows, vocabulary)`` scores whose largest is the token that was drawn."""
        found = scores.clone()
        for index, row in enumerate(self._rows):
            if row is not None:
                found[index] = _noisy(scores[index], row, self._generators[index])
        return found


_COLD = 1e-4
"""Temperature below which nothing but the likeliest token is left, and logits may overflow."""


def _noisy(scores: torch.Tensor, row: Sampling, generator: torch.Generator) -> torch.Tensor:
    if row.temperature < _COLD:
        return scores
    logits = scores.float() / row.temperature
    if row.top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(dim=0).cumsum(dim=0) - ordered.softmax(dim=0)
        logits = logits.index_fill(0, order[before >= row.top_p], -torch.inf)
    # Drawn on the CPU in float64: the same on every device, and never 0 nor 1.
    uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    noise = -(-uniform.clamp(1e-300, 1 - 1e-16).log()).log()
    return (logits.double() + noise.to(logits.device)).to(scores.dtype)
