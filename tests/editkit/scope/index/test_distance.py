from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editkit.scope.index import distances

WIDTHS = [0, 1, 2, 3, 31, 32, 33, 64, 65, 576, 4096]


def random_keys(count: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (10.0 ** rng.uniform(-3, 3, (count, 1)) * rng.standard_normal((count, width))).astype(
        np.float32
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_distance_does_not_depend_on_the_other_rows_of_the_call(width: int) -> None:
    keys, query = random_keys(300, width), random_keys(1, width, seed=1)[0]
    together = distances(keys, query)
    alone = [distances(keys[row : row + 1], query)[0] for row in range(300)]
    assert together.tolist() == alone
    assert distances(keys[::-7], query).tolist() == together[::-7].tolist()
    assert distances(np.asfortranarray(keys), query).tolist() == together.tolist()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_distance_is_the_same_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    keys, query = random_keys(50, width), random_keys(1, width, seed=1)[0]
    whole = distances(keys, query)
    for block in (1, 1000, 10_000):
        monkeypatch.setattr("editkit.scope.index.distance._BLOCK", block)
        assert distances(keys, query).tolist() == whole.tolist()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.sampled_from([1, 2, 7, 33, 70]))
def test_a_distance_is_the_exact_one_rounded(seed: int, width: int) -> None:
    keys, query = random_keys(3, width, seed), random_keys(1, width, seed + 1)[0]
    deltas = (keys - query).astype(np.longdouble)
    exact = np.sqrt(np.square(deltas).sum(axis=1))
    assert np.abs(distances(keys, query) - exact).max() <= np.spacing(exact.max(), dtype=np.float32)


def test_equal_vectors_are_at_distance_zero_however_long() -> None:
    keys = random_keys(20, 64) * np.float32(1e30)
    assert all(distances(keys, key)[row] == 0 for row, key in enumerate(keys))


def test_the_distance_is_symmetric() -> None:
    one, other = random_keys(2, 100)
    assert distances(one[None], other) == distances(other[None], one)


def test_no_keys_have_no_distances() -> None:
    assert distances(np.empty((0, 5), np.float32), np.zeros(5, np.float32)).shape == (0,)


def test_numbers_out_of_range_give_infinity_or_nan_and_no_warning() -> None:
    keys = np.array([[3e38], [np.nan], [np.inf], [3e38]], np.float32)
    assert str(distances(keys, np.float32([-3e38])).tolist()) == "[inf, nan, inf, inf]"
    assert np.isnan(distances(keys[2:3], np.float32([np.inf])))[0]


def test_the_literal_definition_agrees(literal: Callable[..., list[int]]) -> None:
    keys, query = random_keys(20, 12), random_keys(1, 12, seed=1)
    nearest = int(distances(keys, query[0]).argmin())
    assert literal(keys, np.full(20, 1e9, np.float32), set(), query) == [nearest]
