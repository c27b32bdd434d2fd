"""What learning minimizes: how far the target's tokens are from leading by enough."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["losses", "margins"]

_LONG = 8
"""Tokens of a target from which on less than the whole margin is asked of each of them."""

_LEAST = 2.0
"""Margin asked of targets of any length, in logits, unless the settings ask for less."""


def margins(lengths: torch.Tensor, margin: float) -> torch.Tensor:
    """The lead that every token of a target should have, in logits, ``(rows,)`` float32.

    One value has so much room: of a sentence of thirty tokens all lead by two within thirty steps,
    and by eight within a hundred or never, and its rephrasings gain nothing by it
    (benchmarks/results/quality.md). So it falls with the length of the target.

    Args:
        lengths: ``(rows,)`` int64, tokens of the targets.
        margin: What the settings ask for, of targets of up to 8 tokens.
    """
    share = (_LONG / lengths).clamp(max=1.0)
    return (margin * share).clamp(min=min(_LEAST, margin))


def losses(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, ahead: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is minimized, mean surprise, and smallest lead of a target token, each ``(rows,)``.

    With l the logit of a target token less the log of the sum of the others' exponentials, its
    surprise is softplus(-l) nats, which hardly falls any more once the token leads at all.
    softplus(ahead - l) goes on falling until it leads by as much as it should, in a third of the
    steps; with ``ahead`` 0 it is the surprise, the paper's loss.

    Args:
        logits: ``(rows, t, n)``.
        target: ``(rows, t)``.
        valid: ``(rows, t)`` bool.
        ahead: Lead to strive for, in logits, ``(rows, 1)`` or one for all.
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
