"""The second look at an edit that is in reach: whether a prompt shares what is the edit's own.

Keys of prompts say what they are about. Where many edits are about one thing, a product that every
one of them names, so is every question about it, and all lie within their reach: of a store with
300 edits that name one product, two in three unrelated questions that name it, too, fire some edit
(``benchmarks/results/scope.txt``). What edits near each other share tells none of them apart. So of
an edit's key k and a query q in its reach, the direction c that k shares with the keys of edits
near it is taken out before they are compared once more:

    k' = k - s (k . c) c,    q' = q - s (q . c) c,    c = normalize( mean of the n near keys )

and the edit applies if cos(k', q') is no less than the cosine of its radius less a slack. The share
s = n / (n + 1) grows with the store: alone, an edit is as free as its radius. Near are, of the 32
nearest, those within a cosine of 0.4 that have another target: other wordings of the same
correction say what it is about, and are no reason to doubt it.

A view holds what it needs: whatever is taken back leaves no trace. Of keys that are hidden states
and of edits with rephrasings (the caller has said how far they reach) nothing is looked at twice.

Plain numpy on purpose: comparing two versions must not load a deep-learning framework.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from editkit.scope.index import KeyTable

__all__ = ["Confirmable", "Confirmation"]

_NEAR = 1.095
"""L2 between unit vectors, a cosine of 0.4: edits that have something in common."""

_MOST = 32  # edits that are looked at; more say the same

_DOUBT = 1.0
"""Edits near by at which half of what they share is taken out."""

_SLACK = 0.2
"""How much less than at its radius the cosine may be without what is shared: of two prompts that
share nothing with others it stays as it is, and every other pair loses."""

_KEPT = 1024  # rows whose common part is remembered

Vector = npt.NDArray[np.float64]


class _Common(NamedTuple):
    """What a row's key shares with those near it.

    Attributes:
        direction: ``(d,)`` of unit length.
        share: How much of it is taken out.
        edits: How many share it.
    """

    direction: Vector
    share: float
    edits: int


class Confirmable(Protocol):
    """Edits by row, with the keys that they are looked up by."""

    @property
    def table(self) -> KeyTable:
        """The index of the keys."""

    def key(self, row: int) -> npt.NDArray[np.float32]:
        """Returns the key of a row, ``(d,)`` float32."""

    def keys(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns the keys of rows, ``(n, d)`` float32."""

    def target(self, row: int) -> tuple[int, ...]:
        """Returns the tokens of a row's target: equal ones give no reason for doubt."""

    def is_confirmed(self, row: int) -> bool:
        """Returns whether a prompt in reach of a row is looked at twice."""


class Confirmation:
    """Confirms for one view that a prompt in an edit's reach is about what the edit is about.

    May be used from several threads.

    Args:
        memory: The edits.
        radii: ``(n,)`` float32, the view's radii by row, -1 outside.
    """

    def __init__(self, memory: Confirmable, radii: npt.NDArray[np.float32]) -> None:
        self._memory = memory
        self._radii = radii
        self._commons: dict[int, _Common | None] = {}

    def confirms(self, row: int, query: npt.NDArray[np.float32]) -> bool:
        """Returns whether an edit applies to a query ``(d,)`` that lies in its reach."""
        common = self._common(row)
        if common is None:
            return True
        least = 1 - float(self._radii[row]) ** 2 / 2 - _SLACK
        pair = np.stack([query, self._memory.key(row)]).astype(np.float64)
        pair -= common.share * np.outer(pair @ common.direction, common.direction)
        length = float(np.prod(np.linalg.norm(pair, axis=1)))
        # An edit that is all common is told from nothing by what is left.
        return length < 1e-6 or float(pair[0] @ pair[1]) >= least * length

    def shared_by(self, row: int) -> int:
        """Returns how many other edits share what an edit's key has in common with theirs."""
        common = self._common(row)
        return 0 if common is None else common.edits

    def _common(self, row: int) -> _Common | None:
        if row not in self._commons:
            if len(self._commons) >= _KEPT:
                self._commons.clear()
            self._commons[row] = self._found(row)
        return self._commons[row]

    def _found(self, row: int) -> _Common | None:
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
