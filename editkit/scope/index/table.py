"""The table of keys behind a codebook: decides which row fires for a query, in any view.

A row is an added key; its number is never reused. A *view* is one radius per row, negative for rows
that are not in it, so a past version needs no index of its own. The decision for a query ``q`` in a
view ``eps``:

    among live rows i with eps_i >= 0 and distances(k_i, q) <= eps_i:
    the one at the smallest distance; at equal distance the largest row number; -1 if there is none

Radii differ, so it need not be the nearest row overall. The decision depends only on keys, radii
and query: a backend narrows down the candidates, ``distances()`` on the host's copy decides.

Cost of a lookup: one pass over the view's radii for the largest, one proposal by the backend for
that reach, and a measurement of every proposed row whose lower bound is within its own radius and
not beyond the best hit so far. The worst case is measuring all keys; the backends' modules describe
when that happens.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.scope.index.backends import open_backend
from editkit.scope.index.candidates import ALL, NONE, Candidates, IndexBackend
from editkit.scope.index.distance import Ints, Vectors, distances, nearest_of

__all__ = ["DEAD_SHARE", "DIRECT_ROWS", "KeyTable"]

DIRECT_ROWS = 128
"""Number of rows up to which all are measured: no index would be faster."""

DEAD_SHARE = 0.25
"""Fraction of dead rows at which they are removed."""

_BATCH = 16
"""Queries per proposal: in the worst case each has the whole table as candidates.

