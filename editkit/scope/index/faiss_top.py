"""FAISS on the GPU: the nearest rows in float16, with increasing k until none can be missing.

``GpuIndexFlat`` has no range search, so the ``k`` nearest rows are requested and ``k`` is doubled
until the ``k``-th lies provably beyond the reach. At ``TOP_LIMIT`` (the GPU's maximum) that stops:
the candidates then give a lower bound for unlisted rows, which still settles every query with a
nearer hit; only the others are measured against all rows on the host. It is slow, but never wrong,
for more than ``TOP_LIMIT`` keys within the largest radius of a query that hits nothing.

Keys are stored centred, in float16, and scaled so that squares neither overflow nor underflow; a
key too large for the scale triggers a rebuild.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from editkit.scope.index.candidates import ALL, NONE, Candidates
from editkit.scope.index.distance import Vectors
from editkit.scope.index.library import load_faiss
from editkit.scope.index.sketch import HALF_LIMIT, Bound, Sketch

__all__ = ["FIRST_TOP", "TOP_LIMIT", "FaissTop", "gpu_index"]

FIRST_TOP = 32
"""Nearest rows requested first."""

TOP_LIMIT = 2048
"""Maximum rows that FAISS can select on a GPU."""

_BLOCK = 1 << 14
"""Keys added per block, so that the float32 copy stays small."""


class FaissTop:
    """Top-k search over float16 sketches, see ``candidates.IndexBackend``.

    Args:
        new_index: Creates an empty L2 index of a given width. It may store float16, and may compute
            norms in float16 as FAISS does on a GPU.
        name: Name of the backend.
        first: Nearest rows requested first.
        limit: Maximum rows that the index can return.
    """

    def __init__(
        self,
        new_index: Callable[[int], Any],
        *,
        name: str,
        first: int = FIRST_TOP,
        limit: int = TOP_LIMIT,
    ) -> None:
        self._new_index = new_index
        self._name = name
        self._limit = limit
        self._first = min(first, limit)
        self._sketch: Sketch | None = None
        self._index: Any = None
        self._largest = 0.0

    @property
    def name(self) -> str:
        """Name that selects it."""
        return self._name

    @property
    def is_stale(self) -> bool:
        """Whether a key does not fit the scale."""
        return self._largest > HALF_LIMIT

    @property
    def nbytes(self) -> int:
        """Bytes of the index's vectors and their norms."""
        return 0 if self._index is None else int(self._index.ntotal * (self._index.d * 2 + 4))

    def build(self, keys: Vectors) -> None:
        """Replaces the contents by ``keys``."""
        self._index = None  # frees device memory before the next index is created
        self._sketch = Sketch.fit_half(keys)
        self._index = self._new_index(self._sketch.dims)
        self._largest = 0.0
        self.add(keys)

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""
        assert self._sketch is not None
        for start in range(0, len(keys), _BLOCK):
            sketches = self._sketch.apply(keys[start : start + _BLOCK])
            self._largest = max(self._largest, float(np.abs(sketches).max(initial=0.0)))
            self._index.add(sketches)

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns the nearest rows of each query, as many as needed or possible."""
        assert self._sketch is not None
        sketches = self._sketch.apply(queries)
        bounds = [
            self._sketch.bound(query, sketch, reach, self._largest)
            for query, sketch in zip(queries, sketches, strict=True)
        ]
        limits = np.array([bound.limit for bound in bounds], np.float32)
        found = [NONE if bound.limit < 0 else ALL for bound in bounds]
        open_queries = np.flatnonzero(np.isfinite(limits) & (limits >= 0))
        total = int(self._index.ntotal)
        count = min(self._first, total)
        while len(open_queries):
            squares, positions = self._index.search(sketches[open_queries], count)
            is_last = count in (total, self._limit)
            complete = (count == total) | (squares[:, -1] >= limits[open_queries])
            for at in np.flatnonzero(complete | is_last):
                query = int(open_queries[at])
                found[query] = _nearest(
                    bounds[query], squares[at], positions[at], is_complete=bool(complete[at])
                )
            open_queries = open_queries[~complete & (not is_last)]
            count = min(2 * count, self._limit, total)
        return found


def _nearest(bound: Bound, squares: Vectors, positions: Any, *, is_complete: bool) -> Candidates:
    lower = bound.lower(squares)
    inside = squares < np.float32(bound.limit)
    rest = np.inf if is_complete else float(lower[-1])
    return Candidates(positions[inside], lower[inside], rest)


def gpu_index(ordinal: int) -> Callable[[int], Any]:
    """Returns a factory of float16 indexes on a GPU.

    Raises:
        ImportError: FAISS is missing, or was built without GPU support.
        RuntimeError: There is no GPU.
    """
    faiss = load_faiss()
    if not hasattr(faiss, "GpuIndexFlatL2"):
        raise ImportError(
            "this faiss was built for the CPU: pip uninstall faiss-cpu; pip install 'editkit[gpu]'"
        )
    if not faiss.get_num_gpus():
        raise RuntimeError("the key index 'faiss-gpu' found no GPU; choose 'faiss'")

    def new_index(width: int) -> Any:
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16 = True
        config.device = ordinal
        # The error bounds in ``sketch`` are those of FAISS's own kernels.
        config.use_cuvs = False
        return faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), width, config)

    return new_index
