"""Four bits an entry: FAISS's tables are within the bound, and its codes as it lays them out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editkit.scope.index import distances, library
from editkit.scope.index.four_bits import FourBits, largest
from editkit.scope.index.sketch import Sketch


def opened(keys: np.ndarray, dims: int, *, threads: int = 1, shared: int = 1) -> FourBits:
    faiss = library.load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        return FourBits(faiss, Sketch.fit(keys, dims=dims), keys, shared=shared)
    finally:
        faiss.omp_set_num_threads(before)


def normal(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def codes(index: Any, at: int = 0) -> list[list[int]]:
    """Of one list the blocks of codes."""
    faiss = library.load_faiss()
    lists = faiss.downcast_InvertedLists(index.invlists)
    blocks = math.ceil(lists.list_size(at) / 32)
    found = faiss.rev_swig_ptr(lists.get_codes(at), blocks * lists.block_size)
    return found.reshape(blocks, -1).tolist()


@pytest.mark.parametrize("dims", [1, 2, 15, 16])
@pytest.mark.parametrize("parts", [[1], [31], [32], [33], [70, 1, 1, 24, 40, 64]])
def test_codes_lie_where_faiss_itself_puts_them(dims: int, parts: list[int]) -> None:
    keys = normal(sum(parts), 17, seed=1)
    index = opened(normal(50, 17), dims)
    start = 0
    for count in parts:
        index.add(keys[start : start + count])
        start += count
    assert index.ntotal == sum(parts)
    theirs = index._new_index()
    theirs.add(index.asked(keys, 1.0)[0])
    assert codes(index._index) == codes(theirs)


def test_keys_are_dealt_out_so_that_threads_share_them() -> None:
    keys = normal(500, 17)
    one, three = opened(keys, 16), opened(keys, 16, threads=3)
    for start in (0, 3, 64, 65, 200, 300):
        end = {0: 3, 3: 64, 64: 65, 65: 200, 200: 300, 300: 500}[start]
        one.add(keys[start:end])
        three.add(keys[start:end])
    blocks = codes(one._index)
    assert [codes(three._index, at) for at in range(3)] == [blocks[at::3] for at in range(3)]
    assert three.nbytes == one.nbytes
    for shared, count, probed in ((1, 1, 1), (1, 5, 3), (1000, 1, 3), (1000, 5, 3)):
        three._shared = shared  # each list by a query of its own, or all by one
        for asked in (keys[:count],):
            sketches, bounds = three.asked(asked, 0.9)
            limit = max(bound.limit for bound in bounds)
            ends, squares, rows = three.range_search(sketches, limit)
            assert three._index.nprobe == probed
            wanted_ends, wanted_squares, wanted_rows = one.range_search(sketches, limit)
            assert ends.tolist() == wanted_ends.tolist()
            for at in range(len(asked)):
                part = slice(ends[at], ends[at + 1])
                order, wanted = rows[part].argsort(), wanted_rows[part].argsort()
                assert rows[part][order].tolist() == wanted_rows[part][wanted].tolist()
                apart = squares[part][order] - wanted_squares[part][wanted]
                assert np.abs(apart).max() < 1e-3


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 100),
    width=st.sampled_from([2, 17, 120, 700]),
    share=st.floats(0.1, 1),
    away=st.sampled_from([0, 1, 30]),
    reach=st.floats(0, 1.2),
    tails=st.booleans(),
    scale=st.sampled_from([1, 1e-30, 1e17, 1e19, 1e30]),
    threads=st.sampled_from([1, 2, 8]),
    shared=st.sampled_from([1, 1000]),
)
def test_every_row_within_reach_is_found_below_its_limit_and_no_bound_is_too_high(
    seed: int,
    count: int,
    width: int,
    share: float,
    away: float,
    reach: float,
    tails: bool,
    scale: float,
    threads: int,
    shared: int,
) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((count, width))
    if tails:  # most entries are near nothing, and some beyond what four bits hold
        keys **= 5
    keys = (scale * (keys + away)).astype(np.float32)
    dims = max(1, round(share * (width - 1)))
    index = opened(keys, dims, threads=threads, shared=shared)
    index.add(keys[: count // 2])
    index.add(keys[count // 2 :])
    queries = np.concatenate([keys[:2], (keys[:1] + keys[1:2]) / 2, -keys[:1], 100 * keys[:1]])
    within = reach * float(np.median(distances(keys, keys[0])))
    sketches, bounds = index.asked(queries, within)
    for query, sketch, bound in zip(queries, sketches, bounds, strict=True):
        far = distances(keys, query)
        if bound.limit < 0:
            assert not (far <= within).any()
        elif bound.limit < math.inf:
            _, squares, rows = index.range_search(sketch[None], bound.limit)
            assert set(np.flatnonzero(far <= within).tolist()) <= set(rows.tolist())
            near = far[rows] <= within
            assert (bound.lower(squares)[near] <= far[rows][near]).all()


@pytest.mark.parametrize("dims", [3, 64, 640])
def test_the_error_of_the_tables_is_what_the_bound_says(dims: int) -> None:
    keys = normal(3000, dims + 1)
    index = opened(keys, dims)
    index.add(keys)
    # At the corners spans are as large as they get: those of all entries, and of one.
    corners = np.where(normal(4, dims) > 0, np.float32(8), np.float32(-8))
    one = np.zeros((1, dims), np.float32)
    one[0, -1] = 8
    far = np.concatenate([corners, one, 0 * one])  # and as small, in the middle
    far = np.concatenate([far, np.zeros((6, 2), np.float32)], axis=1)
    sketches = np.concatenate([index.asked(keys[:20], 1.0)[0], far])
    exact = (keys - index._center) @ index._map
    values = np.clip(np.floor(exact), -8, 7) + 0.5
    values[:, dims:] = 0
    found = 0
    for sketch in sketches:
        noise = index._bound(0.0, float(sketch @ sketch), 1.0).noise
        # What a table's number may stand for, and what all of them together may come to.
        tables = np.square(sketch[:dims, None] - (np.arange(16) - 7.5))
        spans = np.ptp(tables, axis=1)
        unit = max(spans.max() / 255, spans.sum() / 65535)
        assert noise >= (dims / 2 + 2) * unit
        assert noise > tables.min(axis=1).sum()
        assert largest(dims) / unit <= 65535
        _, squares, rows = index.range_search(sketch[None], largest(dims))
        found += len(rows)
        true = np.square(values[rows].astype(np.float64) - sketch).sum(axis=1)
        assert np.abs(true - squares).max(initial=0) < noise
    assert found >= 20 * len(keys)  # of queries like the keys every one


def test_a_reach_beyond_what_the_tables_can_tell_leaves_every_row_to_be_looked_at() -> None:
    keys = normal(50, 9)
    index = opened(keys, 8)
    index.add(keys)
    (near,) = index.asked(keys[:1], 0.5)[1]
    (far,) = index.asked(keys[:1], 1e4)[1]
    assert 0 < near.limit < math.inf
    assert far.limit == math.inf


def test_limits_up_to_the_largest_find_every_row_within_and_above_it_none_is_given() -> None:
    keys = normal(300, 41)
    index = opened(keys, 40)
    index.add(keys)
    far = distances(keys, keys[0])
    given = []
    for reach in np.linspace(0.1, 60, 200).tolist():
        sketches, (bound,) = index.asked(keys[:1], reach)
        if bound.limit == math.inf:
            continue
        given.append(bound.limit)
        _, _, rows = index.range_search(sketches, bound.limit)
        assert set(np.flatnonzero(far <= reach).tolist()) <= set(rows.tolist())
    assert 0.9 * largest(40) < max(given) < largest(40)


def test_what_projecting_in_float32_adds_is_within_the_drift() -> None:
    keys = (50 + normal(200, 600)).astype(np.float32)
    index = opened(keys, 300)
    index.add(keys)
    moved = keys.astype(np.float64) - index._center
    error = (
        moved @ index._map.astype(np.float64)[:, :300]
        - (keys - index._center) @ index._map[:, :300]
    )
    worst = 2 * float(np.linalg.norm(error, axis=1).max())
    (bound,) = index.asked(keys[:1], 1.0)[1]
    assert 0 < worst < bound.drift - index._rounding


@pytest.mark.parametrize("size", [1e16, 9e17, 1e19, 3e38])
def test_keys_far_from_the_origin_are_found(size: float) -> None:
    noise = normal(400, 1024)
    keys = (size * (0.8 + 0.1 * np.tanh(noise))).astype(np.float32)
    index = opened(keys, 300)
    index.add(keys)
    query = np.ones((1, 1024), np.float32)
    (bound,) = index.asked(query, 1e30 if size < 1e20 else 1e38)[1]
    assert bound.limit == math.inf  # all are within the reach, or too far to say
    (bound,) = index.asked(keys[:1], float(np.float32(size)) / 1e3)[1]
    assert bound.limit > 0


def test_no_keys_change_nothing() -> None:
    keys = normal(64, 9)
    index = opened(keys, 8)
    index.add(keys[:0])
    index.add(keys)
    index.add(keys[:0])
    assert index.ntotal == 64


def test_keys_that_do_not_differ_are_all_found() -> None:
    keys = np.repeat(normal(1, 9), 40, axis=0)
    index = opened(keys, 4)
    index.add(keys)
    sketches, (bound,) = index.asked(keys[:1], 0.0)
    _, _, rows = index.range_search(sketches, bound.limit)
    assert sorted(rows.tolist()) == [*range(40)]
