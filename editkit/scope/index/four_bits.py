"""Sketches of four bits per entry, and FAISS's fast scan of them: an eighth of float32's memory.

Prompt keys have unit length, and their reach, a cosine of .68, is more than half of the distance of
two unrelated keys (.8 against 1.4). Separating them takes half of their directions but hardly any
precision. A sketch ``y = s B'(x - c)`` is rotated so that all entries have similar variance, scaled
so that ``[-8, 8]`` holds all but a hundredth of them, clipped to that range, and rounded to the
middle of one of sixteen steps of width 1. Queries are clipped but not rounded. The bounds of
``sketch`` hold here too, with these differences, in the units of a sketch:

1. Rounding moves no row farther than the ``rounding`` measured when it was added.
2. Projections are computed in float32: ``w = skew + (d + 8) sqrt(p) 2**-23``.
3. The scan adds ``p`` numbers from tables of one byte each (Andre et al., "Cache locality is not
   enough", VLDB 2015), in 16 bits. For entry ``j`` of a query the table has the squares
   ``(y_j - v)**2`` of the sixteen values ``v``, less the smallest, in steps of
   ``1 / a = max(max_j span_j / 255, sum_j span_j / 65535)``, each rounded to the nearest. As
   ``span_j <= (|y_j| + 7.5)**2``, steps are at most ``max(15.5**2 / 255, S / 65535)`` with
   ``S = ||y||**2 + 15 sqrt(p) ||y|| + 7.5**2 p``; ``p / 2 + 2`` of them are added to the noise: one
   for the limit, which is rounded down, and one to spare.
4. A limit must fit in those 16 bits, whose unit is at least ``max(56 / 255, 56 p / 65535)``. Like
   the noise, it is above ``p / 4``, the most that is subtracted from the tables. A sum that exceeds
   16 bits wraps around: such a row is far, and is reported needlessly.

In a four-bit range search FAISS does not distribute the lists of one query over threads, but it
distributes queries. So keys are divided into lists, and a query is repeated once per list: two more
entries, in which all keys are zero and the lists' centres lie on a circle, select the list, and add
the circle's radius squared to every square.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.scope.index.distance import Ints, Vectors
from editkit.scope.index.sketch import Bound, Sketch, sample_of

__all__ = ["SHARED", "FourBits", "largest"]

SHARED = 50_000
"""Number of keys above which several threads scan them for one query."""

_LARGEST = 8.0
"""Largest entry, in steps."""

_STEP = 0.335
"""Width of a step, in standard deviations of an entry: a hundredth of the entries is clipped."""

_TOGETHER = 32  # keys whose codes are interleaved
_ORDER = np.array([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
"""Order of the first sixteen keys of a block in its bytes; the other sixteen use the upper half of
the same bytes."""

_LISTS = 8
"""Maximum number of lists: more threads would wait for the same memory."""

_CIRCLE = 16.0
"""Radius of the circle of lists: neighbours have a squared distance of 150."""

_FINITE = 1e18  # squares of larger keys overflow float32
_TINY = 1e-18  # squares of smaller keys underflow
_FINEST = 2.0**40  # maximum steps per unit, so that entries of such keys are finite

_NO_SQUARES, _NO_ROWS = np.empty(0, np.float32), np.empty(0, np.int64)


class FourBits:
    """Exact range search over sketches of four bits per entry, up to a limit of 65,535 steps.

    Attributes:
        dims: Number of entries.
        ntotal: Number of keys.

    Args:
        faiss: The module.
        sketch: The directions to keep.
        keys: ``(n, d)`` float32, at least one, to fit the scale to. They are not added.
        shared: Number of keys above which several threads scan them for one query.
    """

    def __init__(self, faiss: Any, sketch: Sketch, keys: Vectors, *, shared: int = SHARED) -> None:
        assert sketch.basis is not None
        self._faiss = faiss
        dims = self.dims = sketch.dims
        noise = np.random.default_rng(0).standard_normal((dims, dims))
        turned = sketch.basis @ np.linalg.qr(noise).Q
        self._skew = float(np.linalg.norm(turned.T @ turned - np.eye(dims)))
        spread = float(np.sqrt(np.square((sample_of(keys) - sketch.center) @ turned).mean()))
        self._scale = min(1 / (_STEP * spread), _FINEST) if spread else 1.0
        # The scale is part of the map, which saves an operation per query.
        self._map: Vectors = np.zeros((len(turned), dims + 2), np.float32)
        self._map[:, :dims] = turned * self._scale
        self._center: Vectors = sketch.center.astype(np.float32)
        self._rounding = 0.0
        # Largest distance of a key from the centre.
        self._farthest = 0.0 if float(np.linalg.norm(sketch.center)) < _FINITE else math.inf
        self._tail = np.empty((0, dims), np.uint8)  # codes of the last block, while it has room
        self._shared = shared
        angles = 2 * np.pi * np.arange(min(faiss.omp_get_max_threads(), _LISTS)) / _LISTS
        self._lists = (_CIRCLE * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)
        self._index = self._new_index()
        self._probed = self._index.nprobe
        self.ntotal = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and row numbers."""
        return self.ntotal * (int(self._index.code_size) + 8)

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``, ``(n, d)`` float32."""
        if not len(keys):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            moved: Vectors = keys - self._center
            farthest = math.sqrt(float(np.einsum("nd,nd->n", moved, moved).max(initial=0.0)))
            exact = moved @ self._map[:, : self.dims]
            _clip(exact)
            codes = (exact + _LARGEST).astype(np.uint8)
        np.minimum(codes, 15, out=codes)
        exact -= codes
        exact += _LARGEST - 0.5
        rounded = math.sqrt(float(np.einsum("nd,nd->n", exact, exact).max(initial=0.0)))
        self._rounding = max(self._rounding, rounded * (1 + 2.0**-10))
        # Infinite if a key is too large: from then on every row is measured.
        self._farthest = max(self._farthest, farthest if farthest < _FINITE else math.inf)
        self._append(codes)

    def _append(self, codes: npt.NDArray[np.uint8]) -> None:
        # Not with FAISS's own functions: encoding a key takes them 50 microseconds, and adding
        # codes to existing ones writes out of bounds.
        faiss, start = self._faiss, self.ntotal
        end = start + len(codes)
        codes = np.concatenate([self._tail, codes])
        self._tail = codes[len(codes) - end % _TOGETHER :].copy()
        packed = _packed(codes, self.dims + 2)
        lists = faiss.downcast_InvertedLists(self._index.invlists)
        first, last, count = start // _TOGETHER, -(-end // _TOGETHER), len(self._lists)
        for at in range(
            min(count, last)
        ):  # distributed in blocks, so that only the last one has room
            new = np.arange(first + (at - first) % count, last, count)
            blocks = len(range(at, last, count))
            old = blocks - len(new)
            numbers = (new[:, None] * _TOGETHER + np.arange(_TOGETHER)).ravel()
            numbers = numbers[numbers < end]
            lists.resize(at, old * _TOGETHER + len(numbers))
            stored = faiss.rev_swig_ptr(lists.get_codes(at), blocks * packed.shape[1])
            stored.reshape(blocks, -1)[old:] = packed[new - first]
            places = faiss.rev_swig_ptr(lists.get_ids(at), old * _TOGETHER + len(numbers))
            places[old * _TOGETHER :] = numbers
        self.ntotal = self._index.ntotal = end

    def asked(self, queries: Vectors, reach: float) -> tuple[Vectors, list[Bound]]:
        """Returns the sketches of queries, and for each the limit of the search.

        Args:
            queries: ``(b, d)`` float32, finite.
            reach: Largest distance of interest, L2; finite and not negative.
        """
        # Here and below without overflow checks, which would cost as much as the steps themselves.
        if not float(np.vdot(queries, queries)) < _FINITE**2 or self._farthest == math.inf:
            every = Bound(math.inf, 0.0, 0.0, self._scale)
            return np.zeros((len(queries), self.dims + 2), np.float32), [every] * len(queries)
        moved = queries - self._center
        sketches = np.dot(moved, self._map)
        _clip(sketches)
        bounds = [
            self._bound(float(np.dot(one, one)), float(np.dot(sketch, sketch)), reach)
            for one, sketch in zip(moved, sketches, strict=True)
        ]
        return sketches, bounds

    def range_search(self, sketches: Vectors, limit: float) -> tuple[Ints, Vectors, Ints]:
        """Returns the offsets of each query's rows, their squares, and their positions."""
        lists = len(self._lists)
        if self.ntotal < self._shared or len(sketches) >= lists:
            return self._within(sketches, limit, lists)
        asked = np.repeat(sketches, lists, axis=0)
        asked[:, self.dims :] = np.tile(self._lists, (len(sketches), 1))
        ends, squares, positions = self._within(asked, limit + _CIRCLE**2, 1)
        return ends[::lists], squares - np.float32(_CIRCLE**2), positions

    def _within(self, asked: Vectors, limit: float, lists: int) -> tuple[Ints, Vectors, Ints]:
        # Bypasses FAISS's Python wrapper, which takes as long as the search while a model runs;
        # mostly nothing is found.
        faiss, count = self._faiss, len(asked)
        if self._probed != lists:
            self._probed = self._index.nprobe = lists
        found = faiss.RangeSearchResult(count)
        self._index.range_search_c(count, faiss.swig_ptr(asked), limit, found)
        ends = faiss.rev_swig_ptr(found.lims, count + 1).astype(np.int64)
        rows = int(ends[-1])
        if not rows:
            return ends, _NO_SQUARES, _NO_ROWS
        squares = faiss.rev_swig_ptr(found.distances, rows).copy()
        return ends, squares, faiss.rev_swig_ptr(found.labels, rows).copy()

    def _bound(self, square: float, short: float, reach: float) -> Bound:
        """Returns the bound of a query; see the module.

        Args:
            square: Square of the query's distance to the centre (``N``), summed in float32.
            short: Square of its sketch's length (``Y``), likewise.
            reach: Largest distance of interest.
        """
        dims, width = self.dims, len(self._center)
        length = math.sqrt(square) * (1 + 2.0**-10)
        if length > (self._farthest + reach) * (1 + 2.0**-9) + _TINY:
            return Bound(-1.0, 0.0, 0.0, self._scale)  # no key is as far out
        short = math.sqrt(short) * (1 + 2.0**-10)
        radius = (reach * (1 + 2.0**-22) + 2.0**-149) * self._scale  # s R'
        arithmetic = self._skew + (width + 8) * math.sqrt(dims) * 2.0**-23  # w
        drift = self._rounding + arithmetic * (2 * self._scale * length + radius)  # e
        most = math.sqrt(dims) * (_LARGEST - 0.5)  # length of a row's sketch
        spans = short * short + 2 * most * short + most * most
        step = max((2 * _LARGEST - 0.5) ** 2 / 255, spans / 65535)
        # float32 rounding as in `Sketch.bound`.
        noise = (dims / 2 + 2) * step + (dims + 16) * 2.0**-23 * (short + most) ** 2
        limit = ((radius + drift) * (radius + drift) + noise) * (1 + 2.0**-20)
        return Bound(limit if limit < largest(dims) else math.inf, noise, drift, self._scale)

    def _new_index(self) -> Any:
        """Returns an empty index; FAISS's fast scan without lists has no range search."""
        faiss, dims = self._faiss, self.dims + 2
        centers = faiss.IndexFlatL2(dims)
        at = np.zeros((len(self._lists), dims), np.float32)
        at[:, -2:] = self._lists
        centers.add(at)
        index = faiss.IndexIVFPQFastScan(centers, dims, len(at), dims, 4, faiss.METRIC_L2)
        index.by_residual = False
        values = np.zeros((dims, 16), np.float32)
        values[:-2] = np.arange(16) - (_LARGEST - 0.5)
        faiss.copy_array_to_vector(values.ravel(), index.pq.centroids)
        index.is_trained = True
        return index


def largest(dims: int) -> float:
    """Returns the largest limit that fits in the tables' 16 bits for any query."""
    return 65000 * max(56 / 255, 56 * dims / 65535)


def _clip(sketches: Vectors) -> None:
    # np.clip takes five times as long for one query.
    np.minimum(sketches, _LARGEST, out=sketches)
    np.maximum(sketches, -_LARGEST, out=sketches)


def _packed(codes: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    """Returns codes ``(n, p)`` in the layout of FAISS's fast scan, ``(blocks, 16 width)`` bytes.

    A block holds 32 keys. It has 16 bytes per entry, including those beyond ``p``: the codes of the
    first 16 keys in the lower halves, those of the others in the upper halves. The number of
    entries is even.
    """
    count, dims = codes.shape
    blocks = -(-count // _TOGETHER)
    padded = np.zeros((blocks * _TOGETHER, width + width % 2), np.uint8)
    padded[:count, :dims] = codes
    shaped = padded.reshape(blocks, 2, 16, -1)[:, :, _ORDER]
    both = shaped[:, 0] | shaped[:, 1] << 4  # (blocks, 16, width)
    return np.ascontiguousarray(both.transpose(0, 2, 1)).reshape(blocks, -1)
