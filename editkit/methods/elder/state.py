"""ELDER's learned state: routers, experts, and the codes of the edits."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from editkit.methods.elder import routing
from editkit.methods.elder.config import Experts, Span, Weighting

__all__ = ["ElderState"]


@dataclass(frozen=True, eq=False)
class ElderState:
    """Everything that ELDER has learned on one model. Tensors are never changed in place.

    Attributes:
        lora_A: One per layer, ``(N, r, in)``.
        lora_B: One per layer, ``(N, out, r)``.
        routers: ``(L, N, d)`` float32.
        codes: ``(n, ceil(L N / 8))`` uint8, the packed codes of the edits.
        edit_ids: Ids of the edits, ``n`` of them.
        top_k: Experts used in each layer, k.
        scaling: alpha / r.
        threshold: A code nearer than this, in bits, is in scope.
        weighting: See ``Weighting``.
        experts: See ``Experts``.
        span: Tokens that the mixture applies to.
        queries: ``(m, d)`` float32, of the wordings that the edits were learned with, for computing
            new codes when the routers change.
        owners: ``(m,)`` int64, the edit of each query.
        radius: An input is in scope only if its query is within this L2 distance of an edit's
            query; the edit with the nearest one fires. None uses the code alone (the paper).
    """

    lora_A: tuple[torch.Tensor, ...]  # noqa: N815  (the field's names)
    lora_B: tuple[torch.Tensor, ...]  # noqa: N815
    routers: torch.Tensor
    codes: npt.NDArray[np.uint8]
    edit_ids: tuple[str, ...]
    top_k: int
    scaling: float
    threshold: int
    weighting: Weighting = "scores"
    experts: Experts = "own"
    span: Span = "sequence"
    queries: npt.NDArray[np.float32] | None = None
    owners: npt.NDArray[np.int64] | None = None
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.radius is not None and (self.queries is None or self.owners is None):
            raise ValueError("a radius needs the queries of the edits")

    @property
    def layers(self) -> int:
        """Number of adapted layers, L."""
        return int(self.routers.shape[0])

    @property
    def num_experts(self) -> int:
        """Number of experts in each, N."""
        return int(self.routers.shape[1])

    def encoded(
        self, queries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, npt.NDArray[np.uint8]]:
        """Returns scores ``(n, L, N)``, allocations ``(n, L, k)`` and codes ``(n, bytes)``.

        Args:
            queries: ``(n, d)``.
        """
        asked = routing.unit_rms(queries.to(self.routers.device))
        found = routing.scores(self.routers, asked)
        best = routing.chosen(found.detach(), self.top_k)
        return found, best, routing.packed(best.cpu().numpy(), self.num_experts)

    def keeping(self, edit_ids: Collection[str]) -> ElderState:
        """Returns the same experts and routers with only some of the edits."""
        wanted = set(edit_ids)
        if wanted.issuperset(self.edit_ids):
            return self
        assert self.queries is not None
        assert self.owners is not None
        kept = np.array([i for i, one in enumerate(self.edit_ids) if one in wanted], np.int64)
        number = np.full(len(self.edit_ids), -1)
        number[kept] = np.arange(len(kept))
        mine = number[self.owners] >= 0
        return dataclasses.replace(
            self,
            codes=self.codes[kept],
            edit_ids=tuple(self.edit_ids[index] for index in kept),
            queries=self.queries[mine],
            owners=number[self.owners[mine]],
        )

    def without_grad(self) -> ElderState:
        """Returns the same state with detached tensors."""
        return dataclasses.replace(
            self,
            lora_A=tuple(one.detach() for one in self.lora_A),
            lora_B=tuple(one.detach() for one in self.lora_B),
            routers=self.routers.detach(),
        )
