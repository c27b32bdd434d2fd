"""Differences of tensors: exact for every bit, and small where little changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editkit_store.artifacts.deltas import packed, unpacked

SIZES = st.sampled_from([1, 2, 4, 8])


@given(data=st.binary(max_size=400), base=st.binary(max_size=400), size=SIZES)
def test_every_bit_comes_back(data: bytes, base: bytes, size: int) -> None:
    data = data[: len(data) // size * size]
    assert unpacked(packed(data, base, size), base, size, len(data)) == data


@given(words=st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)), max_size=50))
def test_what_is_stored_are_folded_differences_by_significance(
    words: list[tuple[int, int]],
) -> None:
    import zlib

    now = np.array([one for one, _ in words], "<u2")
    was = np.array([one for _, one in words], "<u2")
    apart = (now - was).view("<i2").astype(np.int64)
    folded = np.where(apart >= 0, 2 * apart, -2 * apart - 1).astype("<u2")
    wanted = folded.view(np.uint8).reshape(-1, 2).T.tobytes()
    stored = packed(now.tobytes(), was.tobytes(), 2)
    assert zlib.decompress(stored, -zlib.MAX_WBITS) == wanted


def test_a_small_change_takes_about_its_entropy() -> None:
    noise = np.random.default_rng(0)
    was = noise.normal(0, 30, 100_000).round().astype("<i2")
    now = was + noise.normal(0, 5, len(was)).round().astype("<i2")
    change, whole = (packed(now.tobytes(), base, 2) for base in (was.tobytes(), b""))
    counts = np.bincount((now.astype(int) - was) + 1000)
    shares = counts[counts > 0] / len(now)
    entropy = -(shares * np.log2(shares)).sum() * len(now) / 8
    assert entropy <= len(change) < 1.03 * entropy
    assert len(change) < 0.7 * len(whole) < 0.7 * 0.6 * now.nbytes


def test_a_tensor_that_grew_by_a_row_takes_little_more_than_the_row() -> None:
    noise = np.random.default_rng(0)
    was = noise.integers(0, 256, (1000, 8), np.uint8).tobytes()
    assert len(packed(was + was[:8], was, 1)) < 120


@pytest.mark.parametrize("size", [0, 3, 16])
def test_words_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="words"):
        packed(bytes(48), b"", size)


def test_damage_is_refused() -> None:
    data = bytes(range(200))
    stored = packed(data, b"", 2)
    for bad in (b"", stored[:-1], stored + b"x", b"\xff" + stored[1:]):
        with pytest.raises(ValueError, match="delta"):
            unpacked(bad, b"", 2, len(data))
    for length in (len(data) - 2, len(data) + 2, 2**40):
        with pytest.raises(ValueError, match="delta"):
            unpacked(stored, b"", 2, length)
    with pytest.raises(ValueError, match="words"):
        unpacked(stored, b"", 2, len(data) - 1)
