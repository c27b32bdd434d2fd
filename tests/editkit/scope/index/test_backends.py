from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editkit.scope.index import (
    IndexBackend,
    KeyTable,
    backends,
    distances,
    library,
    open_backend,
    sketch,
)
from editkit.scope.index.faiss_scan import FaissScan
from editkit.scope.index.faiss_top import FaissTop
from editkit.scope.index.torch_scan import TorchScan

NewBackend = Callable[[], IndexBackend]
GPUS = library.gpus()


def random_keys(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    width=st.sampled_from([1, 3, 33]),
    offset=st.sampled_from([0, 1, 1000]),
    spread=st.sampled_from([1e-3, 1, 1e3]),
    reach=st.floats(0, 3),
)
def test_no_row_within_the_reach_is_left_out_and_no_bound_exceeds_its_distance(
    makers: dict[str, NewBackend],
    seed: int,
    count: int,
    width: int,
    offset: float,
    spread: float,
    reach: float,
) -> None:
    rng = np.random.default_rng(seed)
    keys = (offset + spread * rng.standard_normal((count, width))).astype(np.float32)
    queries = np.concatenate([keys[:2], (keys[:1] + keys[-1:]) / 2, 3 * keys[:1]])
    reach = reach * spread * width**0.5
    for name, maker in makers.items():
        backend = maker()
        backend.build(keys)
        for query, candidates in zip(queries, backend.propose(queries, reach), strict=True):
            far = distances(keys, query)
            listed = candidates.positions
            near = far[listed] <= reach
            assert (candidates.lower[near] <= far[listed][near]).all(), name
            unlisted = np.delete(far, listed)
            assert ((unlisted > reach) | (unlisted >= candidates.rest)).all(), name
            assert len(set(listed.tolist())) == len(listed), name


def test_far_rows_are_not_proposed(new_backend: NewBackend) -> None:
    near, far = random_keys(30), 10 + random_keys(30)
    backend = new_backend()
    backend.build(np.concatenate([near, far]))
    found = backend.propose(near[:1], 1.0)[0]
    assert found.rest == np.inf
    assert 1 <= len(found.positions) <= 30
    assert found.positions.max() < 30


def test_a_query_far_from_everything_has_no_candidates(new_backend: NewBackend) -> None:
    backend = new_backend()
    backend.build(random_keys(50))
    found = backend.propose(np.full((1, 8), 1e6, np.float32), 1.0)[0]
    assert (len(found.positions), found.rest) == (0, np.inf)


def test_keys_too_large_for_float32_squares_hide_no_row(new_backend: NewBackend) -> None:
    keys = random_keys(50)
    keys[7] = 3e38
    backend = new_backend()
    backend.build(keys)
    for row in (7, 3):
        found = backend.propose(keys[row : row + 1], 1.0)[0]
        assert row in found.positions or found.rest == 0


def test_the_flat_index_is_pruned_once_it_has_grown() -> None:
    backend = FaissScan(flat_rows=100, dims=4)
    backend.build(random_keys(90, 64))
    assert backend.nbytes == 90 * 64 * 4
    backend.add(random_keys(20, 64))
    assert backend.is_stale
    backend.build(random_keys(110, 64))
    assert not backend.is_stale
    assert backend.nbytes == 110 * 4 * 4
    backend.add(random_keys(600, 64))
    assert not backend.is_stale
    backend.add(random_keys(200, 64))
    assert backend.is_stale  # 110 keys were too few to know the directions of many by
    backend.build(random_keys(sketch.SAMPLE, 64))
    backend.add(random_keys(20 * sketch.SAMPLE, 64))
    assert not backend.is_stale  # no retraining


