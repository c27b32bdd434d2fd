"""The interface of a backend: it proposes candidates, and never decides.

A backend proposes rows that *may* lie within a reach of the query, and the table measures those
with ``distances()`` on the host's float32 copy. So a backend may store keys in fewer dimensions or
bits and use any arithmetic, as long as it omits no row within the reach; the edit that fires is
then the same with every backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from editkit.scope.index.distance import Ints, Vectors

__all__ = ["ALL", "NONE", "Candidates", "IndexBackend"]


@dataclass(frozen=True)
class Candidates:
    """Rows that may lie within the reach of one query.

    Attributes:
        positions: ``(m,)`` int64, positions in the backend, in no order.
        lower: ``(m,)`` float64, not above ``distances()`` of any listed row within the reach.
        rest: Lower bound of the distances of unlisted rows; infinity if none is within the reach.
    """

    positions: Ints
    lower: npt.NDArray[np.float64]
    rest: float = np.inf


NONE = Candidates(np.empty(0, np.int64), np.empty(0))
"""No row is within the reach."""

ALL = Candidates(np.empty(0, np.int64), np.empty(0), rest=0.0)
"""Nothing is known: every row has to be measured."""


class IndexBackend(Protocol):
    """Positions 0, 1, 2, ... of keys, as given to ``build`` and then to ``add``.

    Not thread-safe: the table serializes all calls (GPU indexes are not even safe for reads).
    """

    @property
    def name(self) -> str:
        """Name that selects it."""

    @property
    def is_stale(self) -> bool:
        """Whether it must be rebuilt from all keys before the next query."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds, on any device."""

    def build(self, keys: Vectors) -> None:
        """Replaces the contents by ``keys``, ``(n, d)`` float32, at least one."""

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns the candidates of each query.

        Args:
            queries: ``(b, d)`` float32, finite.
            reach: Largest distance of interest, L2; finite, not negative.
        """
