"""FAISS on the CPU: a flat scan, in few dimensions once there are many keys.

Up to ``FLAT_ROWS`` keys the index holds them as they are (centred). From there on it holds their
projection onto ``DIMS`` principal directions: 96 bytes a key whatever its width, scanned at memory
speed, and exact as a filter (see ``sketch``). The directions are found when the threshold is
passed or the table is rebuilt, and kept while it grows.

What makes it slow, never wrong: keys that the directions cannot tell apart at the scale of the
reach, each of which costs a measurement on the host. That is so for many near-duplicates of one
key, for a reach near the typical distance of two keys, for keys that later spread along directions
unknown when the index was fitted, and for distances so small beside the keys' spread that float32
cannot tell them from nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from editkit.retrieval.backends import ALL, NONE, Candidates, load_faiss
from editkit.retrieval.distance import Vectors
from editkit.retrieval.sketch import Sketch

__all__ = ["DIMS", "FLAT_ROWS", "FaissScan"]

FLAT_ROWS = 2048
"""Keys up to which the index is flat."""

DIMS = 24
"""Dimensions of the projection: 1M keys are 96 MB, one pass over memory."""


class FaissScan:
    """Exact range search over sketches, see ``backends.Backend``.

    Args:
        flat_rows: Keys up to which all dimensions are kept.
        dims: Dimensions kept beyond.
    """

    name = "faiss"

    def __init__(self, flat_rows: int | None = None, dims: int | None = None) -> None:
        self._faiss = load_faiss()
        self._flat_rows = FLAT_ROWS if flat_rows is None else flat_rows
        self._dims = DIMS if dims is None else dims
        self._sketch: Sketch | None = None
        self._index: Any = None
        self._largest = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether a flat index has outgrown its size."""
        return (
            self._sketch is not None
            and self._index.ntotal > self._flat_rows
            and self._sketch.dims > self._dims
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the index's vectors."""
        return 0 if self._index is None else int(self._index.ntotal * self._index.d * 4)

    def build(self, keys: Vectors) -> None:
        """Forgets everything and takes ``keys``."""
        dims = self._dims if len(keys) > self._flat_rows else None
        self._sketch = Sketch.fit(keys, dims=dims)
        self._index = self._faiss.IndexFlatL2(self._sketch.dims)
        self._largest = 0.0
        self.add(keys)

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""
        assert self._sketch is not None
        sketches = self._sketch.apply(keys)
        self._largest = max(self._largest, float(np.abs(sketches).max(initial=0.0)))
        self._index.add(sketches)

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns every row whose sketch lies within the reach, with a margin for rounding."""
        assert self._sketch is not None
        sketches = self._sketch.apply(queries)
        bounds = self._sketch.bounds(queries, sketches, reach, self._largest)
        found = [NONE if limit < 0 else ALL for limit in bounds.limit]
        # One limit serves a whole call, and one query far out has a large one: queries go
        # together when their limits are equal up to a factor of two.
        exponents = np.frexp(bounds.limit)[1]
        searched = np.isfinite(bounds.limit) & (bounds.limit >= 0)
        for exponent in np.unique(exponents[searched]):
            batch = np.flatnonzero(searched & (exponents == exponent))
            ends, squares, positions = self._index.range_search(
                sketches[batch], float(bounds.limit[batch].max())
            )
            for at, query in enumerate(batch.tolist()):
                part = slice(int(ends[at]), int(ends[at + 1]))
                found[query] = Candidates(positions[part], bounds.lower(query, squares[part]))
        return found
