"""A view of the history as the running model applies it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from editkit.config import Replacement
from editkit.engines.base import Mixture, Queries
from editkit.methods.grace.memory import Memory
from editkit.scope.confirm import Confirmation

__all__ = ["GraceView"]


class GraceView:
    """The codebook of one version: rows of a memory, with their radii there. Immutable.

    Keys and values stay on the host. A decision moves one hidden state a sequence there, and the
    values of the rows that fire back: a few kilobytes, once a sequence.

    Args:
        version: Name of the version it belongs to.
        memory: What was learned on the model at the site.
        rows: The version's edits in it; oldest first where the memory ``is_ordered``.
        mixture: What ELDER learned for that version.
    """

    def __init__(
        self,
        version: str,
        memory: Memory,
        rows: npt.NDArray[np.int64],
        mixture: Mixture | None = None,
    ) -> None:
        self.version = version
        self.mixture = mixture
        self.memory = memory
        self.rows = rows
        self.radii = memory.radii(rows)
        self._reach = float(self.radii.max(initial=-1))
        self._confirmation = Confirmation(memory, self.radii)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, queries: Queries) -> list[int]:
        """Returns for each query ``(n, d)`` the nearest row whose ball contains it, -1 for none.

        Of rows at the same distance the newest wins. Distances are taken in float32. A row that a
        second look does not confirm does not fire, and nothing fires in its place.
        """
        found = _on_host(queries)
        rows = self.memory.table.select(found, self.radii, reach=self._reach).tolist()
        return [
            row if row < 0 or self._confirmation.confirms(row, query) else -1
            for row, query in zip(rows, found, strict=True)
        ]

    def confirms(self, row: int, query: Queries) -> bool:
        """Returns whether a row whose ball contains a query ``(d,)`` shares more than others do."""
        return self._confirmation.confirms(row, _on_host(query))

    def shared_by(self, row: int) -> int:
        """Returns how many other edits near a row that look is about; 0 where there is none."""
        return self._confirmation.shared_by(row)

    def nearest(self, query: Queries, k: int) -> list[tuple[int, float]]:
        """Returns the ``k`` rows nearest to a query ``(d,)`` and their L2 distances."""
        found = _on_host(query)
        rows, apart = self.memory.table.nearest(found, k, self.radii)
        return list(zip(rows.tolist(), apart.tolist(), strict=True))

    def values(self, chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns the values of rows, ``(rows, m)``, in the dtype of ``like``."""
        found = torch.from_numpy(self.memory.values(chosen))
        return found.to(device=like.device, dtype=like.dtype)

    def apart(self, chosen: int, query: Queries) -> float:
        """Returns the L2 distance from a query ``(d,)`` to the key of a row."""
        key = self.memory.payload(chosen).entry.key
        return float(np.linalg.norm(_on_host(query) - key))

    def edit_id(self, chosen: int) -> str:
        """Returns the id of the edit that owns a row."""
        return self.memory.edit_id(chosen)

    def replacement(self, chosen: int) -> Replacement:
        """Returns the positions that a row's value replaces."""
        return self.memory.replacement(chosen)

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
