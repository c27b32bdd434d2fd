"""Fitting the routers to the queries of all edits.

What a router sees of a prompt does not change while experts are learned: it is taken before the
first adapted layer, from the model as it came. So the queries of every edit of the past can be kept
(d floats a wording), and the guided loss be brought to its minimum over all of them, in a fraction
of a second and without running the model. Nothing that was learned before is forgotten by it.

Unrelated text is sent where no edit is: in each layer to the first k experts, an allocation that is
never given away.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from editkit.methods.elder import routing

__all__ = ["fit", "nobody"]

_PENALTY = 1e-2
"""Of the squared weights, beside the mean guided loss: rephrasings go where their edits do."""


def nobody(layers: int, k: int) -> npt.NDArray[np.int64]:
    """Returns the allocation of unrelated text, ``(1, L, k)``."""
    return np.broadcast_to(np.arange(k), (1, layers, k)).copy()


def fit(
    queries: torch.Tensor,
    allocations: torch.Tensor,
    *,
    experts: int,
    unrelated: torch.Tensor | None = None,
    steps: int,
) -> torch.Tensor:
    """Returns routers that send queries to their allocations, ``(L, N, d)`` float32.

    A convex problem: logistic regression, one a layer. It begins at zero, so that the routers are a
    function of what they are fitted to, and not of the order in which it came.

    Args:
        queries: ``(n, d)`` float32 at unit RMS, of the edits' wordings.
        allocations: ``(n, L, k)`` int64, where they go.
        experts: N.
        unrelated: ``(m, d)`` likewise, of what goes to nobody; it counts as much as the edits.
        steps: Limit, iterations of L-BFGS.
    """
    _, layers, k = allocations.shape
    asked, wanted = queries, allocations
    share = torch.full((len(queries),), 1 / len(queries))
    if unrelated is not None and len(unrelated):
        nowhere = torch.from_numpy(nobody(layers, k)).expand(len(unrelated), -1, -1)
        asked, wanted = torch.cat([queries, unrelated]), torch.cat([allocations, nowhere])
        share = torch.cat([share, torch.full((len(unrelated),), 1 / len(unrelated))])
    weights = torch.zeros(layers, experts, queries.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> float:
        with torch.enable_grad():
            found = routing.scores(weights, asked)
            total = (routing.guided_loss(found, wanted) * share).sum()
            total = total + _PENALTY * weights.square().sum()
        (weights.grad,) = torch.autograd.grad(total, [weights])
        return float(total.detach())

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach()
