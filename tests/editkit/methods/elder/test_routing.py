"""Routing: scores, codes and distances against the literal loops, and the drawing of codes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import literal_elder

from editkit.methods.elder import routing

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(0, 12), st.integers(0, 2**32))


def drawn(sizes: tuple[int, int, int, int]) -> tuple[np.ndarray, int]:
    """Some random allocations ``(n, L, k)``, and N."""
    layers, experts, count, seed = sizes
    noise = np.random.default_rng(seed)
    k = int(noise.integers(1, experts + 1))
    best = noise.random((count, layers, experts)).argsort(axis=2)[..., :k]
    return np.sort(best, axis=2).astype(np.int64), experts


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(SIZES)
def test_a_packed_code_is_the_bits_of_the_literal_one(sizes: tuple[int, int, int, int]) -> None:
    allocations, experts = drawn(sizes)
    codes = routing.packed(allocations, experts)
    bits = allocations.shape[1] * experts
    assert codes.dtype == np.uint8
    assert codes.shape == (len(allocations), -(-bits // 8))
    for row, allocation in zip(codes, allocations.tolist(), strict=True):
        assert np.unpackbits(row)[:bits].tolist() == literal_elder.code(allocation, experts)
        assert not np.unpackbits(row)[bits:].any()


@given(SIZES)
def test_unpacking_undoes_packing(sizes: tuple[int, int, int, int]) -> None:
    allocations, experts = drawn(sizes)
    again = routing.allocations_of(
        routing.packed(allocations, experts), allocations.shape[1], experts
    )
    assert again.dtype == np.int64
    if len(allocations):
        assert np.array_equal(again, allocations)
    else:
        assert again.shape == (0, allocations.shape[1], 0)


def test_a_code_with_uneven_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of experts"):
        routing.allocations_of(np.array([[0b1100_1000]], np.uint8), 2, 4)


@given(SIZES, st.integers(0, 2**32))
def test_distances_are_the_literal_counts_of_differing_bits(
    sizes: tuple[int, int, int, int], seed: int
) -> None:
    stored, experts = drawn(sizes)
    others = np.random.default_rng(seed).random((3, stored.shape[1], experts)).argsort(axis=2)
    asked = np.sort(others[..., : stored.shape[2]], axis=2)
    found = routing.distances(routing.packed(asked, experts), routing.packed(stored, experts))
    assert found.tolist() == [
        [
            literal_elder.hamming(literal_elder.code(a, experts), literal_elder.code(s, experts))
            for s in stored.tolist()
        ]
        for a in asked.tolist()
    ]


def test_scores_are_the_literal_softmax_of_queries_at_unit_root_mean_square() -> None:
    routers, queries = noise(3, 4, 16), noise(5, 16, seed=1) * 40
    found = routing.scores(routers, routing.unit_rms(queries))
    expected = torch.tensor([literal_elder.scores(routers, query) for query in queries])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=2), torch.ones(5, 3))


@given(st.floats(1e-3, 1e4))
@settings(deadline=None)
def test_the_size_of_a_query_does_not_matter(size: float) -> None:
    query = noise(1, 8)
    torch.testing.assert_close(routing.unit_rms(query * size), routing.unit_rms(query))


def test_a_query_of_zeros_and_one_in_half_precision_have_scores() -> None:
    assert torch.equal(routing.unit_rms(torch.zeros(1, 8)), torch.zeros(1, 8))
    assert routing.unit_rms(noise(1, 8).half()).dtype == torch.float32


# Few values, so that there are ties; 0 to 3 are exact in float32.
LAYER = st.lists(st.integers(0, 3), min_size=1, max_size=8)


@given(LAYER, st.data())
@settings(deadline=None)
def test_the_best_experts_are_the_literal_ones_with_ties_to_the_lower_index(
    layer: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(layer)))
    found = routing.chosen(torch.tensor([[layer]], dtype=torch.float32), k)
    assert found.tolist() == [[literal_elder.top(layer, k)]]


def test_of_equal_scores_the_lower_experts_are_chosen_in_ascending_order() -> None:
    found = torch.tensor([[[0.25] * 4, [0.1, 0.4, 0.1, 0.4], [0.2, 0.2, 0.2, 0.4]]])
    assert routing.chosen(found, 2).tolist() == [[[0, 1], [1, 3], [0, 3]]]


@given(SIZES)
@settings(deadline=None, max_examples=40)
def test_the_guided_loss_is_the_literal_sum_of_logarithms(
    sizes: tuple[int, int, int, int],
) -> None:
    allocations, experts = drawn(sizes)
    count, layers, _ = allocations.shape
    found = noise(count, layers, experts, seed=sizes[3] % 2**31).softmax(dim=2)
    loss = routing.guided_loss(found, torch.from_numpy(allocations))
    expected = [
        literal_elder.guided_loss(f, a)
        for f, a in zip(found.tolist(), allocations.tolist(), strict=True)
    ]
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_the_gradient_of_the_guided_loss_is_the_literal_one() -> None:
    routers, queries = noise(2, 4, 6).requires_grad_(), noise(3, 6, seed=1)
    allocations = torch.tensor([[[0, 1], [1, 3]], [[2, 3], [0, 1]], [[0, 2], [0, 3]]])
    asked = routing.unit_rms(queries)
    routing.guided_loss(routing.scores(routers, asked), allocations).sum().backward()
    # d(-sum log s_j) / dW_i = (k s_i - [i in A]) q
    expected = torch.zeros(2, 4, 6)
    for query, allocation, q in zip(queries, allocations.tolist(), asked, strict=True):
        found = literal_elder.scores(routers.detach(), query)
        for layer in range(2):
            for expert in range(4):
                pull = 2 * found[layer][expert] - float(expert in allocation[layer])
                expected[layer, expert] += pull * q
    assert routers.grad is not None
    torch.testing.assert_close(routers.grad, expected, rtol=1e-4, atol=1e-5)


def test_the_guided_loss_of_a_score_that_vanished_is_finite() -> None:
    found = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    loss = routing.guided_loss(found, torch.tensor([[[1]]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert found.grad is not None
    assert torch.isfinite(found.grad).all()


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=10)
def test_allocations_are_distinct_sound_and_the_same_for_a_seed(seed: int) -> None:
    found = routing.allocate(30, layers=4, experts=4, k=2, seed=seed)
    assert found.shape == (30, 4, 2)
    assert (found[..., 0] < found[..., 1]).all()
    assert found.min() >= 0
    assert found.max() < 4
    assert len({row.tobytes() for row in routing.packed(found, 4)}) == 30
    assert np.array_equal(found, routing.allocate(30, layers=4, experts=4, k=2, seed=seed))
    assert not np.array_equal(found, routing.allocate(30, layers=4, experts=4, k=2, seed=seed + 1))


def test_allocations_lie_further_apart_than_chance_puts_them() -> None:
    found = routing.packed(routing.allocate(20, layers=6, experts=4, k=2), 4)
    apart = routing.distances(found, found)
    # Of 20 codes at a mean distance of 12 chance leaves some pair at 4 or less nearly always.
    assert apart[~np.eye(20, dtype=bool)].min() >= 8


def test_new_allocations_keep_clear_of_those_taken() -> None:
    first = routing.packed(routing.allocate(10, layers=6, experts=4, k=2, seed=1), 4)
    taken = [row.tobytes() for row in first]
    again = routing.packed(routing.allocate(10, layers=6, experts=4, k=2, seed=1, taken=taken), 4)
    assert routing.distances(again, first).min() >= 8


def test_a_set_of_allocations_can_be_used_up_and_no_further() -> None:
    found = routing.allocate(6, layers=1, experts=4, k=2)
    assert sorted(map(tuple, found[:, 0].tolist())) == list(combinations(range(4), 2))
    with pytest.raises(ValueError, match="allocations is free: 6 are taken"):
        routing.allocate(7, layers=1, experts=4, k=2)
    taken = [row.tobytes() for row in routing.packed(found, 4)]
    with pytest.raises(ValueError, match="allocations is free"):
        routing.allocate(1, layers=1, experts=4, k=2, taken=taken)


@pytest.mark.parametrize("k", [0, 5])
def test_more_experts_in_use_than_there_are_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and the number of experts, 4, not {k}"):
        routing.allocate(1, layers=2, experts=4, k=k)
