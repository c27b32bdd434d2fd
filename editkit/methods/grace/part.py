"""What GRACE's edits at one version do: a codebook with its radii."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Near, Part, Positions, Queries, Selection
from editkit.methods.grace.confirm import Confirmation
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.payload import METHOD

__all__ = ["GracePart", "GraceSelection"]


class GraceSelection(Selection):
    """Which rows of a codebook fire for some queries.

    Args:
        part: The codebook.
        fired: For each query the row, -1 for none.
        queries: ``(n, d)`` float32.
    """

    def __init__(
        self, part: GracePart, fired: Sequence[int], queries: npt.NDArray[np.float32]
    ) -> None:
        super().__init__(fired)
        self._part = part
        self._memory = part.memory
        self._queries = queries

    def distance(self, row: int) -> float:
        """Returns the L2 distance from a query to the key of the row that fires for it."""
        return self._memory.distance(self.fired[row], self._queries[row])

    def radius(self, row: int) -> float:
        """Returns the radius of the row that fires for a query, L2."""
        return self._part.radius(self.fired[row])

    def positions(self, row: int) -> Positions:
        """Returns the positions that a value replaces."""
        return self._memory.replacement(self.fired[row])

    def values(self, rows: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns the values, ``(rows, m)``, in the dtype of ``like``."""
        found = torch.from_numpy(self._memory.values([self.fired[row] for row in rows]))
        return found.to(device=like.device, dtype=like.dtype)


class GracePart(Part):
    """The codebook of one version: rows of a memory, with their radii there. Immutable.

    Keys and values stay on the host. A decision moves one hidden state a sequence there, and the
    values of the rows that fire back: a few kilobytes, once a sequence.

    Args:
        memory: What was learned on the model at the site.
        rows: The version's edits in it; oldest first where the memory ``is_ordered``.

    Attributes:
        memory: See above.
        rows: See above.
        radii: ``(n,)`` float32 L2 radii by row of the memory, -1 outside.
    """

    method = METHOD

    def __init__(self, memory: Memory, rows: npt.NDArray[np.int64]) -> None:
        self.memory = memory
        self.rows = rows
        self.radii = memory.radii(rows)
        self._reach = float(self.radii.max(initial=-1))
        self._confirmation = Confirmation(memory, self.radii)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, queries: Queries) -> GraceSelection:
        """Decides for each query ``(n, d)``: the nearest row whose ball contains it fires, if any.

        Of rows at the same distance the newest does. Distances are taken in float32. A row that a
        second look does not confirm does not fire, and nothing fires in its place.
        """
        found = _on_host(queries)
        if not len(self.rows):
            return GraceSelection(self, [-1] * len(found), found)
        rows = self.memory.table.select(found, self.radii, reach=self._reach).tolist()
        fired = [
            row if row < 0 or self._confirmation.confirms(row, query) else -1
            for row, query in zip(rows, found, strict=True)
        ]
        return GraceSelection(self, fired, found)

    def near(self, query: Queries, k: int) -> list[Near]:
        """Returns the ``k`` rows nearest to a query ``(d,)``, and the one that fires."""
        found = _on_host(query)
        numbers, apart = self.memory.table.nearest(found, k, self.radii)
        rows = dict(zip(numbers.tolist(), apart.tolist(), strict=True))
        (fired,) = self.select(found[None]).fired
        if fired >= 0:
            rows.setdefault(fired, self.memory.distance(fired, found))
        return [self._near(row, distance, found) for row, distance in rows.items()]

    def _near(self, row: int, distance: float, query: npt.NDArray[np.float32]) -> Near:
        radius = self.radius(row)
        is_near = distance <= radius
        in_scope = is_near and self._confirmation.confirms(row, query)
        doubt = None
        if is_near and not in_scope:
            count = self._confirmation.shared_by(row)
            others = "another edit shares" if count == 1 else f"{count} other edits share"
            doubt = (
                f"is {distance:.3g} away and reaches {radius:.3g}, but {others} with it what it "
                "has in common with the prompt"
            )
        return Near(self.memory.edit_id(row), distance, radius, in_scope, doubt=doubt)

    def edit_id(self, number: int) -> str:
        """Returns the id of the edit that owns a row."""
        return self.memory.edit_id(number)

    def without(self, edit_ids: Collection[str]) -> GracePart:
        """Returns the codebook without some edits; their neighbours have their radii back."""
        gone = self.memory.rows(edit_ids)
        return self if not len(gone) else self.of(self.rows[~np.isin(self.rows, gone)])

    def does_the_same(self, other: Part) -> bool:
        """Returns whether another part has the same rows with the same radii."""
        return (
            isinstance(other, GracePart)
            and other.memory is self.memory
            and np.array_equal(other.radii, self.radii)
        )

    def of(self, rows: npt.NDArray[np.int64]) -> GracePart:
        """Returns the codebook of other rows of the same memory."""
        return GracePart(self.memory, rows)

    def radius(self, row: int) -> float:
        """Returns the radius of a row, L2."""
        return float(self.radii[row])

    def owns_row(self, row: int) -> bool:
        """Returns whether an edit's own row can fire; under rule ``paper`` it may share another."""
        return bool(self.radii[row] >= 0)


def _on_host(queries: Queries) -> npt.NDArray[np.float32]:
    if isinstance(queries, torch.Tensor):
        queries = queries.detach().to(device="cpu", dtype=torch.float32).numpy()
    return queries