def test_keys_of_prompts_keep_enough_directions_to_be_told_apart() -> None:
    # Unit vectors that spread in many directions, asked with more than half their usual distance.
    noise = np.random.default_rng(0)
    keys = noise.standard_normal((3000, 256)).astype(np.float32) * np.linspace(1.5, 0.5, 256)
    keys = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    backend = FaissScan(flat_rows=100, dims=8)
    backend.build(keys[:2900])
    assert not backend.is_stale
    dims = 2 * (backend.nbytes / 2900 - 8)  # four bits each, and the row's number
    assert dims == 144 + 2  # a little more than half of the width, and which list is meant
    found = backend.propose(keys[2900:], 0.8)
    assert np.mean([len(one.positions) for one in found]) < 0.02 * 2900
    # States differ in length, and lie far apart beside their reach: a few directions do.
    longer = keys[:2900] * noise.uniform(1, 2, (2900, 1)).astype(np.float32)
    backend.build(longer)
    assert backend.nbytes == 2900 * 8 * 4


def test_a_table_prunes_its_index_when_it_has_grown() -> None:
    table = KeyTable(64, backend=FaissScan(flat_rows=200, dims=4))
    table.add(random_keys(200, 64))
    assert table.index_nbytes == 200 * 64 * 4
    table.add(random_keys(1, 64))
    assert table.index_nbytes == 201 * 4 * 4


class CountingIndex:
    """Exact squares, and a note of every ``k`` asked for."""

    def __init__(self, width: int) -> None:
        self.d, self.ntotal = width, 0
        self.asked: list[int] = []
        self._index = library.load_faiss().IndexFlatL2(width)

    def add(self, keys: np.ndarray) -> None:
        self._index.add(keys)
        self.ntotal = self._index.ntotal

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(k)
        return self._index.search(queries, k)


def counting(count: int, limit: int) -> tuple[FaissTop, list[int]]:
    """A backend over 0, 1, 2, ... and the list of what it asks for."""
    made: list[CountingIndex] = []

    def new_index(width: int) -> CountingIndex:
        made.append(CountingIndex(width))
        return made[-1]

    backend = FaissTop(new_index, name="counting", first=4, limit=limit)
    backend.build(np.arange(count, dtype=np.float32)[:, None])
    return backend, made[0].asked


def test_more_are_asked_for_until_none_can_be_missing() -> None:
    backend, asked = counting(100, limit=64)
    found = backend.propose(np.zeros((1, 1), np.float32), 10.0)[0]
    assert asked == [4, 8, 16]
    assert set(range(11)) <= set(found.positions.tolist())
    assert found.rest == np.inf


def test_only_queries_that_need_more_are_asked_again() -> None:
    backend, asked = counting(100, limit=64)
    found = backend.propose(np.array([[0], [-40]], np.float32), 30.0)
    assert asked == [4, 8, 16, 32]
    assert [one.rest for one in found] == [np.inf, np.inf]


def test_at_the_limit_it_says_how_near_an_unlisted_row_can_be() -> None:
    backend, asked = counting(100, limit=8)
    found = backend.propose(np.zeros((1, 1), np.float32), 50.0)[0]
    assert asked == [4, 8]
    assert sorted(found.positions.tolist()) == [*range(8)]
    assert 5 < found.rest <= 7


def test_when_fewer_keys_than_asked_for_all_are_listed() -> None:
    backend, asked = counting(3, limit=64)
    found = backend.propose(np.zeros((1, 1), np.float32), 50.0)[0]
    assert asked == [3]
    assert (sorted(found.positions.tolist()), found.rest) == ([0, 1, 2], np.inf)


def test_a_hit_nearer_than_anything_unlisted_needs_no_other_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []

    def noting(keys: np.ndarray, query: np.ndarray) -> np.ndarray:
        measured.append(len(keys))
        return distances(keys, query)

    monkeypatch.setattr("editkit.scope.index.distance.distances", noting)
    backend = FaissTop(CountingIndex, name="counting", first=4, limit=8)
    table = KeyTable(32, backend=backend)
    keys = random_keys(300, 32)
    table.add(keys)
    radii = np.full(300, 12, np.float32)
    assert table.select(keys[7:8] + np.float32(0.1), radii).tolist() == [7]
    assert sum(measured) <= 8
    radii[distances(keys, keys[7]) < 8] = -1  # now all that is listed is out of the view
    assert table.select(keys[7:8], radii)[0] >= 0
    assert sum(measured) > 8


