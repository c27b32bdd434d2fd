"""Compares the states of two texts: which words of one have their like in the other, what is left.

Each word piece of a text is aligned softly with those of the other, by their states, by their
spelling and by being the same word. What it is and how it differs from what it found then go
through one layer and are pooled. Both directions are added up, so that a pair and its reverse are
judged alike.

Source: the alignment is that of Chen et al., "Enhanced LSTM for natural language inference" (2016,
arXiv 1609.06038), with states of an encoder in place of an LSTM's, as late interaction has them
(Khattab and Zaharia, "ColBERT", 2020, arXiv 2004.12832).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["FLAGS", "PairHead", "Side"]

FLAGS = 3
"""What is known of a word piece: it is of the asking turn, its word has a digit, it is a mark."""

_NEVER = -1e4


class Side(NamedTuple):
    """One text of each of `p` pairs, `n` word pieces long.

    Attributes:
        states: ``(p, n, d)`` float32, as projected.
        own: ``(p, n, hidden)`` float32, what a piece is by itself.
        mask: ``(p, n)`` bool, false where padded.
        flags: ``(p, n, FLAGS)`` float32.
        words: ``(p, n)`` int64, a number for each piece's word; negative for marks and padding.
        pooled: ``(p, w)`` float32 of unit length, the whole text.
    """

    states: torch.Tensor
    own: torch.Tensor
    mask: torch.Tensor
    flags: torch.Tensor
    words: torch.Tensor
    pooled: torch.Tensor


class PairHead(nn.Module):
    """Says how likely two texts ask for the same.

    Args:
        width: Of the encoder's states.
        size: Of the projected ones.
        hidden: Of what is known of an aligned word piece.
    """

    def __init__(self, width: int = 384, size: int = 128, hidden: int = 96) -> None:
        super().__init__()
        self.project = nn.Linear(width, size)
        self.own = nn.Linear(size, hidden)
        self.sharpness = nn.Parameter(torch.tensor([8.0, 4.0, 2.0]))  # states, spelling, same word
        self.aligned = nn.Linear(2 * size + 6 + FLAGS, hidden)
        self.gate = nn.Linear(hidden, 1)
        self.out = nn.Sequential(nn.Linear(6 * hidden + 2, 128), nn.GELU(), nn.Linear(128, 1))

    def forward(self, one: Side, other: Side, spelled: torch.Tensor) -> torch.Tensor:
        """Returns the logits of pairs, ``(p,)``.

        Args:
            one: Texts.
            other: Texts, ``m`` word pieces long, each compared with that in the same place.
            spelled: How alike their words are spelled, ``(p, n, m)``.
        """
        like = F.normalize(one.states, dim=-1) @ F.normalize(other.states, dim=-1).mT  # (p, n, m)
        same = (one.words[:, :, None] == other.words[:, None, :]) & (one.words >= 0)[:, :, None]
        exact = same.float()
        a = self._side(one, other, like, spelled, exact)
        b = self._side(other, one, like.mT, spelled.mT, exact.mT)
        cosine = (one.pooled * other.pooled).sum(-1, keepdim=True)
        pair = torch.cat([a + b, (a - b).abs(), cosine, cosine * cosine], -1)
        logits: torch.Tensor = self.out(pair).squeeze(-1)
        return logits

    def _side(
        self,
        one: Side,
        other: Side,
        like: torch.Tensor,
        spelled: torch.Tensor,
        exact: torch.Tensor,
    ) -> torch.Tensor:
        hidden_pad = ~other.mask[:, None, :]
        states, spelling, word = self.sharpness
        scores = states * like + spelling * spelled + word * exact
        weights = scores.masked_fill(hidden_pad, _NEVER).softmax(-1)
        found = weights @ other.states  # (p, n, d)
        best = [
            F.cosine_similarity(one.states, found, dim=-1),
            like.masked_fill(hidden_pad, -1).amax(-1),
            spelled.masked_fill(hidden_pad, 0).amax(-1),
            (weights * spelled).sum(-1),
            exact.masked_fill(hidden_pad, 0).amax(-1),
            # Whether what it found was asked, or only said before.
            (weights * other.flags[:, None, :, 0]).sum(-1),
        ]
        seen = torch.cat(
            [(one.states - found).abs(), one.states * found, torch.stack(best, -1), one.flags], -1
        )
        known = F.gelu(self.aligned(seen) + one.own)  # (p, n, hidden)
        pad = ~one.mask[..., None]
        mask = one.mask[..., None].float()
        gates = self.gate(known).masked_fill(pad, _NEVER).softmax(1)
        return torch.cat(
            [(known * mask).sum(1) / mask.sum(1), known.masked_fill(pad, _NEVER).amax(1),
             (gates * known).sum(1)], -1,
        )  # fmt: skip
