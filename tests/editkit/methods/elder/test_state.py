"""A state as it is applied: scope, experts and weights against the literal Algorithm 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import literal_elder

from editkit.methods.elder import routing
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.state import ElderState

LAYERS, EXPERTS, WIDTH = 3, 4, 8


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def state_of(allocations: Sequence[Any] | np.ndarray, **changes: Any) -> ElderState:
    """A state of random tensors that holds edits with these allocations."""
    codes = routing.packed(np.asarray(allocations, np.int64).reshape(-1, LAYERS, 2), EXPERTS)
    settings: dict[str, Any] = {"top_k": 2, "scaling": 0.5, "threshold": 4, **changes}
    return ElderState(
        lora_A=tuple(noise(EXPERTS, 2, 6, seed=layer) for layer in range(LAYERS)),
        lora_B=tuple(noise(EXPERTS, 5, 2, seed=9 + layer) for layer in range(LAYERS)),
        routers=noise(LAYERS, EXPERTS, WIDTH, seed=99),
        codes=codes,
        edit_ids=tuple(f"edit-{index}" for index in range(len(codes))),
        **settings,
    )


def literal(state: ElderState, active: Sequence[int] | None = None) -> literal_elder.Elder:
    count = LAYERS * EXPERTS
    bits = np.unpackbits(state.codes, axis=1, count=count).tolist()
    return literal_elder.Elder(
        model=None,
        entry=torch.nn.Identity(),
        layers=[torch.nn.Identity()] * LAYERS,
        lora_a=list(state.lora_A),
        lora_b=list(state.lora_B),
        routers=state.routers,
        codes=bits if active is None else [bits[index] for index in active],
        k=state.top_k,
        scaling=state.scaling,
        threshold=state.threshold,
        weighting=state.weighting,
        experts=state.experts,
    )


@pytest.mark.parametrize("experts", ["own", "nearest"])
@pytest.mark.parametrize("weighting", ["scores", "equal"])
@given(count=st.integers(1, 8), threshold=st.integers(1, 12), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_sequences_go_where_algorithm_1_sends_them(
    experts: str, weighting: str, count: int, threshold: int, seed: int
) -> None:
    edits = routing.allocate(count, layers=LAYERS, experts=EXPERTS, k=2, seed=seed)
    state = state_of(edits, threshold=threshold, weighting=weighting, experts=experts)
    queries = noise(4, WIDTH, seed=seed) * 7
    routed = ElderPart(state).select(queries)
    for row, query in enumerate(queries):
        edit, taken, weights = literal(state).decide(query)
        assert routed.fired[row] == edit
        if edit < 0:
            continue
        for layer in range(LAYERS):
            down, up = routed.lora(layer, [row], noise(1))
            inputs = noise(1, 1, 6, seed=seed)
            expected = literal_elder.added(
                state.lora_A[layer], state.lora_B[layer], taken[layer], weights[layer], inputs[0, 0]
            )
            found = inputs @ down.transpose(1, 2) @ up.transpose(1, 2)
            torch.testing.assert_close(found[0, 0], expected, rtol=1e-3, atol=1e-4)


def test_an_edits_own_query_reaches_it_at_any_threshold() -> None:
    queries = noise(5, WIDTH, seed=4)
    _, best, codes = state_of([]).encoded(queries)
    state = state_of(best.numpy(), threshold=1)
    assert np.array_equal(state.codes, codes)
    fired = ElderPart(state).select(queries).fired
    # Two of the queries may have one code; then the newer edit answers for both.
    expected = [max(i for i in range(5) if bytes(codes[i]) == bytes(code)) for code in codes]
    assert fired == expected


def test_the_threshold_itself_is_out_of_scope() -> None:
    query = noise(1, WIDTH)
    _, best, _ = state_of([]).encoded(query)
    moved = best.numpy().copy()
    moved[0, 0] = sorted(set(range(EXPERTS)) - set(moved[0, 0].tolist()))  # 4 bits away
    for threshold, fired in ((4, [-1]), (5, [0])):
        assert ElderPart(state_of(moved, threshold=threshold)).select(query).fired == fired


def test_of_equally_near_edits_the_newest_active_one_counts() -> None:
    same, other = [[0, 1]] * LAYERS, [[2, 3]] * LAYERS
    state = state_of([same, same, other, same])
    asked = state.codes[:1]
    for active, edit, is_near in (
        (None, 3, True),
        ([0, 1, 2], 1, True),
        ([2, 0], 0, True),
        ([2], 2, False),
    ):
        nearest, near, _ = ElderPart(state, active).nearest(asked)
        assert (nearest.tolist(), near.tolist()) == ([edit], [is_near])


@given(active=st.sets(st.integers(0, 7), min_size=1), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_only_active_edits_count(active: set[int], seed: int) -> None:
    edits = routing.allocate(8, layers=LAYERS, experts=EXPERTS, k=2, seed=seed)
    state, mine = state_of(edits, threshold=7), sorted(active)
    queries = noise(6, WIDTH, seed=seed)
    view = ElderPart(state, mine)
    assert len(view) == len(mine)
    expected = [literal(state, mine).decide(query)[0] for query in queries]
    assert view.select(queries).fired == [mine[edit] if edit >= 0 else -1 for edit in expected]


def test_the_nearest_edits_experts_are_taken_also_where_some_edits_are_inactive() -> None:
    first, second = [[0, 1]] * LAYERS, [[2, 3]] * LAYERS
    state = state_of([first, second], threshold=12, experts="nearest")
    _, best, _ = state.encoded(noise(1, WIDTH))
    assert best[0].tolist() not in (first, second)
    for active, allocation in (([0], first), ([1], second)):
        routed = ElderPart(state, active).select(noise(1, WIDTH))
        down, _ = routed.lora(0, [0], noise(1))
        assert torch.equal(down[0], state.lora_A[0][allocation[0]].flatten(0, 1))


@given(
    radius=st.floats(0.5, 6), active=st.sets(st.integers(0, 5), min_size=1), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=40)
def test_with_a_radius_the_nearest_code_defers_and_the_nearest_query_decides(
    radius: float, active: set[int], seed: int
) -> None:
    drawn = routing.allocate(2, layers=LAYERS, experts=EXPERTS, k=2, seed=seed)
    codes = drawn[[0, 1, 0, 1, 0, 0]]  # several edits of one code
    learned, owners = noise(9, WIDTH, seed=seed).numpy(), np.array([0, 1, 2, 3, 4, 5, 0, 2, 4])
    state = state_of(codes, threshold=9, queries=learned, owners=owners, radius=radius)
    queries = torch.from_numpy(learned) + noise(9, WIDTH, seed=seed + 1) / 2
    asked, mine = literal(state), sorted(active)
    fired = ElderPart(state, mine).select(queries).fired
    for row, query in enumerate(queries):
        own = [literal_elder.top(found, 2) for found in literal_elder.scores(state.routers, query)]
        code = literal_elder.code(own, EXPERTS)
        bits = min(literal_elder.hamming(code, asked.codes[edit]) for edit in mine)
        best, found = radius, -1
        for edit in mine:
            apart = min(
                math.dist(one, query.tolist())
                for one, owner in zip(learned.tolist(), owners, strict=True)
                if owner == edit
            )
            if bits < 9 and apart <= best:
                best, found = apart, edit
        assert fired[row] == found


def test_a_radius_without_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="a radius needs the queries"):
        state_of([[[0, 1]] * LAYERS], radius=1.0)


def test_without_active_edits_a_view_is_empty() -> None:
    assert len(ElderPart(state_of([]))) == 0
    assert len(ElderPart(state_of([[[0, 1]] * LAYERS]), [])) == 0
    assert len(ElderPart(state_of([]), is_training=True)) > 0


def test_in_training_every_input_takes_its_own_experts_with_gradients() -> None:
    state = state_of([[[0, 1]] * LAYERS], threshold=1, experts="nearest")
    state = dataclasses.replace(state, routers=state.routers.clone().requires_grad_())
    queries = noise(3, WIDTH, seed=5)
    _, best, _ = state.encoded(queries)
    routed = ElderPart(state, is_training=True).select(queries)
    assert min(routed.fired) >= 0
    for row in range(3):
        down, up = routed.lora(1, [row], noise(1))
        assert torch.equal(down[0], state.lora_A[1][best[row, 1]].flatten(0, 1))
        (pull,) = torch.autograd.grad(up.sum(), state.routers, retain_graph=True)
        assert pull[1].any()
        assert not pull[[0, 2]].any()


def test_a_state_without_gradients_is_the_same_otherwise() -> None:
    state = state_of([[[0, 1]] * LAYERS])
    learned = dataclasses.replace(
        state,
        lora_A=tuple(torch.nn.Parameter(one) for one in state.lora_A),
        lora_B=tuple(torch.nn.Parameter(one) for one in state.lora_B),
        routers=torch.nn.Parameter(state.routers),
    )
    plain = learned.without_grad()
    tensors = [*plain.lora_A, *plain.lora_B, plain.routers]
    assert not any(tensor.requires_grad for tensor in tensors)
    for mine, theirs in zip(tensors, [*state.lora_A, *state.lora_B, state.routers], strict=True):
        assert torch.equal(mine, theirs)
    assert plain.edit_ids == state.edit_ids
    assert plain.codes is state.codes
    assert learned.routers.requires_grad


def test_a_fired_row_has_its_edits_id() -> None:
    view = ElderPart(state_of([[[0, 1]] * LAYERS, [[2, 3]] * LAYERS]), [1])
    assert view.edit_id(1) == "edit-1"
