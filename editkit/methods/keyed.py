"""Edits with one key and one radius each: the nearest edit whose ball contains the prompt fires.

This module decides which edit fires. A method defines what its edits do by subclassing
``KeyedSelection``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from editkit.engines.base import Part, Queries, Selection
from editkit.engines.reading import Near
from editkit.scope.confirm import Confirmable, Confirmation
from editkit.scope.index import KeyTable

__all__ = ["KeyedPart", "KeyedRows", "KeyedSelection", "Rows", "moved"]

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Rows(Confirmable, Protocol):
    """All edits that a model has learned with one method, by row; append-only."""

    def edit_id(self, row: int) -> str:
        """Returns the edit that owns a row."""

    def rows(self, edit_ids: Iterable[str]) -> Ints:
        """Returns the rows of edits, in order; edits that were not learned are left out."""

    def radii(self, rows: Ints) -> Vectors:
        """Returns the L2 radii by row, ``(n,)`` float32, -1 outside the given rows."""

    def distance(self, row: int, query: Vectors) -> float:
        """Returns the L2 distance from a query ``(d,)`` to the key of a row."""


class KeyedRows:
    """Keys and radii of the edits that a model has learned, with a value per edit.

    Radii do not shrink for each other: of the edits that reach a prompt, the nearest fires. Several
    threads may append and read.

    Args:
        width: Width of a key.
        device: Torch name of the index's device; None for the CPU.
    """

    def __init__(self, width: int, *, device: str | None = None) -> None:
        self.table = KeyTable(width, device=device)
        self._ids: list[str] = []
        self._keys: list[Vectors] = []
        self._radii: list[float] = []
        self._targets: list[tuple[int, ...]] = []
        self._confirmed: list[bool] = []
        self._values: list[Any] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        """Number of rows ever appended."""
        return len(self._ids)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._rows

    def put(
        self,
        edit_id: str,
        key: Vectors,
        radius: float,
        value: Any,
        *,
        target: tuple[int, ...],
        is_confirmed: bool = True,
    ) -> int:
        """Appends a row for an edit; an older row of the same edit is removed.

        Args:
            edit_id: The edit.
            key: Its key, ``(d,)`` float32.
            radius: Its radius, L2.
            value: The method's data for it.
            target: Tokens of its target.
            is_confirmed: Confirm prompts within its radius; see ``editkit.scope.confirm``.

        Returns:
            The row.
        """
        self.discard(edit_id)
        # Readers find a row by its edit, so the row's data is written first.
        self._ids.append(edit_id)
        self._keys.append(key)
        self._radii.append(radius)
        self._targets.append(target)
        self._confirmed.append(is_confirmed)
        self._values.append(value)
        (row,) = self.table.add(key[None])
        self._rows[edit_id] = row
        return row

    def discard(self, edit_id: str) -> None:
        """Removes the row of an edit, e.g. of one that did not verify."""
        row = self._rows.pop(edit_id, None)
        if row is not None:
            self.table.kill([row])

    def value(self, row: int) -> Any:
        """Returns the method's data for a row."""
        return self._values[row]

    def row(self, edit_id: str) -> int:
        """Returns the row of an edit.

        Raises:
            KeyError: The edit was not learned.
        """
        return self._rows[edit_id]

    def rows(self, edit_ids: Iterable[str]) -> Ints:
        """Returns the rows of edits, in order; edits that were not learned are left out."""
        return np.array([self._rows[e] for e in edit_ids if e in self._rows], np.int64)

    def edit_id(self, row: int) -> str:
        """Returns the edit that owns a row."""
        return self._ids[row]

    def key(self, row: int) -> Vectors:
        """Returns the key of a row, ``(d,)`` float32."""
        return self._keys[row]

    def keys(self, rows: Ints) -> Vectors:
        """Returns the keys of rows, ``(n, d)`` float32."""
        return np.stack([self._keys[row] for row in rows.tolist()])

    def target(self, row: int) -> tuple[int, ...]:
        """Returns the tokens of a row's target."""
        return self._targets[row]

    def is_confirmed(self, row: int) -> bool:
        """Returns whether prompts within a row's radius are confirmed."""
        return self._confirmed[row]

    def radius(self, row: int) -> float:
        """Returns the radius of a row, L2."""
        return self._radii[row]

    def radii(self, rows: Ints) -> Vectors:
        """Returns the L2 radii by row, ``(n,)`` float32, -1 outside the given rows."""
        found = np.full(len(self.table), -1, np.float32)
        found[rows] = [self._radii[row] for row in rows.tolist()]
        return found

    def distance(self, row: int, query: Vectors) -> float:
        """Returns the L2 distance from a query ``(d,)`` to the key of a row."""
        return float(np.linalg.norm(query - self._keys[row]))


def moved(memory: Rows, rows: Ints, came: Sequence[str], went: Sequence[str]) -> Ints:
    """Returns the rows of a version, given those of another version and the difference.

    Args:
        memory: The edits.
        rows: The rows of the other version.
        came: Ids of edits that are active only at this version.
        went: Ids of edits that are active only at the other version.
    """
    gone = memory.rows(went)
    return np.concatenate([rows[~np.isin(rows, gone)] if len(gone) else rows, memory.rows(came)])


