"""Shares and means with their intervals, against published numbers."""

from __future__ import annotations

import pytest

from editkit.evaluation.records import Mean, Share


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0),
    ],
)  # fmt: skip
def test_the_interval_of_a_share_is_wilsons(hits: int, count: int, low: float, high: float) -> None:
    share = Share.of([True] * hits + [False] * (count - hits))
    assert (share.hits, share.count) == (hits, count)
    assert share.value == pytest.approx(hits / count)
    assert share.low == pytest.approx(low, abs=6e-5)
    assert share.high == pytest.approx(high, abs=6e-5)


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    mean = Mean.of([0.0, 0.5, 1.0, 0.5])
    spread = (0.5 / 3) ** 0.5
    assert mean.value == pytest.approx(0.5)
    assert mean.high == pytest.approx(0.5 + 1.959964 * spread / 2)
    assert mean.low == pytest.approx(0.5 - 1.959964 * spread / 2)


def test_nothing_has_no_share_and_no_mean() -> None:
    assert (Share.of([]).value, Share.of([]).low, Share.of([]).count) == (None, None, 0)
    assert (Mean.of([]).value, Mean.of([]).count) == (None, 0)
