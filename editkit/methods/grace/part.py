"""GRACE's edits at one version: a codebook with its radii."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from editkit.engines.base import Positions
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.payload import METHOD
from editkit.methods.keyed import KeyedPart, KeyedSelection

__all__ = ["GracePart", "GraceSelection"]


class GraceSelection(KeyedSelection):
    """Which rows of a codebook fire for some queries."""

    part: GracePart

    def positions(self, row: int) -> Positions:
        """Returns the positions that a value replaces."""
        return self.part.memory.replacement(self.fired[row])

    def values(self, rows: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns the values, ``(rows, m)``, in the dtype of ``like``."""
        found = torch.from_numpy(self.part.memory.values([self.fired[row] for row in rows]))
        return found.to(device=like.device, dtype=like.dtype)


class GracePart(KeyedPart):
    """The codebook of one version. Rows are oldest first if the memory ``is_ordered``.

    Keys and values stay on the host. A decision moves one hidden state per sequence to the host,
    and the values of the rows that fire back: a few kilobytes, once per sequence. ``without``
    restores the radii of the neighbours of removed edits.
    """

    method = METHOD
    memory: Memory
    selection: ClassVar[type[KeyedSelection]] = GraceSelection

    def owns_row(self, row: int) -> bool:
        """Returns whether an edit's own row can fire; under rule ``paper`` it may share one."""
        return bool(self.radii[row] >= 0)
