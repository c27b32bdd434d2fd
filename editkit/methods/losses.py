"""The training loss: how far the target's tokens fall short of a margin."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["losses", "margins"]

_LONG = 8
"""Target length in tokens above which the margin per token decreases."""

_LEAST = 2.0
"""Minimum margin for targets of any length, in logits, unless the settings ask for less."""


def margins(lengths: torch.Tensor, margin: float) -> torch.Tensor:
    """Returns the lead that every target token should reach, in logits, ``(rows,)`` float32.

    The capacity of one value is limited: all thirty tokens of a sentence lead by two within thirty
    steps, but by eight only after a hundred steps or never, and rephrases gain nothing from it
    (benchmarks/results/quality.md). So the margin falls with the length of the target.

    Args:
        lengths: ``(rows,)`` int64, lengths of the targets in tokens.
        margin: The margin in the settings, for targets of up to 8 tokens.
    """
    share = (_LONG / lengths).clamp(max=1.0)
    return (margin * share).clamp(min=min(_LEAST, margin))


def losses(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, ahead: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the loss, mean surprise, and smallest lead of a target token, each ``(rows,)``.

    With l the logit of a target token less the log of the sum of the others' exponentials, its
    surprise is softplus(-l) nats, which hardly decreases once the token leads at all.
    softplus(ahead - l) keeps decreasing until the lead is large enough, in a third of the steps;
    with ``ahead`` 0 it is the surprise, the paper's loss.

    Args:
        logits: ``(rows, t, n)``.
        target: ``(rows, t)``.
        valid: ``(rows, t)`` bool.
        ahead: Lead to aim for, in logits, ``(rows, 1)`` or one for all.
    """
    target, valid = target.to(logits.device), valid.to(logits.device)
    wanted = logits.gather(2, target[..., None])[..., 0]
    others = logits.scatter(2, target[..., None], -torch.inf)
    lead = wanted - others.logsumexp(dim=2)
    count = valid.sum(dim=1)
    loss = (functional.softplus(ahead - lead) * valid).sum(dim=1) / count
    with torch.no_grad():
        surprise = (functional.softplus(-lead) * valid).sum(dim=1) / count
        leads = (wanted - others.amax(dim=2)).masked_fill(~valid, torch.inf)
    return loss, surprise, leads.amin(dim=1)
