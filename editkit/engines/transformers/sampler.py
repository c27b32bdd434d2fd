"""Per-row sampling: each row has its own temperature, nucleus and seed, independent of its batch.

``generate`` has one setting per batch, and draws from torch's global generator, which other threads
use too. Here each row has its own generator, so a seed gives the same answer alone and in a batch.
Uses the Gumbel-max trick: adding Gumbel noise to log-probabilities and taking the largest samples
from the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from editkit.engines.base import Sampling

__all__ = ["Sampler"]


class Sampler(LogitsProcessor):
    """Turns greedy decoding into sampling, for selected rows.

    Args:
        rows: Sampling parameters of each row; ``None`` for greedy.
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
        """Returns ``(rows, vocabulary)`` scores whose maximum is the sampled token."""
        found = scores.clone()
        for index, row in enumerate(self._rows):
            if row is not None:
                found[index] = _add_noise(scores[index], row, self._generators[index])
        return found


_COLD = 1e-4
"""Temperature below which only the most likely token is left, and logits may overflow."""


def _add_noise(scores: torch.Tensor, row: Sampling, generator: torch.Generator) -> torch.Tensor:
    if row.temperature < _COLD:
        return scores
    logits = scores.float() / row.temperature
    if row.top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(dim=0).cumsum(dim=0) - ordered.softmax(dim=0)
        logits = logits.index_fill(0, order[before >= row.top_p], -torch.inf)
    # Drawn on the CPU in float64: the same on every device, and never 0 or 1.
    uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    noise = -(-uniform.clamp(1e-300, 1 - 1e-16).log()).log()
    return (logits.double() + noise.to(logits.device)).to(scores.dtype)
