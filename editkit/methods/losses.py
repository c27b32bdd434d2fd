"""What learning minimizes: how far the target's tokens are from leading by enough."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["losses"]


def losses(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, ahead: float
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
        ahead: Lead to strive for, in logits.
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
