"""The contract of a backend: it proposes candidates, and never decides.

A backend proposes rows that *may* lie within a reach of the query, and the table measures those
with ``distances()`` on the host's float32 copy. So a backend may store keys in fewer dimensions or
bits and compute as it likes, as long as no row within the reach is left out; which edit fires is
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
        rest: No unlisted row has a smaller distance; infinity when none is within the reach.
    """

    positions: Ints
    lower: npt.NDArray[np.float64]
    rest: float = np.inf


NONE = Candidates(np.empty(0, np.int64), np.empty(0))
"""No row is within the reach."""

ALL = Candidates(np.empty(0, np.int64), np.empty(0), rest=0.0)
"""Nothing is known: every row has to be looked at."""


class IndexBackend(Protocol):
    """Positions 0, 1, 2, ... of keys, as given to ``build`` and then to ``add``.

    Not safe for threads: the table serialises all calls (GPU indexes are not even for reads).
    """

    @property
    def name(self) -> str:
        """Name under which it is asked for."""

    @property
    def is_stale(self) -> bool:
        """Whether it must be built anew from all keys before it is asked again."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds, wherever it holds them."""

    def build(self, keys: Vectors) -> None:
        """Forgets everything and takes ``keys``, ``(n, d)`` float32, at least one."""

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns the candidates of each query.

        Args:
            queries: ``(b, d)`` float32, finite.
            reach: Largest distance of interest, L2; finite, not negative.
        """
