"""Everything that GRACE has learned on one model at one site, and the codebook of any view.

A row holds the key, value, initial radius and target of one edit. Rows are append-only, and a view
of the history (any version) is just a radius for each of its rows: the fold of its edits, oldest
first. So all versions share one index, and going to another version costs one array.

Folding under rule ``disjoint`` does not need the keys. Which rows can ever meet is known when a row
is added: those with another target whose initial balls reach each other. These *conflicts*, with
their distances, are stored with the artifacts, and ``radii`` derives from them what
``codebook.fold`` computes row by row. Rule ``paper`` depends on the order of the edits and on rows
that grow, so a view with such an edit is folded row by row.

Uses only numpy: comparing two versions must not load a deep-learning framework.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from editkit.config import Replacement
from editkit.methods.grace.codebook import fold
from editkit.methods.grace.payload import GracePayload
from editkit.methods.grace.radii import give_way
from editkit.scope.index import KeyTable

__all__ = ["Memory"]

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


_PART = 1024  # keys added to the table at a time: a few megabytes


class Memory:
    """Rows learned on one model at one site. Several threads may append and read.

    Args:
        backend: Index behind the keys; see ``KeyTable``.
        device: Torch name of the index's device; None for the CPU.
    """

    def __init__(self, *, backend: str | None = None, device: str | None = None) -> None:
        self._asked = backend, device
        self._table: KeyTable | None = None
        self._pending: list[Vectors] = []  # keys not yet in the table
        self._adopted: tuple[Vectors, int] | None = None  # the first of them, and their number
        self._filling = threading.Lock()
        self._widths: tuple[int, int] | None = None  # of keys and of values
        self._radii = np.zeros(0, np.float32)  # (capacity,), initial
        self._targets = np.zeros(0, np.int64)  # (capacity,), equal for equal targets
        self._target_numbers: dict[tuple[int, ...], int] = {}
        self._payloads: list[GracePayload] = []
        self._rows: dict[str, int] = {}
        self._sequential: set[int] = set()  # rows under rule `paper`
        self._yields = np.zeros(0, np.bool_)  # (capacity,), not under rule `nearest`
        self._first: list[int] = []  # conflicts: a row, an earlier row, their distance
        self._second: list[int] = []
        self._apart: list[float] = []
        self._spans: list[tuple[int, int]] = []  # where the conflicts of each row are

    def __len__(self) -> int:
        """Number of rows ever appended."""
        return len(self._payloads)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._rows

    @property
    def table(self) -> KeyTable:
        """The index of the keys.

        Raises:
            LookupError: Nothing was learned yet.
        """
        if self._widths is None:
            raise LookupError("no key was learned yet")
        # Built on first use: comparing versions needs radii, but no index.
        with self._filling:
            if self._table is None:
                backend, device = self._asked
                self._table = KeyTable(self._widths[0], backend=backend, device=device)
                if self._adopted is not None:
                    self._table.adopt(*self._adopted)
                    self._adopted = None
            if self._pending:
                starts = range(0, len(self._pending), _PART)
                parts = (np.stack(self._pending[at : at + _PART]) for at in starts)
                self._table.extend(parts, len(self._pending))
                self._pending.clear()
        return self._table

    @property
    def is_ordered(self) -> bool:
        """Whether the fold of a view may depend on the order of its edits: rule ``paper``."""
        return bool(self._sequential)

    def rows(self, edit_ids: Iterable[str]) -> Ints:
        """Returns the rows of edits, in order; edits that were not learned are left out."""
        return np.array([self._rows[e] for e in edit_ids if e in self._rows], np.int64)

    def row(self, edit_id: str) -> int:
        """Returns the row of an edit.

        Raises:
            KeyError: The edit was not learned here.
        """
        return self._rows[edit_id]

    def payload(self, row: int) -> GracePayload:
        """Returns the payload of a row's owner."""
        return self._payloads[row]

    def edit_id(self, row: int) -> str:
        """Returns the edit that owns a row."""
        return self._payloads[row].entry.edit_id

    def key(self, row: int) -> Vectors:
        """Returns the key of a row, ``(d,)`` float32."""
        return self._payloads[row].entry.key

    def target(self, row: int) -> tuple[int, ...]:
        """Returns the tokens of a row's target."""
        return self._payloads[row].entry.target

    def is_confirmed(self, row: int) -> bool:
        """Returns whether prompts within a row's radius are confirmed; see ``scope.confirm``."""
        payload = self._payloads[row]
        return payload.key != "state" and payload.is_confirmed

    def replacement(self, row: int) -> Replacement:
        """Returns the positions that a row's value replaces."""
        return self._payloads[row].replacement

    def distance(self, row: int, query: Vectors) -> float:
        """Returns the L2 distance from a query ``(d,)`` to the key of a row."""
        return float(np.linalg.norm(query - self._payloads[row].entry.key))

    def values(self, rows: Sequence[int]) -> Vectors:
        """Returns the values of rows, ``(n, m)`` float32."""
        return np.stack([self._payloads[row].value for row in rows])

    def keys(self, rows: Ints) -> Vectors:
        """Returns the keys of rows, ``(n, d)`` float32."""
        return np.stack([self._payloads[row].entry.key for row in rows.tolist()])

    def initial(self, rows: Ints) -> Vectors:
        """Returns the initial radii of rows, ``(n,)`` float32, L2."""
        return self._radii[rows]

    def pairs(self, rows: Ints) -> npt.NDArray[np.float64]:
        """Returns the conflicts among rows: ``(n, 3)``, a row, another, and their distance."""
        inside = set(rows.tolist())
        found = zip(self._first, self._second, self._apart, strict=True)
        kept = [(a, b, apart) for a, b, apart in found if a in inside and b in inside]
        return np.array(kept, np.float64).reshape(-1, 3)

    def conflicts(self, row: int) -> dict[str, float]:
        """Returns the earlier edits that a row conflicts with, and the distances of their keys."""
        span = slice(*self._spans[row])
        return {
            self.edit_id(other): apart
            for other, apart in zip(self._second[span], self._apart[span], strict=True)
        }

    def put(
        self,
        payloads: Sequence[GracePayload],
        conflicts: Sequence[Mapping[str, float] | None] | None = None,
        *,
        keys: Vectors | None = None,
    ) -> range:
        """Appends rows; an older row of the same edit is removed.

        Args:
            payloads: Payloads of edits, all at one site.
            conflicts: For each its conflicts with earlier rows, as from ``conflicts``; None if they
                are not known and have to be searched for.
            keys: ``(at least n, d)`` float32, an array with the payloads' keys in its first rows,
                if there is one: the first keys of a memory are then not copied. It must not be
                written to afterwards; extra rows are room to grow.

        Returns:
            The row numbers.

        Raises:
            ValueError: Keys or values have another width.
        """
        if not payloads:
            return range(len(self), len(self))
        for payload in payloads:
            widths = (len(payload.entry.key), len(payload.value))
            self._widths = self._widths or widths
            if widths != self._widths:
                raise ValueError(f"widths of key and value are {widths}, not {self._widths}")
        start, end = len(self), len(self) + len(payloads)
        self._reserve(end)
        self._radii[start:end] = [payload.entry.radius for payload in payloads]
        self._targets[start:end] = [self._target(payload.entry.target) for payload in payloads]
        self._yields[start:end] = [payload.entry.rule != "nearest" for payload in payloads]
        if keys is None or start:
            self._pending += [payload.entry.key for payload in payloads]
        else:
            self._adopted = keys, len(payloads)
        known = conflicts or [None] * len(payloads)
        for row, payload in enumerate(payloads, start):
            self._payloads.append(payload)
            edit_id = payload.entry.edit_id
            if edit_id in self._rows:
                self.table.kill([self._rows[edit_id]])
            self._rows[edit_id] = row
            if payload.entry.rule == "paper":
                self._sequential.add(row)
        # An edit that was learned again may conflict with a newer one in the history, and so may
        # an imported one, whose conflicts are unknown. Each pair of those is compared once.
        compared = np.ones(end, bool)
        compared[[row for row, found in enumerate(known, start) if found is None]] = False
        for row, found in enumerate(known, start):
            if found is None:
                others, apart = self._meeting(row, compared)
                compared[row] = True
            else:
                pairs = [(self._rows[e], d) for e, d in found.items() if e in self._rows]
                others, apart = [o for o, _ in pairs], [d for _, d in pairs]
            self._spans.append((len(self._second), len(self._second) + len(others)))
            self._first += [row] * len(others)
            self._second += others
            self._apart += apart
        return range(start, end)

    def discard(self, edit_id: str) -> None:
        """Removes the row of an edit, e.g. of one that did not verify."""
        row = self._rows.pop(edit_id, None)
        if row is not None:
            self.table.kill([row])

    def radii(self, rows: Ints) -> Vectors:
        """Returns the codebook of a view: L2 radii by row, ``(n,)`` float32, -1 for other rows.

        Args:
            rows: The view's edits, oldest first if ``is_ordered``, else in any order.
        """
        found = np.full(len(self), -1, np.float32)
        if self._sequential and not self._sequential.isdisjoint(rows.tolist()):
            for row, radius in self._folded(rows).items():
                found[row] = radius
            return found
        found[rows] = self._radii[rows]
        give_way(found, self._first, self._second, self._apart)
        return found

    def _folded(self, rows: Ints) -> dict[int, float]:
        book = fold(self._payloads[row].entry for row in rows.tolist())
        return {self._rows[edit_id]: radius for edit_id, radius in book.radii.items()}

    def _meeting(self, row: int, among: npt.NDArray[np.bool_]) -> tuple[list[int], list[float]]:
        """Returns live rows with another target whose initial balls reach that of a row.

        Args:
            row: The row.
            among: ``(n,)`` bool, by row: whether to consider it.
        """
        count = len(among)
        if not self._yields[row]:
            return [], []
        reach = np.where(
            among & self._yields[:count] & (self._targets[:count] != self._targets[row]),
            self._radii[:count].astype(np.float64) + float(self._radii[row]),
            -1.0,
        )
        others, apart = self.table.within(self._payloads[row].entry.key, reach)
        return others.tolist(), apart.tolist()

    def _target(self, target: tuple[int, ...]) -> int:
        return self._target_numbers.setdefault(target, len(self._target_numbers))

    def _reserve(self, count: int) -> None:
        """Makes room for a number of rows; views that are in use keep their arrays."""
        capacity = len(self._radii)
        if count <= capacity:
            return
        capacity = max(count, 2 * capacity, 256)
        for name in ("_radii", "_targets", "_yields"):
            old = getattr(self, name)
            grown = np.zeros(capacity, old.dtype)
            grown[: len(self)] = old[: len(self)]
            setattr(self, name, grown)
