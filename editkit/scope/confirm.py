"""Confirmation: whether a prompt within an edit's radius shares what is specific to the edit.

Prompt keys represent what a prompt is about. If many edits are about one thing, such as a product
that all of them name, then so is every question about it, and all lie within their radii: in a
store with 300 edits that name one product, two in three unrelated questions that name it too fire
some edit (``benchmarks/results/scope.txt``). What nearby edits share cannot distinguish them. So
the direction c that an edit's key k shares with the keys of edits near it is removed from k and
from a query q within its radius before they are compared again:

    k' = k - s (k . c) c,    q' = q - s (q . c) c,    c = normalize( mean of the n near keys )

and the edit applies if cos(k', q') is at least the cosine of its radius minus a slack. The share
s = n / (n + 1) grows with the number of near edits: alone, an edit is limited only by its radius.
Near are, of the 32 nearest edits, those within a cosine of 0.4 that have another target: other
wordings of the same correction are no reason to doubt it.

The confirmation belongs to a view, so reverted edits have no effect. Keys that are hidden states,
and edits with rephrases (the user has said how far they reach), are not confirmed.

Uses only numpy: comparing two versions must not load a deep-learning framework.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from editkit.scope.index import KeyTable

__all__ = ["Confirmable", "Confirmation"]

_NEAR = 1.095
"""L2 between unit vectors, a cosine of 0.4: edits that have something in common."""

_MOST = 32  # nearest edits considered; more change nothing

_DOUBT = 1.0
"""Number of near edits at which half of what they share is removed."""

_SLACK = 0.2
"""How far below the radius's cosine the cosine may be without the shared part. It is unchanged for
two prompts that share nothing with other edits, and lower for every other pair."""

_KEPT = 1024  # rows whose common part is cached

Vector = npt.NDArray[np.float64]


class _Common(NamedTuple):
    """What a row's key shares with the keys near it.

    Attributes:
        direction: ``(d,)`` of unit length.
        share: Fraction of it that is removed.
        edits: Number of edits that share it.
    """

    direction: Vector
    share: float
    edits: int


class Confirmable(Protocol):
    """Edits by row, with their keys."""

    @property
    def table(self) -> KeyTable:
        """The index of the keys."""

    def key(self, row: int) -> npt.NDArray[np.float32]:
        """Returns the key of a row, ``(d,)`` float32."""

    def keys(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns the keys of rows, ``(n, d)`` float32."""

    def target(self, row: int) -> tuple[int, ...]:
        """Returns the tokens of a row's target; edits with equal targets do not count as near."""

    def is_confirmed(self, row: int) -> bool:
        """Returns whether prompts within a row's radius are confirmed."""


class Confirmation:
    """Confirms for one view that a prompt within an edit's radius is in its scope.

    May be used from several threads.

    Args:
        memory: The edits.
        radii: ``(n,)`` float32, the view's radii by row, -1 for other rows.
    """

    def __init__(self, memory: Confirmable, radii: npt.NDArray[np.float32]) -> None:
        self._memory = memory
        self._radii = radii
        self._commons: dict[int, _Common | None] = {}

    def confirms(self, row: int, query: npt.NDArray[np.float32]) -> bool:
        """Returns whether an edit applies to a query ``(d,)`` within its radius."""
        common = self._common(row)
        if common is None:
            return True
        least = 1 - float(self._radii[row]) ** 2 / 2 - _SLACK
        pair = np.stack([query, self._memory.key(row)]).astype(np.float64)
        pair -= common.share * np.outer(pair @ common.direction, common.direction)
        length = float(np.prod(np.linalg.norm(pair, axis=1)))
        # If the edit's key consists only of the shared part, nothing is left to compare.
        return length < 1e-6 or float(pair[0] @ pair[1]) >= least * length

    def shared_by(self, row: int) -> int:
        """Returns the number of other edits that share a part of an edit's key."""
        common = self._common(row)
        return 0 if common is None else common.edits

    def _common(self, row: int) -> _Common | None:
        if row not in self._commons:
            if len(self._commons) >= _KEPT:
                self._commons.clear()
            self._commons[row] = self._compute(row)
        return self._commons[row]

    def _compute(self, row: int) -> _Common | None:
        memory = self._memory
        if not memory.is_confirmed(row):
            return None
        rows, _ = memory.table.around(memory.key(row), _MOST + 1, self._radii, _NEAR)
        target = memory.target(row)
        near = [other for other in rows.tolist() if memory.target(other) != target]
        if not near:
            return None
        total = memory.keys(np.array(near)).astype(np.float64).sum(axis=0)
        length = float(np.linalg.norm(total))
        if length < 1e-6:
            return None
        return _Common(total / length, len(near) / (len(near) + _DOUBT), len(near))
