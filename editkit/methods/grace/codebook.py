"""GRACE's codebook: the balls and their radii, given the edits in order.

Hartvigsen et al., "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors",
NeurIPS 2023, arXiv 2211.11031, section 3 and algorithm 1.

A codebook is a *fold* over the active edits, oldest first. It depends only on the stored keys,
targets and initial radii, so any view can be folded again without training, and removing an edit
gives exactly the radii as if it had never been added. With q the new key, eps0 its initial radius,
i the nearest row at distance d = ||q - k_i||, rule ``paper`` is:

    no row, or d > eps0 + eps_i    new row with radius eps0
    d <= eps0 + eps_i, other y     new row with radius d / 2, and eps_i := d / 2 - 1e-5
    d <= eps0 + eps_i, same y      no new row; eps_i := max(eps_i, d)

Rule ``disjoint`` (the default for hidden states) guarantees the paper's intent, that balls of
different targets never overlap, also where the nearest-row test misses it, and is independent of
the order of edits:

    always a new row; for every row j of this rule with other y and d_j <= eps0 + eps0_j:
        eps := min(eps, d_j / 2),  eps_j := min(eps_j, d_j / 2)

Rule ``nearest`` (the default for pooled keys) never changes a radius. Balls may overlap, and there
the nearest row fires: keys that distinguish prompts well need no gap between them.

Differs from the paper: targets are compared by their token ids (the authors' code compares the mean
of padded label ids); an edit that shares a row under ``paper`` still keeps its own key and value,
so it survives when the owner of the row is reverted.

Uses only numpy: comparing two versions must not load a deep-learning framework.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from editkit.methods.grace.config import Rule
from editkit.scope.index import distances

__all__ = ["Codebook", "Entry", "FoldedRow", "fold"]

_GAP = np.float32(1e-5)  # the paper's gap between two balls that would touch

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """One edit as input to the fold.

    Attributes:
        edit_id: The edit.
        key: ``(d,)`` float32, e.g. the site's input at the query position.
        target: Target token ids; equal targets may share a ball.
        radius: Initial radius, L2.
        rule: Codebook rule that the edit was added under.
        owns_row: Whether it must not share another edit's row, even under ``paper``.
    """

    edit_id: str
    key: Vector
    target: tuple[int, ...]
    radius: float
    rule: Rule = "disjoint"
    owns_row: bool = False


@dataclass(frozen=True)
class FoldedRow:
    """One ball: its owner, its radius, and the edits that share it."""

    entry: Entry
    radius: float
    shared_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Codebook:
    """The rows of one view. Immutable; ``with_entry`` returns the next one.

    Attributes:
        rows: In order of creation.
        keys: ``(n, d)`` float32, one key per row.
    """

    rows: tuple[FoldedRow, ...] = ()
    keys: Vector = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def radii(self) -> dict[str, float]:
        """Radius of every row, by the id of the edit that owns it."""
        return {row.entry.edit_id: row.radius for row in self.rows}

    def with_entry(self, entry: Entry) -> Codebook:
        """Returns the codebook after one more edit.

        Raises:
            ValueError: The key's width differs from that of the other keys.
        """
        if not self.rows:
            return Codebook((FoldedRow(entry, entry.radius),), entry.key[None, :])
        if entry.key.shape != self.keys.shape[1:]:
            raise ValueError(
                f"a key of width {entry.key.shape[0]} in a codebook of width {self.keys.shape[1]}"
            )
        apart = distances(self.keys, entry.key)
        if entry.rule == "paper":
            return self._paper(entry, apart)
        if entry.rule == "nearest":
            return self._appended(FoldedRow(entry, entry.radius), {})
        return self._disjoint(entry, apart)

    def _paper(self, entry: Entry, apart: Vector) -> Codebook:
        nearest = int(apart.argmin())
        row, distance = self.rows[nearest], apart[nearest]
        if distance > entry.radius + row.radius:
            return self._appended(FoldedRow(entry, entry.radius), {})
        if row.entry.target != entry.target:
            half = distance / 2
            shrunk = FoldedRow(row.entry, max(0.0, float(half - _GAP)), row.shared_by)
            return self._appended(FoldedRow(entry, float(half)), {nearest: shrunk})
        radius = max(row.radius, float(distance))
        if entry.owns_row:
            grown = FoldedRow(row.entry, radius, row.shared_by)
            return self._appended(FoldedRow(entry, entry.radius), {nearest: grown})
        shared = FoldedRow(row.entry, radius, (*row.shared_by, entry.edit_id))
        return Codebook((*self.rows[:nearest], shared, *self.rows[nearest + 1 :]), self.keys)

    def _disjoint(self, entry: Entry, apart: Vector) -> Codebook:
        radius = entry.radius
        changed: dict[int, FoldedRow] = {}
        # Initial radii decide which balls meet: with current radii the result would depend on the
        # order of two neighbours.
        reach = np.array([max(row.radius, row.entry.radius) for row in self.rows], np.float64)
        for index in np.flatnonzero(apart <= entry.radius + reach):
            row = self.rows[int(index)]
            if row.entry.target == entry.target or row.entry.rule == "nearest":
                continue
            half = float(apart[index] / 2)
            radius = min(radius, half)
            if half < row.radius:
                changed[int(index)] = FoldedRow(row.entry, half, row.shared_by)
        return self._appended(FoldedRow(entry, radius), changed)

    def _appended(self, row: FoldedRow, changed: dict[int, FoldedRow]) -> Codebook:
        rows = list(self.rows)
        for index, other in changed.items():
            rows[index] = other
        return Codebook((*rows, row), np.concatenate([self.keys, row.entry.key[None, :]]))


def fold(entries: Iterable[Entry]) -> Codebook:
    """Returns the codebook of ``entries``, oldest first."""
    book = Codebook()
    for entry in entries:
        book = book.with_entry(entry)
    return book