class KeyedSelection(Selection):
    """Which rows fire for some queries. Methods subclass it to define what they do.

    Args:
        part: The part.
        fired: For each query the row, -1 for none.
        queries: ``(n, d)`` float32; None if something else than their keys decided.
    """

    def __init__(
        self, part: KeyedPart, fired: Sequence[int], queries: Vectors | None = None
    ) -> None:
        super().__init__(fired)
        self.part = part
        self._queries = queries

    def distance(self, row: int) -> float:
        """Returns the L2 distance from a query to the key of the row that fires for it."""
        if self._queries is None:
            return 0.0
        return float(self.part.memory.distance(self.fired[row], self._queries[row]))

    def radius(self, row: int) -> float:
        """Returns the radius of the row that fires for a query, L2."""
        return self.part.radius(self.fired[row])


class KeyedPart(Part):
    """The edits of one version: rows of a memory, with their radii. Immutable.

    Keys stay on the host: a decision needs one key per sequence.

    Args:
        memory: All learned edits of the model.
        rows: Rows of the version's edits.

    Attributes:
        memory: See above.
        rows: See above.
        radii: ``(n,)`` float32 L2 radii by row of the memory, -1 for other rows.
        selection: Class that defines what the edits do where they fire.
    """

    selection: ClassVar[type[KeyedSelection]] = KeyedSelection

    def __init__(self, memory: Any, rows: Ints) -> None:
        self.memory = memory
        self.rows = rows
        self.radii: Vectors = memory.radii(rows)
        self._reach = float(self.radii.max(initial=-1))
        self._confirmation = Confirmation(memory, self.radii)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def key_count(self) -> int:
        """Number of rows that can fire."""
        return int((self.radii >= 0).sum())

    def select(self, queries: Queries) -> Selection:
        """Decides for each query ``(n, d)``: the nearest row whose ball contains it fires, if any.

        At equal distance the newest row fires. Distances are computed in float32. A row that is not
        confirmed does not fire, and nothing fires in its place.
        """
        found = _on_host(queries)
        if not len(self.rows):
            return self.selection(self, [-1] * len(found), found)
        rows = self.memory.table.select(found, self.radii, reach=self._reach).tolist()
        fired = [
            row if row < 0 or self._confirmation.confirms(row, query) else -1
            for row, query in zip(rows, found, strict=True)
        ]
        return self.selection(self, fired, found)

    def number(self, edit_id: str) -> int:
        """Returns the row of an edit, -1 for one that cannot fire here."""
        rows = self.memory.rows([edit_id])
        if not len(rows) or rows[0] >= len(self.radii) or self.radii[rows[0]] < 0:
            return -1
        return int(rows[0])

    def firing(self, numbers: Sequence[int]) -> Selection:
        """Returns the selection in which given rows fire."""
        return self.selection(self, numbers)

    def near(self, query: Queries, k: int) -> list[Near]:
        """Returns the ``k`` rows nearest to a query ``(d,)``, and the one that fires."""
        found = _on_host(query)
        numbers, apart = self.memory.table.nearest(found, k, self.radii)
        rows = dict(zip(numbers.tolist(), apart.tolist(), strict=True))
        (fired,) = self.select(found[None]).fired
        if fired >= 0:
            rows.setdefault(fired, self.memory.distance(fired, found))
        return [self._near(row, distance, found) for row, distance in rows.items()]

    def _near(self, row: int, distance: float, query: Vectors) -> Near:
        radius = self.radius(row)
        is_near = distance <= radius
        in_scope = is_near and self._confirmation.confirms(row, query)
        doubt = None
        if is_near and not in_scope:
            count = self._confirmation.shared_by(row)
            others = "another edit shares" if count == 1 else f"{count} other edits share"
            doubt = (
                f"is {distance:.3g} away and reaches {radius:.3g}, but {others} the words that it "
                "has in common with the prompt"
            )
        return Near(self.memory.edit_id(row), distance, radius, in_scope, doubt=doubt)

    def edit_id(self, number: int) -> str:
        """Returns the id of the edit that owns a row."""
        return str(self.memory.edit_id(number))

    def own_query(self, edit_id: str) -> Vectors | None:
        """Returns the key of an edit, None if it is not among the edits."""
        for row in self.memory.rows([edit_id]).tolist():
            if row < len(self.radii) and self.radii[row] >= 0:  # the memory may hold later edits
                return np.asarray(self.memory.key(row), np.float32)
        return None

    def without(self, edit_ids: Collection[str]) -> Self:
        """Returns the same part without some edits."""
        gone = self.memory.rows(edit_ids)
        return self if not len(gone) else self.of(self.rows[~np.isin(self.rows, gone)])

    def does_the_same(self, other: Part) -> bool:
        """Returns whether another part has the same rows with the same radii."""
        return (
            isinstance(other, type(self))
            and other.memory is self.memory
            and np.array_equal(other.radii, self.radii)
        )

    def of(self, rows: Ints) -> Self:
        """Returns the part of other rows of the same memory."""
        return type(self)(self.memory, rows)

    def radius(self, row: int) -> float:
        """Returns the radius of a row, L2."""
        return float(self.radii[row])


def _on_host(queries: Queries) -> Vectors:
    if isinstance(queries, np.ndarray):
        return queries
    return np.asarray(queries.detach().cpu().float().numpy())