def test_a_key_beyond_float16_asks_for_another_scale(makers: dict[str, NewBackend]) -> None:
    backend = makers["half"]()
    backend.build(random_keys(20))
    backend.add(100 * random_keys(1))
    assert backend.is_stale
    backend.build(np.concatenate([random_keys(20), 100 * random_keys(1)]))
    assert not backend.is_stale


def test_torch_fills_in_inference_mode_and_grows_outside_of_it() -> None:
    import torch

    backend = TorchScan("cpu")
    with torch.inference_mode():
        backend.build(random_keys(20))
    backend.add(random_keys(2000))
    with torch.inference_mode():
        backend.add(random_keys(20))
    assert 5 in backend.propose(random_keys(20)[5:6], 0.1)[0].positions


def test_torch_keeps_float32_whatever_the_default_is() -> None:
    import torch

    torch.set_default_dtype(torch.float16)
    try:
        backend = TorchScan("cpu")
        backend.build(random_keys(20))
        assert 5 in backend.propose(random_keys(20)[5:6], 0.0)[0].positions
    finally:
        torch.set_default_dtype(torch.float32)


def test_without_faiss_torch_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    assert open_backend(None).name == "torch"


def test_a_gpu_that_faiss_can_use_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(backends, "gpus", lambda: 1)
    monkeypatch.setattr(
        "editkit.scope.index.faiss_top.gpu_index", lambda at: asked.append(at) or CountingIndex
    )
    assert open_backend(None, "cuda:3").name == "faiss-gpu"
    assert open_backend(None, "cuda").name == "faiss-gpu"
    assert open_backend(None, "cpu").name == "faiss"
    assert asked == [3, 0]


def test_a_gpu_that_faiss_cannot_use_leaves_the_index_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "gpus", lambda: 0)
    assert open_backend(None, "cuda").name == "faiss"


def test_a_missing_faiss_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'editkit\[cpu\]'"):
        KeyTable(8, backend="faiss")


@pytest.mark.skipif(GPUS > 0, reason="this FAISS can use a GPU")
def test_a_faiss_without_gpu_support_is_named_with_its_install_command() -> None:
    with pytest.raises(ImportError, match=r"pip install 'editkit\[gpu\]'"):
        KeyTable(8, backend="faiss-gpu")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="no key index named 'hnsw'"):
        KeyTable(8, backend="hnsw")


def test_the_package_loads_neither_torch_nor_faiss() -> None:
    code = (
        "import sys, numpy as np; from editkit.scope.index import KeyTable; table = KeyTable(4);"
        " table.add(np.ones((9, 4), np.float32));"
        " assert table.select(np.ones((1, 4), np.float32), np.ones(9, np.float32)) == [8];"
        " print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "faiss"} & set(done.stdout.split()) == set()


@pytest.mark.gpu
@pytest.mark.skipif(GPUS == 0, reason="there is no GPU, or this FAISS cannot use one")
@pytest.mark.parametrize("batch", [1, 25])
@pytest.mark.parametrize("offset", [0, 100])
def test_the_gpu_decides_as_the_cpu_does(batch: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    keys = (offset + rng.standard_normal((20_000, 64))).astype(np.float32)
    queries = keys[:batch] + np.float32(0.3)
    radii = rng.uniform(1, 6, 20_000).astype(np.float32)
    on_gpu, on_cpu = KeyTable(64, backend="faiss-gpu", device="cuda"), KeyTable(64, backend="faiss")
    for table in (on_gpu, on_cpu):
        table.add(keys)
        table.kill(range(0, 20_000, 5))
    assert np.array_equal(on_gpu.select(queries, radii), on_cpu.select(queries, radii))


@pytest.mark.gpu
def test_torch_on_a_gpu_decides_as_the_cpu_does() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    rng = np.random.default_rng(0)
    keys = (100 + rng.standard_normal((20_000, 64))).astype(np.float32)
    radii = rng.uniform(1, 6, 20_000).astype(np.float32)
    on_gpu, on_cpu = KeyTable(64, backend="torch", device="cuda"), KeyTable(64, backend="torch")
    for table in (on_gpu, on_cpu):
        table.add(keys)
    queries = keys[:25] + np.float32(0.3)
    assert np.array_equal(on_gpu.select(queries, radii), on_cpu.select(queries, radii))
