"""The table of keys behind a codebook: which row fires for a query, in any view.

A row is a key that arrived; its number is given once and never again. A *view* is one radius a row,
negative for rows that are not in it, so a past version needs no index of its own. The decision for
a query ``q`` in a view ``eps``:

    among rows i that live, with eps_i >= 0 and distances(k_i, q) <= eps_i:
    the one at the smallest distance; of equal distances the largest row number; of none, -1

Radii differ, so the nearest row of all need not be it. The decision is a function of keys, radii
and query only: a backend narrows down where to look, ``distances()`` on the host's copy decides.

Cost of a lookup: one pass over the view's radii for the largest, one proposal by the backend for
that reach, and a measurement of every proposed row whose lower bound is within its own radius and
not beyond the best hit so far. Whatever the keys, the worst case is measuring them all; what leads
there is said in the backends' modules.
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
"""Rows up to which all are measured: no index would be faster."""

DEAD_SHARE = 0.25
"""Share of dead rows from which they are cleared away."""

_BATCH = 16
"""Queries proposed for at a time: where everything is a candidate, each holds the whole table.

From 20 queries on FAISS would take its BLAS path, which is right but no faster in few dimensions.
"""

_FEW = 0.05  # share of the keys that are measured as fast as all are multiplied
_FIRST_CAPACITY = 256
_SAMPLED = 1024
_FARTHEST = 1e30  # a reach beyond it says that all rows are wanted


class KeyTable:
    """Append-only keys with stable row numbers. Safe for threads: calls take turns.

    Args:
        width: Width ``d`` of a key.
        backend: ``faiss``, ``faiss-gpu`` or ``torch``; None picks, see ``open_backend``. An empty
            ``IndexBackend`` serves as well. Opened only when the rows are too many to measure all.
        device: Torch's name of the device for the backend; None is the CPU.

    Raises:
        ImportError: The backend named is not installed.
        RuntimeError: ``faiss-gpu`` where there is no GPU.
        ValueError: No backend of that name.
    """

    def __init__(
        self, width: int, *, backend: str | IndexBackend | None = None, device: str | None = None
    ) -> None:
        self.width = width
        self._asked = backend
        self._device = device
        self._backend: IndexBackend | None = None
        if isinstance(backend, str):
            open_backend(backend, device)  # what is missing should be said now, not at row 129
        self._lock = threading.RLock()
        self._handed_out = 0
        self._stored = 0  # positions in use; the dead among them wait to be cleared away
        self._dead = 0
        self._keys = np.empty((0, width), np.float32)  # (capacity, d), by position
        self._rows = np.empty(0, np.int64)  # (capacity,), row number by position, ascending
        self._lives = np.empty(0, bool)  # (capacity,)

    def __len__(self) -> int:
        """Number of row numbers handed out, dead rows included."""
        return self._handed_out

    @property
    def living(self) -> int:
        """Number of rows that live."""
        return self._stored - self._dead

    @property
    def backend(self) -> str | None:
        """Name of the backend in use; None while every row is measured."""
        return None if self._backend is None else self._backend.name

    @property
    def nbytes(self) -> int:
        """Bytes of the host's copy of keys, row numbers and marks."""
        return self._keys.nbytes + self._rows.nbytes + self._lives.nbytes

    @property
    def index_nbytes(self) -> int:
        """Bytes that the backend holds beside it."""
        return 0 if self._backend is None else self._backend.nbytes

    def add(self, keys: Vectors) -> range:
        """Appends keys and returns their row numbers.

        Args:
            keys: ``(n, d)`` float32.

        Raises:
            ValueError: Another shape, or a key that is not finite.
        """
        with self._lock:
            first, start = self._handed_out, self._stored
            self._append(self._checked(keys))
            self._index_from(start)
            return range(first, self._handed_out)

    def extend(self, parts: Iterable[Vectors], count: int) -> range:
        """Appends keys that come in parts, without holding them all a second time; see ``add``.

        Args:
            parts: ``(n, d)`` float32 each. A part that is refused leaves those before it.
            count: Number of keys in all.
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
        """Makes an array the table's own instead of copying it; see ``add``.

        Args:
            keys: ``(at least count, d)`` float32, keys in its first rows, the others room to grow.
                Must not be written to from now on.
            count: Number of keys.

        Raises:
            ValueError: Another shape, a key that is not finite, or the table is not empty.
        """
        with self._lock:
            if self._handed_out:
                raise ValueError("only an empty table takes over an array")
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
        """Brings the backend up to date after rows were appended."""
        if self._backend is not None and self._stored > start:
            self._backend.add(self._keys[start : self._stored])
            if self._backend.is_stale:
                self._backend.build(self._keys[: self._stored])
        elif self._backend is None and self._stored > DIRECT_ROWS:
            self._open()

    def kill(self, rows: Sequence[int] | Ints) -> None:
        """Takes rows out for good; dead rows are left as they are.

        Their keys are cleared away once dead rows are ``DEAD_SHARE`` of those stored.

        Raises:
            ValueError: A number that was never handed out.
        """
        with self._lock:
            wanted = np.unique(np.asarray(rows, np.int64))
            if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self._handed_out:
                raise ValueError(f"rows {wanted} among {self._handed_out} handed out")
            positions = self._positions(wanted)
            positions = positions[positions >= 0]
            self._lives[positions] = False
            self._dead += len(positions)
            if self._dead and self._dead >= DEAD_SHARE * self._stored:
                self._compact()

    def keys_of(self, rows: Sequence[int] | Ints) -> Vectors:
        """Returns a copy of the keys of rows, ``(n, d)`` float32.

        Raises:
            ValueError: A row that does not live.
        """
        with self._lock:
            wanted = np.asarray(rows, np.int64)
            positions = self._positions(wanted)
            if (positions < 0).any():
                raise ValueError(f"rows {wanted[positions < 0]} do not live in this table")
            return self._keys[positions]

    def select(self, queries: Vectors, radii: Vectors, *, reach: float | None = None) -> Ints:
        """Returns the row that fires for each query, -1 for none.

        Args:
            queries: ``(b, d)`` float32. A query that is not finite fires nothing.
            radii: ``(n,)`` float32, the view: L2 radius by row number, negative (or NaN) where the
                row is not in it. Rows beyond its end are not in it.
            reach: The largest of them, where it is known: a view is asked many times.

        Returns:
            ``(b,)`` int64 row numbers.

        Raises:
            ValueError: Another shape, or more radii than row numbers.
        """
        queries = self._checked(queries)
        chosen = np.full(len(queries), -1, np.int64)
        with self._lock:
            radii = self._checked_view(np.asarray(radii, np.float32))
            reach = _largest(radii) if reach is None else reach
            if reach < 0 or not self.living:
                return chosen
            usable = [*range(len(queries))]
            # Their squares' sum tells in one step, unless it is itself too large.
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
        """Returns the ``k`` nearest rows of a view, whether or not their balls hold the query.

        Slower than ``select``: the reach is not known and has to be found from a sample.

        Args:
            query: ``(d,)`` float32.
            k: Rows wanted; fewer come back from a smaller view, none for a query not finite.
            radii: The view, as for ``select``.

        Returns:
            Row numbers int64 and distances float32, by distance and then newest first.

        Raises:
            ValueError: Another shape, or more radii than row numbers.
        """
        query = self._checked([query])[0]
        with self._lock:
            radii = self._checked_view(np.asarray(radii, np.float32))
            view = np.flatnonzero(self._radii_at(np.arange(self._stored), radii) >= 0)
            if k < 1 or not len(view) or not np.isfinite(query).all():
                return np.empty(0, np.int64), np.empty(0, np.float32)
            candidates = ALL
            if len(view) > max(k, DIRECT_ROWS):
                # Any k rows of the view tell how far away the k nearest can be at most.
                sample = view[:: max(1, len(view) // max(k, _SAMPLED))]
                found = distances(self._keys[sample], query)
                candidates = self._propose(query[None], float(np.partition(found, k - 1)[k - 1]))[0]
            return self._nearest(query, candidates, radii, min(k, len(view)), is_inside=False)

    def around(self, query: Vectors, k: int, radii: Vectors, reach: float) -> tuple[Ints, Vectors]:
        """Returns the ``k`` nearest rows of a view within reach of a query, of unit-length keys.

        Where the index proposes few rows, those are measured. Else every key is looked at once, by
        its inner product: faster than bounds where many are about as near, and rows that are
        equally far to seven digits may be taken for each other.

        Args:
            query: ``(d,)`` float32 of unit length.
            k: Rows wanted; fewer come back where fewer are within reach.
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
        """Returns every living row within reach of a query, in order of row number.

        Args:
            query: ``(d,)`` float32; none is within reach of one that is not finite.
            reach: Largest L2 distance: one for all, or ``(n,)`` by row number (negative or NaN:
                never; rows beyond its end: never). Compared in float64.

        Returns:
            Row numbers int64 and distances float32.

        Raises:
            ValueError: Another shape, or more reaches than row numbers.
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
        """The ``k`` nearest rows of the view; ``is_inside`` asks that their balls hold the query.

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
            # A row that was not proposed may be as near: nothing is left but all of them.
            positions, lower, rest = np.arange(self._stored), np.zeros(self._stored), np.inf
        return self._rows[found], far

    def _radii_at(self, positions: Ints, radii: Any) -> Any:
        """Returns the radius at each position, -1 where the row is dead or not in the view."""
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
        """Returns the position of each row, -1 where it does not live."""
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
                f" (n, {self.width}) is wanted"
            )
        return found

    def _checked_view(self, radii: Any) -> Any:
        if radii.ndim != 1 or len(radii) > self._handed_out:
            raise ValueError(
                f"radii of shape {radii.shape} for a table of {self._handed_out} row numbers"
            )
        return radii


def _largest(radii: Any) -> float:
    """Returns the largest number, NaN left out; -1 for none."""
    largest = float(radii.max(initial=-1.0))
    return largest if largest == largest else float(np.fmax.reduce(radii, initial=-1.0))


def _check_finite(keys: Vectors) -> None:
    # The extremes tell, and unlike a mask they need no memory.
    if not np.isfinite([keys.min(initial=0), keys.max(initial=0)]).all():
        raise ValueError("a key holds NaN or infinity; no query can be near it")