From 20 queries on FAISS would use its BLAS path, which is correct but no faster in few dimensions.
"""

_FEW = 0.05  # fraction of the keys that takes as long to measure as a product with all keys
_FIRST_CAPACITY = 256
_SAMPLED = 1024
_FARTHEST = 1e30  # a larger reach means all rows


class KeyTable:
    """Append-only keys with stable row numbers. Thread-safe: calls are serialized.

    Args:
        width: Width ``d`` of a key.
        backend: ``faiss``, ``faiss-gpu`` or ``torch``, or an empty ``IndexBackend``; None chooses
            one, see ``open_backend``. Opened only when there are too many rows to measure all.
        device: Torch name of the backend's device; None for the CPU.

    Raises:
        ImportError: The requested backend is not installed.
        RuntimeError: ``faiss-gpu`` was requested, but there is no GPU.
        ValueError: There is no such backend.
    """

    def __init__(
        self, width: int, *, backend: str | IndexBackend | None = None, device: str | None = None
    ) -> None:
        self.width = width
        self._asked = backend
        self._device = device
        self._backend: IndexBackend | None = None
        if isinstance(backend, str):
            open_backend(backend, device)  # a missing library should raise now, not at row 129
        self._lock = threading.RLock()
        self._handed_out = 0
        self._stored = 0  # positions in use, including dead rows not removed yet
        self._dead = 0
        self._keys = np.empty((0, width), np.float32)  # (capacity, d), by position
        self._rows = np.empty(0, np.int64)  # (capacity,), row number by position, ascending
        self._lives = np.empty(0, bool)  # (capacity,)

    def __len__(self) -> int:
        """Number of rows ever added, dead rows included."""
        return self._handed_out

    @property
    def living(self) -> int:
        """Number of live rows."""
        return self._stored - self._dead

    @property
    def backend(self) -> str | None:
        """Name of the backend in use; None while every row is measured."""
        return None if self._backend is None else self._backend.name

    @property
    def nbytes(self) -> int:
        """Bytes of the host's copy of keys, row numbers and flags."""
        return self._keys.nbytes + self._rows.nbytes + self._lives.nbytes

    @property
    def index_nbytes(self) -> int:
        """Bytes that the backend holds."""
        return 0 if self._backend is None else self._backend.nbytes

    def add(self, keys: Vectors) -> range:
        """Appends keys and returns their row numbers.

        Args:
            keys: ``(n, d)`` float32.

        Raises:
            ValueError: The shape is wrong, or a key is not finite.
        """
        with self._lock:
            first, start = self._handed_out, self._stored
            self._append(self._checked(keys))
            self._index_from(start)
            return range(first, self._handed_out)

    def extend(self, parts: Iterable[Vectors], count: int) -> range:
        """Appends keys in parts, without a second copy of all of them; see ``add``.

        Args:
            parts: ``(n, d)`` float32 each. If a part raises, those before it remain.
            count: Total number of keys.
        """
        with self._lock:
            first, start = self._handed_out, self._stored
            if start + count > len(self._keys):
                self._reserve(start + count)
            try:
                for part in parts:
                    self._append(self._checked(part))
            finally:
                self._index_from(start)
            return range(first, self._handed_out)

    def adopt(self, keys: Vectors, count: int) -> range:
        """Takes ownership of an array instead of copying it; see ``add``.

        Args:
            keys: ``(at least count, d)`` float32, with the keys in its first rows and room to grow.
                It must not be written to afterwards.
            count: Number of keys.

        Raises:
            ValueError: The shape is wrong, a key is not finite, or the table is not empty.
        """
        with self._lock:
            if self._handed_out:
                raise ValueError("only an empty table can adopt an array")
            _check_finite(self._checked(keys[:count]))
            self._keys = keys
            self._rows = np.empty(len(keys), np.int64)
            self._lives = np.empty(len(keys), bool)
            self._rows[:count] = np.arange(count)
            self._lives[:count] = True
            self._stored = self._handed_out = count
            self._index_from(0)
            return range(count)

    def _append(self, keys: Vectors) -> None:
        _check_finite(keys)
        first, start = self._handed_out, self._stored
        end = start + len(keys)
        if end > len(self._keys):
            self._reserve(max(end, 2 * start, _FIRST_CAPACITY))
        self._keys[start:end] = keys
        self._rows[start:end] = np.arange(first, first + len(keys))
        self._lives[start:end] = True
        self._stored, self._handed_out = end, first + len(keys)

    def _index_from(self, start: int) -> None:
        """Updates the backend after rows were appended."""
        if self._backend is not None and self._stored > start:
            self._backend.add(self._keys[start : self._stored])
            if self._backend.is_stale:
                self._backend.build(self._keys[: self._stored])
        elif self._backend is None and self._stored > DIRECT_ROWS:
            self._open()

    def kill(self, rows: Sequence[int] | Ints) -> None:
        """Removes rows; dead rows are ignored.

        Their keys are freed once dead rows are ``DEAD_SHARE`` of those stored.

        Raises:
            ValueError: A row number does not exist.
        """
        with self._lock:
            wanted = np.unique(np.asarray(rows, np.int64))
            if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self._handed_out:
                raise ValueError(f"rows {wanted} are not among the {self._handed_out} that exist")
            positions = self._positions(wanted)
            positions = positions[positions >= 0]
            self._lives[positions] = False
            self._dead += len(positions)
            if self._dead and self._dead >= DEAD_SHARE * self._stored:
                self._compact()

    def keys_of(self, rows: Sequence[int] | Ints) -> Vectors:
        """Returns a copy of the keys of rows, ``(n, d)`` float32.

        Raises:
            ValueError: A row is dead or does not exist.
        """
        with self._lock:
            wanted = np.asarray(rows, np.int64)
            positions = self._positions(wanted)
            if (positions < 0).any():
                raise ValueError(f"rows {wanted[positions < 0]} are not live in this table")
            return self._keys[positions]

    def select(self, queries: Vectors, radii: Vectors, *, reach: float | None = None) -> Ints:
        """Returns the row that fires for each query, -1 for none.

        Args:
            queries: ``(b, d)`` float32. Nothing fires for a query that is not finite.
            radii: ``(n,)`` float32, the view: L2 radius by row number, negative (or NaN) where the
                row is not in it. Rows beyond its end are not in it.
            reach: The largest radius, if known, to save time on repeated calls.

        Returns:
            ``(b,)`` int64 row numbers.

        Raises:
            ValueError: The shape is wrong, or there are more radii than rows.
        """
        queries = self._checked(queries)
        chosen = np.full(len(queries), -1, np.int64)
        with self._lock:
            radii = self._checked_view(np.asarray(radii, np.float32))
            reach = _largest(radii) if reach is None else reach
            if reach < 0 or not self.living:
                return chosen
            usable = [*range(len(queries))]
            # One check for all queries, unless the sum of squares itself overflows.
            if not math.isfinite(np.vdot(queries, queries)):
                usable = [at for at in usable if np.isfinite(queries[at]).all()]
            for start in range(0, len(usable), _BATCH):
                batch = usable[start : start + _BATCH]
                asked = queries if len(batch) == len(queries) else queries[batch]
                for at, candidates in zip(batch, self._propose(asked, reach), strict=True):
                    if candidates is not NONE:
                        hit, _ = self._nearest(queries[at], candidates, radii, 1, is_inside=True)
                        if len(hit):
                            chosen[at] = hit[0]
        return chosen

    def nearest(self, query: Vectors, k: int, radii: Vectors) -> tuple[Ints, Vectors]:
        """Returns the ``k`` nearest rows of a view, whether or not their balls contain the query.

        Slower than ``select``: the reach is unknown and has to be estimated from a sample.

        Args:
            query: ``(d,)`` float32.
            k: Number of rows; fewer for a smaller view, none for a query that is not finite.
            radii: The view, as for ``select``.

        Returns:
            Row numbers int64 and distances float32, by distance and then newest first.

        Raises:
            ValueError: The shape is wrong, or there are more radii than rows.
        """
        query = self._checked([query])[0]
        with self._lock:
            radii = self._checked_view(np.asarray(radii, np.float32))
            view = np.flatnonzero(self._radii_at(np.arange(self._stored), radii) >= 0)
            if k < 1 or not len(view) or not np.isfinite(query).all():
                return np.empty(0, np.int64), np.empty(0, np.float32)
            candidates = ALL
            if len(view) > max(k, DIRECT_ROWS):
                # Any k rows of the view bound the distance of the k nearest.
                sample = view[:: max(1, len(view) // max(k, _SAMPLED))]
                found = distances(self._keys[sample], query)
                candidates = self._propose(query[None], float(np.partition(found, k - 1)[k - 1]))[0]
            return self._nearest(query, candidates, radii, min(k, len(view)), is_inside=False)

    def around(self, query: Vectors, k: int, radii: Vectors, reach: float) -> tuple[Ints, Vectors]:
        """Returns the ``k`` nearest rows of a view within reach of a query, for unit-length keys.

        If the index proposes few rows, those are measured. Otherwise the inner product with every
        key is computed, which is faster if many are about as near; rows whose distances agree to
        seven digits may then be confused.

        Args:
            query: ``(d,)`` float32 of unit length.
            k: Number of rows; fewer if fewer are within reach.
            radii: The view, as for ``select``.
            reach: Largest L2 distance.

        Returns:
            Row numbers int64 and distances float32, by distance and then newest first.
        """
        query = self._checked([query])[0]
        with self._lock:
            radii = self._checked_view(np.asarray(radii, np.float32))
            candidates = self._propose(query[None], reach)[0]
            if candidates.rest > reach and len(candidates.positions) < _FEW * self._stored:
                rows, apart = self._nearest(query, candidates, radii, k, is_inside=False)
            else:
                rows, apart = self._nearest_by_product(query, k, radii)
            return rows[apart <= reach], apart[apart <= reach]

    def _nearest_by_product(self, query: Vectors, k: int, radii: Vectors) -> tuple[Ints, Vectors]:
        cosines = self._keys[: self._stored] @ query
        inside = self._radii_at(np.arange(self._stored), radii) >= 0
        cosines[~inside] = -np.inf
        count = min(k, int(inside.sum()))
        found = np.argpartition(-cosines, count - 1)[:count] if count > 0 else np.empty(0, int)
        apart = distances(self._keys[found], query)
        order = np.lexsort((-found, apart))
        return self._rows[found[order]], apart[order]

    def within(self, query: Vectors, reach: npt.ArrayLike) -> tuple[Ints, Vectors]:
        """Returns every live row within reach of a query, in order of row number.

        Args:
            query: ``(d,)`` float32; no row is within reach of one that is not finite.
            reach: Largest L2 distance: one for all, or ``(n,)`` by row number; rows with a negative
                one or NaN, or beyond its end, are left out. Compared in float64.

        Returns:
            Row numbers int64 and distances float32.

        Raises:
            ValueError: The shape is wrong, or there are more reaches than rows.
        """
        query = self._checked([query])[0]
        with self._lock:
            reaches = np.asarray(reach, np.float64)
            if not reaches.ndim:
                reaches = np.full(self._handed_out, reaches)
            farthest = _largest(self._checked_view(reaches))
            if farthest < 0 or not self.living or not np.isfinite(query).all():
                return np.empty(0, np.int64), np.empty(0, np.float32)
            candidates = self._propose(query[None], farthest)[0]
            positions, lower = candidates.positions, candidates.lower
            if candidates.rest <= farthest:
                positions, lower = np.arange(self._stored), np.zeros(self._stored)
            allowed = self._radii_at(positions, reaches)
            positions = np.sort(positions[(allowed >= 0) & (lower <= allowed)])
            found = distances(self._keys[positions], query)
            hits = found <= self._radii_at(positions, reaches)
            return self._rows[positions[hits]], found[hits]

    def _propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        if self._backend is None or reach > _FARTHEST:
            return [ALL] * len(queries)
        return self._backend.propose(queries, reach)

    def _nearest(
        self, query: Vectors, candidates: Candidates, radii: Vectors, k: int, *, is_inside: bool
    ) -> tuple[Ints, Vectors]:
        """Returns the ``k`` nearest rows; with ``is_inside`` only if their balls contain the query.

        The candidates hold every row within the reach or within ``candidates.rest``.
        """
        positions, lower, rest = candidates.positions, candidates.lower, candidates.rest
        for _ in range(2):
            found, far = nearest_of(
                self._keys,
                query,
                positions,
                lower,
                self._radii_at(positions, radii),
                k,
                is_inside=is_inside,
            )
            if rest == np.inf or (len(far) == k and far[-1] < rest):
                break
            # A row that was not proposed may be as near: measure all of them.
            positions, lower, rest = np.arange(self._stored), np.zeros(self._stored), np.inf
        return self._rows[found], far

    def _radii_at(self, positions: Ints, radii: Any) -> Any:
        """Returns the radius at each position, -1 if the row is dead or not in the view."""
        rows = self._rows[positions]
        if len(radii) < self._handed_out:
            known = rows < len(radii)
            found = np.full(len(rows), -1, radii.dtype)
            found[known] = radii[rows[known]]
        else:
            found = radii[rows]
        if self._dead:
            found[~self._lives[positions]] = -1
        return found

    def _positions(self, rows: Ints) -> Ints:
        """Returns the position of each row, -1 if it is not live."""
        stored = self._rows[: self._stored]
        if not len(stored):
            return np.full(rows.shape, -1, np.int64)
        found = np.minimum(np.searchsorted(stored, rows), len(stored) - 1)
        return np.where((stored[found] == rows) & self._lives[found], found, -1)

    def _reserve(self, capacity: int) -> None:
        for name in ("_keys", "_rows", "_lives"):
            old = getattr(self, name)
            grown = np.empty((capacity, *old.shape[1:]), old.dtype)
            grown[: self._stored] = old[: self._stored]
            setattr(self, name, grown)

    def _compact(self) -> None:
        kept = np.flatnonzero(self._lives[: self._stored])
        self._keys, self._rows = self._keys[kept], self._rows[kept]
        self._lives = np.ones(len(kept), bool)
        self._stored, self._dead = len(kept), 0
        if self._stored > DIRECT_ROWS:
            self._open()
        else:
            self._backend = None

    def _open(self) -> None:
        backend = self._backend or self._new_backend()
        backend.build(self._keys[: self._stored])
        self._backend = backend

    def _new_backend(self) -> IndexBackend:
        if self._asked is None or isinstance(self._asked, str):
            return open_backend(self._asked, self._device)
        return self._asked

    def _checked(self, vectors: npt.ArrayLike) -> Vectors:
        found = np.asarray(vectors, np.float32)
        if found.ndim != 2 or found.shape[1] != self.width:
            raise ValueError(
                f"vectors of shape {found.shape} for a table of width {self.width}:"
                f" expected (n, {self.width})"
            )
        return found

    def _checked_view(self, radii: Any) -> Any:
        if radii.ndim != 1 or len(radii) > self._handed_out:
            raise ValueError(f"radii of shape {radii.shape} for a table of {self._handed_out} rows")
        return radii


def _largest(radii: Any) -> float:
    """Returns the largest number, ignoring NaN; -1 if there is none."""
    largest = float(radii.max(initial=-1.0))
    return largest if largest == largest else float(np.fmax.reduce(radii, initial=-1.0))


def _check_finite(keys: Vectors) -> None:
    # Checks only the extremes, which needs no mask in memory.
    if not np.isfinite([keys.min(initial=0), keys.max(initial=0)]).all():
        raise ValueError("a key contains NaN or infinity, so no query can be near it")
