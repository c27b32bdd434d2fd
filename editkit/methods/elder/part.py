"""ELDER's edits at one version: a mixture of LoRAs for the inputs in scope.

An input's code is compared with those of the edits (Algorithm 1 of Li et al. 2024): if the nearest
is at a Hamming distance below the threshold, the mixture applies to the sequence; otherwise the
sequence is deferred to the unedited model.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Part, Positions, Queries, Selection
from editkit.engines.reading import Near
from editkit.methods.elder import routing
from editkit.methods.elder.mixture import selected
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.tensors import METHOD

__all__ = ["ElderPart", "ElderSelection"]

_ROUNDING = 1e-5
"""Relative error of squared lengths: more than float32 loses in a product of some 1000 terms."""


class ElderSelection(Selection):
    """The routing of some sequences: to the experts of an edit, or deferred to the unedited model.

    Args:
        state: The learned state.
        fired: Index of each sequence's edit, -1 for a deferred one.
        allocations: ``(n, L, k)`` int64, the experts they use.
        weights: ``(n, L, k)``, their weights times alpha / r.
        apart: L2 distances of the queries to the nearest query of those edits; empty if the state
            has no radius.
    """

    def __init__(
        self,
        state: ElderState,
        fired: Sequence[int],
        allocations: torch.Tensor,
        weights: torch.Tensor,
        apart: Sequence[float] = (),
    ) -> None:
        super().__init__(fired)
        self.apart = apart
        self._state = state
        self._allocations = allocations
        self._weights = weights

    def distance(self, row: int) -> float:
        """Returns the L2 distance from a row's query to the nearest one of the edit that fires."""
        return self.apart[row] if len(self.apart) else float("inf")

    def radius(self, row: int) -> float:
        """Returns the radius of all edits, L2."""
        return float("inf") if self._state.radius is None else self._state.radius

    def positions(self, row: int) -> Positions:
        """Returns where the mixture applies."""
        return "all" if self._state.span == "sequence" else "query"

    def lora(
        self, module: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the experts of some rows as one LoRA each, on the device of ``like``."""
        down, up = self._state.lora_A[module], self._state.lora_B[module]
        at = torch.tensor(list(rows), device=down.device)
        chosen = self._allocations.to(down.device)[at, module]
        weights = self._weights.to(down.device)[at, module]
        found = selected(down, up, chosen, weights)
        return found[0].to(like.device), found[1].to(like.device)


class ElderPart(Part):
    """A state with the edits that are active at one version. Immutable.

    Args:
        state: The learned state.
        active: Indices of the active edits; by default all. An input whose nearest active code is
            not near enough is deferred.
        is_training: Nothing is deferred, and every input uses its own experts.
    """

    method = METHOD

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
        self.is_comparable = (
            state.radius is not None
        )  # codes alone give edits no scope of their own

    @property
    def edit_ids(self) -> tuple[str, ...]:
        """Ids of the active edits."""
        return tuple(self.state.edit_ids[index] for index in self.active)

    def without(self, edit_ids: Collection[str]) -> ElderPart:
        """Returns the same part without some edits."""
        gone = set(edit_ids)
        kept = [index for index in self.active if self.state.edit_ids[index] not in gone]
        return self if len(kept) == len(self.active) else ElderPart(self.state, kept)

    def does_the_same(self, other: Part) -> bool:
        """Returns whether another part has the same edits of the same state."""
        return (
            isinstance(other, ElderPart)
            and other.state is self.state
            and np.array_equal(other.active, self.active)
        )

    def own_query(self, edit_id: str) -> npt.NDArray[np.float32] | None:
        """Returns the first query of an active edit; None without one, or if only codes decide."""
        state = self.state
        if state.radius is None or edit_id not in self.edit_ids:
            return None
        assert state.queries is not None
        assert state.owners is not None
        (mine,) = np.nonzero(state.owners == state.edit_ids.index(edit_id))
        return state.queries[mine[0]] if len(mine) else None

    def __len__(self) -> int:
        return 1 if self._is_training else len(self.active)

    def nearest(
        self, codes: npt.NDArray[np.uint8], queries: npt.NDArray[np.float32] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Returns for each input the nearest active edit, whether it is in scope, and the distance.

        The nearest code decides whether an input is deferred. If the state has a radius, the
        nearest query decides which edit fires: distances between codes say nothing about single
        edits. Ties go to the newest edit.

        Args:
            codes: ``(n, bytes)``.
            queries: ``(n, d)``, for a state with a radius.

        Returns:
            Indices of edits, bools, and distances: L2 if the state has a radius, else bits.
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
        """Returns the active edit with the nearest query, the newest at a tie, and its distance.

        A matrix product finds the candidates, up to rounding; exact distances are then computed for
        them.
        """
        queries, owners, squares = self._active_queries
        rough = squares - 2 * (queries @ query)
        slack = _ROUNDING * (float(squares.max()) + float(query @ query))
        near = np.flatnonzero(rough <= rough.min() + slack)
        apart = np.linalg.norm(queries[near] - query, axis=1).astype(np.float64)
        return int(owners[near][apart == apart.min()].max()), float(apart.min())

    @functools.cached_property
    def _active_queries(
        self,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Queries of the active edits, their owners, and their squared lengths."""
        state = self.state
        assert state.queries is not None
        assert state.owners is not None
        queries, owners = state.queries, state.owners
        if len(self.active) < len(state.edit_ids):
            mine = np.isin(owners, self.active)
            queries, owners = queries[mine], owners[mine]
        return queries, owners, np.einsum("ij,ij->i", queries, queries)

    def bits(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Returns the Hamming distances from codes ``(n, bytes)`` to those of the active edits."""
        return routing.distances(codes, self._codes)

    def between(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Returns the L2 distances from queries ``(n, d)`` to the nearest of each active edit."""
        state = self.state
        assert state.queries is not None
        assert state.owners is not None
        found = np.full((len(queries), len(state.edit_ids)), np.inf)
        for row, query in enumerate(queries):
            apart = np.linalg.norm(state.queries - query, axis=1)
            np.minimum.at(found[row], state.owners, apart)
        return found[:, self.active]

    def select(self, queries: Queries) -> ElderSelection:
        """Routes sequences by their queries ``(n, d)``."""
        state = self.state
        if not isinstance(queries, torch.Tensor):
            queries = torch.from_numpy(queries)
        found, best, codes = state.encoded(queries)
        distances: list[float] = []
        if self._is_training:
            fired = [0] * len(codes)
        else:
            host = None
            if state.radius is not None:
                host = queries.detach().to(device="cpu", dtype=torch.float32).numpy()
            near, is_near, apart = self.nearest(codes, host)
            if host is not None:
                distances = apart.tolist()
            fired = [int(one) if is_in else -1 for one, is_in in zip(near, is_near, strict=True)]
            if state.experts == "nearest":
                theirs = routing.allocations_of(state.codes[near], state.layers, state.num_experts)
                best = torch.from_numpy(theirs).to(best.device)
        return self._selection(fired, found, best, distances)

    def _selection(
        self,
        fired: Sequence[int],
        scores: torch.Tensor,
        best: torch.Tensor,
        apart: Sequence[float] = (),
    ) -> ElderSelection:
        state = self.state
        if state.weighting == "equal":
            weights = torch.full(best.shape, 1 / state.top_k, device=scores.device)
        else:
            weights = scores.gather(2, best)
        return ElderSelection(state, fired, best, weights * state.scaling, apart)

    def edit_id(self, chosen: int) -> str:
        """Returns the id of an edit."""
        return self.state.edit_ids[chosen]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.state.edit_ids[index]: index for index in self.active.tolist()}

    def number(self, edit_id: str) -> int:
        """Returns the index of an active edit, -1 for any other."""
        return self._numbers.get(edit_id, -1)

    def firing(self, numbers: Sequence[int]) -> ElderSelection:
        """Routes sequences as the prompts of given edits are routed."""
        state = self.state
        assert state.queries is not None
        assert state.owners is not None
        # The first query of an edit is that of its prompt.
        first = [int(np.argmax(state.owners == max(number, 0))) for number in numbers]
        found, best, _ = state.encoded(torch.from_numpy(state.queries[first]))
        if state.experts == "nearest":
            codes = state.codes[[max(number, 0) for number in numbers]]
            theirs = routing.allocations_of(codes, state.layers, state.num_experts)
            best = torch.from_numpy(theirs).to(best.device)
        return self._selection(numbers, found, best, [0.0] * len(numbers))

    def near(self, query: Queries, k: int) -> list[Near]:
        """Returns the ``k`` edits nearest to a query ``(d,)``, and the one that fires.

        Distances are L2 between queries, or bits between codes if the state has no radius.
        """
        if not isinstance(query, torch.Tensor):
            query = torch.from_numpy(query)
        state = self.state
        _, _, codes = state.encoded(query[None])
        bits = dict(zip(self.edit_ids, self.bits(codes)[0].tolist(), strict=True))
        apart: dict[str, float] = {one: float(found) for one, found in bits.items()}
        reach: float = state.threshold
        if state.radius is not None:
            between = self.between(query[None].float().numpy())[0].tolist()
            apart, reach = dict(zip(bits, between, strict=True)), state.radius
        (chosen,) = self.select(query[None]).fired
        fired = None if chosen < 0 else self.edit_id(chosen)
        least = min(bits.values(), default=0)
        doubt = None
        if least >= state.threshold:
            doubt = (
                f"is within reach, but the prompt's code is {least} bits from that of any edit, "
                f"not below the threshold of {state.threshold}"
            )
        return [
            Near(
                one,
                distance,
                reach,
                in_scope=bits[one] < state.threshold and distance <= reach,
                bits=bits[one],
                doubt=doubt if distance <= reach else None,
            )
            for place, (one, distance) in enumerate(sorted(apart.items(), key=itemgetter(1)))
            if place < k or one == fired
        ]
