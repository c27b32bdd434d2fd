"""A shortlist of the tokens that compete with a target: only their logits are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from editkit.engines.transformers import training

__all__ = ["LARGE", "Shortlist", "output_layer"]

LARGE = 4096
"""Vocabulary size above which a shortlist saves time."""


class Shortlist:
    """The tokens whose logits are computed while a value is learned.

    The output layer of a small model with a large vocabulary costs more than all blocks above the
    site. The logits of the unedited model show which tokens compete for a position; before a value
    is accepted, the whole vocabulary is checked.

    Args:
        head: The output layer.
        size: Number of tokens kept for each target position.
    """

    def __init__(self, head: nn.Linear, size: int) -> None:
        self._head = head
        self._size = size
        self.tokens = torch.zeros(0, dtype=torch.long, device=head.weight.device)

    def fill(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        """Adds the top tokens of ``(rows, t, vocabulary)`` logits, and the targets."""
        leading = logits.topk(min(self._size, logits.shape[2])).indices.flatten()
        self.take(torch.cat([leading, target.flatten().to(leading)]))

    def narrowed(self) -> AbstractContextManager[list[tuple[torch.Tensor, torch.Tensor]]]:
        """Makes the model compute the logits of these tokens only; see ``training.narrow_head``."""
        return training.narrow_head(self._head, self._weight, self._bias)

    def leads(
        self, hidden: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Checks rows against the whole vocabulary.

        Args:
            hidden: ``(n, t, h)``, input of the head.
            target: ``(n, t)``.
            valid: ``(n, t)`` bool.

        Returns:
            ``(n,)``: the smallest lead of a target token over the whole vocabulary; and, bool,
            whether every target's strongest rival was on the list. Missing rivals are added.
        """
        logits = self._head(hidden).float()
        target, valid = target.to(logits.device), valid.to(logits.device)
        wanted = logits.gather(2, target[..., None])[..., 0]
        strongest, rivals = logits.scatter_(2, target[..., None], -torch.inf).max(dim=2)
        missing = ~torch.isin(rivals, self.tokens) & valid
        if bool(missing.any()):
            self.take(rivals[missing])
        leads = (wanted - strongest).masked_fill(~valid, torch.inf).amin(dim=1)
        return leads, ~missing.any(dim=1)

    def take(self, tokens: torch.Tensor) -> None:
        """Adds tokens ``(n,)``."""
        self.tokens = torch.unique(torch.cat([self.tokens, tokens.to(self.tokens)]))  # sorted
        self._weight = self._head.weight.detach()[self.tokens]
        bias = self._head.bias
        self._bias = None if bias is None else bias.detach()[self.tokens]

    def index(self, target: torch.Tensor) -> torch.Tensor:
        """Returns the index of each target token in the shortlist."""
        return torch.searchsorted(self.tokens, target.to(self.tokens).contiguous())


def output_layer(model: Any) -> nn.Linear | None:
    """Returns the output layer of a language model, if it is a plain linear map."""
    try:
        head = model.get_output_embeddings()
    except NotImplementedError:
        return None
    # Rows of a quantised or offloaded head cannot be selected.
    plain = type(head) is nn.Linear and type(head.weight) is nn.Parameter
    return head if plain and not head.weight.is_meta else None
