"""FAISS on the CPU: a flat scan, in few dimensions once there are many keys.

Up to ``FLAT_ROWS`` keys the index holds the centred keys. Above, it holds their projection onto
principal directions, which is scanned at memory speed and is exact as a filter: ``DIMS`` directions
in float32 for hidden states; for prompt keys, which have unit length, as many as are needed to
separate them (see ``sketch``), in four bits each (see ``four_bits``). The directions are computed
when the threshold is passed or the table is rebuilt, again when there are enough keys to estimate
them well, and kept as the table grows further.

It is slow, but never wrong, for keys that the directions cannot separate at the scale of the reach,
since each of them is measured on the host. That happens for many near-duplicates of one key, for a
reach near the typical distance of two keys, for keys that later spread along directions unknown
when the index was fitted, and for distances so small relative to the keys' spread that float32 (or
four bits) cannot represent them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from editkit.scope.index.candidates import ALL, NONE, Candidates
from editkit.scope.index.distance import Vectors
from editkit.scope.index.four_bits import SHARED, FourBits
from editkit.scope.index.library import load_faiss
from editkit.scope.index.sketch import SAMPLE, Bound, Sketch, on_a_sphere

__all__ = ["DIMS", "FLAT_ROWS", "TOGETHER", "FaissScan"]

FLAT_ROWS = 256
"""Maximum number of keys in a flat index."""

DIMS = 24
"""Minimum dimensions of the projection: 1M keys are 96 MB, one pass over memory."""

_GROWTH = 8
"""Growth factor at which directions estimated from few keys are computed again."""

_FEW = 16  # candidates up to which bounds are not computed
_LOWEST = np.zeros(_FEW)

_BLOCK = 1 << 15
"""Keys added per block, to limit temporary memory."""

TOGETHER = 50_000
"""Number of keys above which queries are searched together, one thread each.

Below, starting FAISS's threads costs more than it gains: they wait for processors on which torch's
idle threads still spin.
"""


class FaissScan:
    """Exact range search over sketches, see ``candidates.IndexBackend``.

    Args:
        flat_rows: Number of keys up to which all dimensions are kept.
        dims: Dimensions kept above that.
        together: Number of keys above which queries are searched together.
        in_four_bits: Whether to store a projection in four bits per entry; None to do so for keys
            of equal length.
        shared: Number of four-bit keys above which several threads scan them for one query.
    """

    name = "faiss"

    def __init__(
        self,
        *,
        flat_rows: int = FLAT_ROWS,
        dims: int = DIMS,
        together: int = TOGETHER,
        in_four_bits: bool | None = None,
        shared: int = SHARED,
    ) -> None:
        self._faiss = load_faiss()
        self._flat_rows = flat_rows
        self._dims = dims
        self._together = together
        self._in_four_bits = in_four_bits
        self._shared = shared
        self._sketch: Sketch | None = None
        self._index: Any = None
        self._fitted = 0  # keys that the sketch was made from
        self._largest = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether a flat index is too large, or directions were estimated from too few keys."""
        if self._sketch is None or self._index.ntotal <= self._flat_rows:
            return False
        if self._sketch.basis is None and self._sketch.dims > self._dims:
            return True
        return self._fitted < SAMPLE and bool(self._index.ntotal >= _GROWTH * self._fitted)

    @property
    def nbytes(self) -> int:
        """Bytes of the index's vectors, and of the row numbers of four-bit ones."""
        if isinstance(self._index, FourBits):
            return self._index.nbytes
        return 0 if self._index is None else int(self._index.ntotal * self._index.d * 4)

    def build(self, keys: Vectors) -> None:
        """Replaces the contents by ``keys``."""
        dims = self._dims if len(keys) > self._flat_rows else None
        sketch = self._sketch = Sketch.fit(keys, dims=dims)
        is_short = on_a_sphere(keys) if self._in_four_bits is None else self._in_four_bits
        if sketch.basis is not None and is_short:
            self._index = FourBits(self._faiss, sketch, keys, shared=self._shared)
        else:
            self._index = self._faiss.IndexFlatL2(sketch.dims)
        self._largest = 0.0
        self._fitted = len(keys)
        self.add(keys)

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""
        assert self._sketch is not None
        for start in range(0, len(keys), _BLOCK):
            block = keys[start : start + _BLOCK]
            if isinstance(self._index, FourBits):
                self._index.add(block)
                continue
            sketches = self._sketch.apply(block)
            self._index.add(sketches)
            self._largest = max(self._largest, float(np.abs(sketches).max(initial=0.0)))

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns every row whose sketch lies within the reach, with a margin for rounding."""
        sketches, bounds = self._prepare(queries, reach)
        found = [NONE if bound.limit < 0 else ALL for bound in bounds]
        for batch in self._batches(bounds):
            ends, squares, positions = self._index.range_search(
                sketches if len(batch) == len(sketches) else sketches[batch],
                max(bounds[query].limit for query in batch),
            )
            for at, query in enumerate(batch):
                start, end = int(ends[at]), int(ends[at + 1])
                found[query] = NONE
                if start < end:
                    # Measuring a few rows takes no longer than ordering them.
                    is_few = end - start <= _FEW
                    lower = _LOWEST[: end - start]
                    if not is_few:
                        lower = bounds[query].lower(squares[start:end])
                    found[query] = Candidates(positions[start:end], lower)
        return found

    def _prepare(self, queries: Vectors, reach: float) -> tuple[Vectors, list[Bound]]:
        if isinstance(self._index, FourBits):
            return self._index.asked(queries, reach)
        assert self._sketch is not None
        sketches = self._sketch.apply(queries)
        return sketches, [
            self._sketch.bound(query, sketch, reach, self._largest)
            for query, sketch in zip(queries, sketches, strict=True)
        ]

    def _batches(self, bounds: Sequence[Bound]) -> list[list[int]]:
        """Returns the queries to search for, in batches."""
        searched = [at for at, bound in enumerate(bounds) if 0 <= bound.limit < math.inf]
        if self._index.ntotal < self._together:
            return [[query] for query in searched]
        # A call has one limit for all queries, and a query far out has a large one: queries are
        # batched if their limits are equal up to a factor of two.
        batches: dict[int, list[int]] = {}
        for query in searched:
            batches.setdefault(math.frexp(bounds[query].limit)[1], []).append(query)
        return list(batches.values())
