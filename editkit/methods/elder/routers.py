"""Fitting the routers to the queries of all edits.

A router's input does not change while experts are trained: it is taken before the first adapted
layer, from the unedited model. So the queries of all earlier edits can be kept (d floats per
wording), and the guided loss can be minimized over all of them, in a fraction of a second and
without running the model. Earlier edits are not forgotten.

Unrelated text is routed to an allocation that no edit uses: the first k experts of each layer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from editkit.methods.elder import routing

__all__ = ["fit", "nobody"]

_PENALTY = 1e-2
"""Weight of the L2 penalty relative to the mean guided loss: rephrases then follow their edits."""


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
    """Fits routers that send queries to their allocations, ``(L, N, d)`` float32.

    The problem is convex: one logistic regression per layer. It starts at zero, so that the routers
    depend only on the data, not on its order.

    Args:
        queries: ``(n, d)`` float32 at unit RMS, of the edits' wordings.
        allocations: ``(n, L, k)`` int64, their allocations.
        experts: N.
        unrelated: ``(m, d)`` likewise, of unrelated text; its total weight is that of the edits.
        steps: Maximum iterations of L-BFGS.
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
