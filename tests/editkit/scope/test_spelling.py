"""Directions of spellings are those of numpy's own generator, seeded by numpy's own means."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from editkit.scope.spelling import _seeded, direction


@given(seed=st.integers(0, 2**32 - 1))
def test_states_are_those_of_numpy(seed: int) -> None:
    wanted = np.random.PCG64(seed).state["state"]
    assert _seeded(seed) == (wanted["state"], wanted["inc"])


def test_a_direction_is_noise_of_its_own_and_has_unit_length() -> None:
    for text in ("", "ottawa", "żółć", "1984"):
        noise = np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))
        wanted = noise.standard_normal(300)
        found = direction(text, 300)
        assert (found.dtype, found.shape) == (np.float32, (1, 300))
        assert np.allclose(found[0], wanted / np.linalg.norm(wanted), atol=1e-7)


def test_threads_do_not_mix_directions_up() -> None:
    texts = [f"name {number % 20}" for number in range(400)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: direction(text, 200), texts))
    for at, text in enumerate(texts):
        assert np.array_equal(found[at], direction(text, 200))
