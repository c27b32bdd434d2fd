"""FAISS on the CPU: a flat scan, in few dimensions once there are many keys.

Up to ``FLAT_ROWS`` keys the index holds them as they are (centred). From there on it holds their
projection onto principal directions, scanned at memory speed, and exact as a filter: of states
``DIMS`` of them in float32; of keys of prompts, which have one length, as many as tell them apart
(see ``sketch``), in a byte each. The directions are found when the threshold is passed or the table
is rebuilt, once more when there are enough keys to know them well, and kept while it grows from
there on.

What makes it slow, never wrong: keys that the directions cannot tell apart at the scale of the
reach, each of which costs a measurement on the host. That is so for many near-duplicates of one
key, for a reach near the typical distance of two keys, for keys that later spread along directions
unknown when the index was fitted, and for distances so small beside the keys' spread that float32
(or a byte) cannot tell them from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from editkit.retrieval.candidates import ALL, NONE, Candidates
from editkit.retrieval.distance import Vectors
from editkit.retrieval.library import load_faiss
from editkit.retrieval.sketch import SAMPLE, Bound, Sketch, on_a_sphere

__all__ = ["DIMS", "FLAT_ROWS", "PARALLEL", "TOGETHER", "FaissScan"]

FLAT_ROWS = 256
"""Keys up to which the index is flat."""

DIMS = 24
"""Dimensions of the projection at least: 1M keys are 96 MB, one pass over memory."""

PARALLEL = 50_000
"""Keys in bytes from which several threads scan them for one query."""

_GROWTH = 8
"""Growth at which directions found among few keys are looked for again."""

_BLOCK = 1 << 15
"""Keys added at a time, so that what they become on the way stays small."""

_LISTS = 8
"""Most lists of an index in bytes: more threads wait for the same memory."""

TOGETHER = 50_000
"""Keys from which queries are searched together, one thread each.

Below, starting FAISS's threads costs more than it gains: they wait for processors on which torch's
threads, done with the layer before, still spin.
"""


class FaissScan:
    """Exact range search over sketches, see ``candidates.Backend``.

    Args:
        flat_rows: Keys up to which all dimensions are kept.
        dims: Dimensions kept beyond.
        together: Keys from which queries are searched together.
        in_bytes: Whether projections are kept in bytes; None for those of keys of one length.
        parallel: Keys in bytes from which several threads scan them for one query.
    """

    name = "faiss"

    def __init__(
        self,
        *,
        flat_rows: int = FLAT_ROWS,
        dims: int = DIMS,
        together: int = TOGETHER,
        in_bytes: bool | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        self._faiss = load_faiss()
        self._flat_rows = flat_rows
        self._dims = dims
        self._together = together
        self._in_bytes = in_bytes
        self._parallel = parallel
        self._sketch: Sketch | None = None
        self._index: Any = None
        self._fitted = 0  # keys that the sketch was made from
        self._largest = 0.0
        self._rounding = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether a flat index has outgrown its size, or directions their keys."""
        if self._sketch is None or self._index.ntotal <= self._flat_rows:
            return False
        if self._sketch.basis is None and self._sketch.dims > self._dims:
            return True
        return self._fitted < SAMPLE and bool(self._index.ntotal >= _GROWTH * self._fitted)

    @property
    def nbytes(self) -> int:
        """Bytes of the index's vectors, and of the numbers beside those in bytes."""
        if self._index is None or self._sketch is None:
            return 0
        is_byte = self._sketch.storage == "byte"
        return int(self._index.ntotal * (self._index.d + 8 if is_byte else self._index.d * 4))

    def build(self, keys: Vectors) -> None:
        """Forgets everything and takes ``keys``."""
        dims = self._dims if len(keys) > self._flat_rows else None
        self._sketch = Sketch.fit(keys, dims=dims)
        is_flat = self._sketch.basis is None
        if not is_flat and (on_a_sphere(keys) if self._in_bytes is None else self._in_bytes):
            self._sketch = self._sketch.in_bytes(keys)
            self._index = self._new_bytes(self._sketch.dims)
        else:
            self._index = self._faiss.IndexFlatL2(self._sketch.dims)
        self._largest = 0.0
        self._rounding = 0.0
        self._fitted = len(keys)
        self.add(keys)

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""
        assert self._sketch is not None
        for start in range(0, len(keys), _BLOCK):
            sketches = self._sketch.apply(keys[start : start + _BLOCK])
            if self._sketch.storage == "byte":
                sketches = self._add_bytes(sketches)
            else:
                self._index.add(sketches)
            self._largest = max(self._largest, float(np.abs(sketches).max(initial=0.0)))

    def _add_bytes(self, exact: Vectors) -> Vectors:
        """Appends rounded sketches, and returns them."""
        rounded = np.rint(exact)
        moved = float(np.square(rounded - exact).sum(axis=1).max(initial=0.0))
        # So much more that adding up in float32 cannot have made it less.
        self._rounding = max(self._rounding, math.sqrt(moved) * (1 + 2.0**-12))
        # Which list a row is in is of no meaning: equally long ones, one for each thread.
        lists = (self._index.ntotal + np.arange(len(exact), dtype=np.int64)) % self._index.nlist
        # Pointers: both arrays have to live until it returns.
        rows, places = map(self._faiss.swig_ptr, (rounded, lists))
        self._index.add_core(len(exact), rows, None, places)
        if self._index.ntotal >= self._parallel:
            self._index.parallel_mode = 1  # threads share the lists, not the queries
        return rounded

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns every row whose sketch lies within the reach, with a margin for rounding."""
        assert self._sketch is not None
        sketches = self._sketch.apply(queries)
        bounds = [
            self._sketch.bound(query, sketch, reach, self._largest, self._rounding)
            for query, sketch in zip(queries, sketches, strict=True)
        ]
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
                    lower = bounds[query].lower(squares[start:end])
                    found[query] = Candidates(positions[start:end], lower)
        return found

    def _new_bytes(self, dims: int) -> Any:
        """An empty index of signed bytes.

        Inverted lists that are all searched: the scan of FAISS's scalar quantizer by itself, which
        has no lists, takes 50 times as long to find all rows within a reach.
        """
        count = min(self._faiss.omp_get_max_threads(), _LISTS)
        center = self._faiss.IndexFlatL2(dims)
        center.add(np.zeros((count, dims), np.float32))
        kind, metric = self._faiss.ScalarQuantizer.QT_8bit_direct_signed, self._faiss.METRIC_L2
        index = self._faiss.IndexIVFScalarQuantizer(center, dims, count, kind, metric, False)
        index.train(np.zeros((count, dims), np.float32))
        index.nprobe = count
        return index

    def _batches(self, bounds: Sequence[Bound]) -> list[list[int]]:
        """Returns the queries to search for, those that go together in one list."""
        searched = [at for at, bound in enumerate(bounds) if 0 <= bound.limit < math.inf]
        if self._index.ntotal < self._together:
            return [[query] for query in searched]
        # One limit serves a whole call, and one query far out has a large one: queries go
        # together when their limits are equal up to a factor of two.
        batches: dict[int, list[int]] = {}
        for query in searched:
            batches.setdefault(math.frexp(bounds[query].limit)[1], []).append(query)
        return list(batches.values())
