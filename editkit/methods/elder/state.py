"""What ELDER has learned: routers, experts, and the codes of the edits; and how it is applied.

An input's code is compared with those of the edits (Algorithm 1 of Li et al. 2024): with the
nearest at a Hamming distance below the threshold the mixture is on for its whole sequence, else the
sequence is deferred to the model as it came.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Span
from editkit.methods.elder import routing
from editkit.methods.elder.mixture import selected

__all__ = ["ElderState", "ElderView", "Experts", "Routed", "Weighting"]

_ROUNDING = 1e-5
"""Of squared lengths: more than float32 loses in a product of some thousand terms."""

Weighting = Literal["scores", "equal"]
"""What the chosen experts are weighted with: their scores (the paper), or 1/k each."""

Experts = Literal["own", "nearest"]
"""Whose experts an input in scope takes: its own best ones (the paper), or those of the nearest
edit, which are the ones that the edit was learned with."""


@dataclass(frozen=True, eq=False)
class ElderState:
    """Everything that ELDER has learned on one model. Tensors are never changed in place.

    Attributes:
        lora_A: One a layer, ``(N, r, in)``.
        lora_B: One a layer, ``(N, out, r)``.
        routers: ``(L, N, d)`` float32.
        codes: ``(n, ceil(L N / 8))`` uint8, the packed codes of the edits.
        edit_ids: Their ids, ``n`` of them.
        top_k: Experts in use in each layer, k.
        scaling: alpha / r.
        threshold: A code nearer than this, in bits, is in scope.
        weighting: See ``Weighting``.
        experts: See ``Experts``.
        span: Tokens that the mixture applies to.
        queries: ``(m, d)`` float32, of the wordings that the edits were learned with: routers that
            go on learning make new codes of them.
        owners: ``(m,)`` int64, the edit of each.
        radius: An input is in scope only if its query is that near to one of an edit's, L2, and is
            for the edit with the nearest; None asks for the code alone (the paper).
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
        """Returns scores ``(n, L, N)``, allocations ``(n, L, k)`` and codes, ``(n, bytes)``.

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
        """Returns the same state as plain tensors."""
        return dataclasses.replace(
            self,
            lora_A=tuple(one.detach() for one in self.lora_A),
            lora_B=tuple(one.detach() for one in self.lora_B),
            routers=self.routers.detach(),
        )


class Routed:
    """Where some sequences go; see ``applied.Routes``.

    Args:
        state: What was learned.
        fired: Index of each sequence's edit, -1 for a deferred one.
        allocations: ``(n, L, k)`` int64, the experts they take.
        weights: ``(n, L, k)``, their weights times alpha / r.
        apart: L2 distances of the queries to the nearest of those edits; none of a state that does
            not look at them.
    """

    def __init__(
        self,
        state: ElderState,
        fired: Sequence[int],
        allocations: torch.Tensor,
        weights: torch.Tensor,
        apart: Sequence[float] = (),
    ) -> None:
        self.fired = fired
        self.apart = apart
        self._state = state
        self._allocations = allocations
        self._weights = weights

    def lora(
        self, layer: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the experts of some of them as one LoRA each, on the device of ``like``."""
        down, up = self._state.lora_A[layer], self._state.lora_B[layer]
        at = torch.tensor(list(rows), device=down.device)
        chosen = self._allocations.to(down.device)[at, layer]
        weights = self._weights.to(down.device)[at, layer]
        found = selected(down, up, chosen, weights)
        return found[0].to(like.device), found[1].to(like.device)


