from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from editkit.scope.index import IndexBackend, library, table
from editkit.scope.index.faiss_scan import FaissScan
from editkit.scope.index.faiss_top import FaissTop
from editkit.scope.index.torch_scan import TorchScan


def literal_distance(key: np.ndarray, query: np.ndarray) -> np.float32:
    """The definition, term by term; ``fsum`` adds without rounding."""
    deltas = [float(np.float32(k) - np.float32(q)) for k, q in zip(key, query, strict=True)]
    return np.float32(math.sqrt(math.fsum(delta * delta for delta in deltas)))


def literal_select(
    keys: np.ndarray, radii: np.ndarray, dead: set[int], queries: np.ndarray
) -> list[int]:
    """Which row fires, by a loop over rows and queries."""
    chosen = []
    for query in queries:
        best, nearest = -1, np.float32(np.inf)
        for row, radius in enumerate(radii):
            if row in dead or not radius >= 0:
                continue
            distance = literal_distance(keys[row], query)
            if distance <= radius and distance <= nearest:
                best, nearest = row, distance
        chosen.append(best)
    return chosen


class HalfIndex:
    """Top-k with the arithmetic of FAISS's GPU kernels, in numpy.

    Keys and queries in float16, each square of a norm rounded to float16 before the sum, products
    summed in float32, squares cut off at zero.
    """

    def __init__(self, width: int) -> None:
        self.d = width
        self._keys = np.empty((0, width), np.float16)

    @property
    def ntotal(self) -> int:
        return len(self._keys)

    def add(self, keys: np.ndarray) -> None:
        self._keys = np.concatenate([self._keys, keys.astype(np.float16)])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        halves = queries.astype(np.float16)
        products = halves.astype(np.float32) @ self._keys.astype(np.float32).T
        squares = np.square(self._keys).sum(axis=1, dtype=np.float32) - 2 * products
        squares += np.square(halves).sum(axis=1, dtype=np.float32)[:, None]
        squares = np.maximum(squares, 0)
        order = np.argsort(squares, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(squares, order, axis=1), order.astype(np.int64)


def _scalar_half(width: int) -> Any:
    faiss = library.load_faiss()
    return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16)


MAKERS: dict[str, Callable[[], IndexBackend]] = {
    "flat": FaissScan,
    "pruned": lambda: FaissScan(flat_rows=12, dims=3),
    "together": lambda: FaissScan(flat_rows=30, dims=3, together=1),
    "four bits": lambda: FaissScan(flat_rows=12, dims=3, in_four_bits=True),
    "four bits, together": lambda: FaissScan(flat_rows=12, dims=16, in_four_bits=True, together=1),
    "half": lambda: FaissTop(_scalar_half, name="half", first=2, limit=16),
    "gpu arithmetic": lambda: FaissTop(HalfIndex, name="half", first=2, limit=16),
    "torch": lambda: TorchScan("cpu", dims=3),
}


@pytest.fixture(params=MAKERS)
def new_backend(request: pytest.FixtureRequest) -> Callable[[], IndexBackend]:
    """A maker of one kind of backend, small enough for its every path to be taken."""
    return MAKERS[request.param]


@pytest.fixture(scope="session")
def makers() -> dict[str, Callable[[], IndexBackend]]:
    return MAKERS


@pytest.fixture(scope="session")
def literal() -> Callable[..., list[int]]:
    return literal_select


@pytest.fixture
def few_direct_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "DIRECT_ROWS", 3)


@pytest.fixture(scope="module")
def always_indexed() -> Iterator[None]:
    """Backends take over at the fourth row, and get batches that FAISS gives to BLAS (from 20)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "DIRECT_ROWS", 3)
        patch.setattr(table, "_BATCH", 32)
        yield