class ElderView:
    """A state as a running model applies it: some of its edits, at one version. Immutable.

    Args:
        state: What was learned.
        active: Indices of the edits that count; by default all. An input whose nearest active code
            is not near enough is deferred.
        is_training: Nothing is deferred, and every input takes its own experts.
    """

    def __init__(
        self,
        state: ElderState,
        active: Sequence[int] | None = None,
        *,
        is_training: bool = False,
    ) -> None:
        self.state = state
        count = len(state.edit_ids)
        self.active = np.arange(count) if active is None else np.array(active, np.int64)
        self._codes = state.codes[self.active]
        self._is_training = is_training

    @property
    def span(self) -> Span:
        """Tokens that the mixture applies to."""
        return self.state.span

    @property
    def edit_ids(self) -> tuple[str, ...]:
        """Ids of the edits that count."""
        return tuple(self.state.edit_ids[index] for index in self.active)

    def without(self, edit_ids: Collection[str]) -> ElderView:
        """Returns the same view without some edits."""
        gone = set(edit_ids)
        kept = [index for index in self.active if self.state.edit_ids[index] not in gone]
        return self if len(kept) == len(self.active) else ElderView(self.state, kept)

    def __len__(self) -> int:
        return 1 if self._is_training else len(self.active)

    def nearest(
        self, codes: npt.NDArray[np.uint8], queries: npt.NDArray[np.float32] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Returns for each input the nearest active edit, if it is in scope, and how far it is.

        Whether it is deferred the nearest code decides. Which edit it is for the nearest query
        does, where a state looks at them: what two codes differ in says nothing about the edits.
        Of equally near ones the newest counts.

        Args:
            codes: ``(n, bytes)``.
            queries: ``(n, d)``, for a state that looks at them too.

        Returns:
            Indices of edits, bools, and distances: L2 where a state looks at queries, else bits.
        """
        bits = self.bits(codes)
        is_near = bits.min(axis=1) < self.state.threshold
        if self.state.radius is None:
            best = len(self.active) - 1 - bits[:, ::-1].argmin(axis=1)
            return self.active[best], is_near, bits.min(axis=1).astype(np.float64)
        assert queries is not None
        found = [self._nearest_query(query) for query in queries]
        apart = np.array([distance for _, distance in found])
        is_near &= apart <= self.state.radius
        return np.array([edit for edit, _ in found], np.int64), is_near, apart

    def _nearest_query(self, query: npt.NDArray[np.float32]) -> tuple[int, float]:
        """The active edit with the nearest query, the newest of several, and its distance.

        A product of matrices finds those that could be it, up to rounding; of these the differences
        are taken.
        """
        queries, owners, squares = self._sought
        rough = squares - 2 * (queries @ query)
        slack = _ROUNDING * (float(squares.max()) + float(query @ query))
        near = np.flatnonzero(rough <= rough.min() + slack)
        apart = np.linalg.norm(queries[near] - query, axis=1).astype(np.float64)
        return int(owners[near][apart == apart.min()].max()), float(apart.min())

    @functools.cached_property
    def _sought(
        self,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Queries of the active edits, whose they are, and their squared lengths."""
        state = self.state
        assert state.queries is not None
        assert state.owners is not None
        queries, owners = state.queries, state.owners
        if len(self.active) < len(state.edit_ids):
            mine = np.isin(owners, self.active)
            queries, owners = queries[mine], owners[mine]
        return queries, owners, np.einsum("ij,ij->i", queries, queries)

    def bits(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Hamming distances from codes ``(n, bytes)`` to those of the active edits."""
        return routing.distances(codes, self._codes)

    def between(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """L2 distances from queries ``(n, d)`` to the nearest query of each active edit."""
        state = self.state
        assert state.queries is not None
        assert state.owners is not None
        found = np.full((len(queries), len(state.edit_ids)), np.inf)
        for row, query in enumerate(queries):
            apart = np.linalg.norm(state.queries - query, axis=1)
            np.minimum.at(found[row], state.owners, apart)
        return found[:, self.active]

    def route(self, queries: torch.Tensor) -> Routed:
        """Returns where sequences with these queries ``(n, d)`` go."""
        state = self.state
        found, best, codes = state.encoded(queries)
        told: list[float] = []
        if self._is_training:
            fired = [0] * len(codes)
        else:
            asked = None
            if state.radius is not None:
                asked = queries.detach().to(device="cpu", dtype=torch.float32).numpy()
            near, is_near, apart = self.nearest(codes, asked)
            if asked is not None:
                told = apart.tolist()
            fired = [int(one) if is_in else -1 for one, is_in in zip(near, is_near, strict=True)]
            if state.experts == "nearest":
                theirs = routing.allocations_of(state.codes[near], state.layers, state.num_experts)
                best = torch.from_numpy(theirs).to(best.device)
        if state.weighting == "equal":
            weights = torch.full(best.shape, 1 / state.top_k, device=found.device)
        else:
            weights = found.gather(2, best)
        return Routed(state, fired, best, weights * state.scaling, told)

    def edit_id(self, chosen: int) -> str:
        """Returns the id of an edit."""
        return self.state.edit_ids[chosen]
