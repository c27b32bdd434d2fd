"""What rank-one edits do: a map of rank one is added where they fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from editkit.engines.base import Positions
from editkit.methods.keyed import KeyedPart, KeyedRows, KeyedSelection
from editkit_rankone.payload import Payload

__all__ = ["RankOnePart"]


class RankOneSelection(KeyedSelection):
    """Which edits fire for some rows, and what is added there."""

    part: RankOnePart

    def positions(self, row: int) -> Positions:
        """Returns that an edit is read everywhere, as if it was in the weights of its row."""
        return "all"

    def lora(
        self, module: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the maps of some rows, each a LoRA of rank 1."""
        found: list[Payload] = [self.part.memory.value(self.fired[row]) for row in rows]
        down = torch.from_numpy(np.stack([one.down for one in found]))[:, None, :]
        up = torch.from_numpy(np.stack([one.up for one in found]))[:, :, None]
        return down.to(like.device), up.to(like.device)


class RankOnePart(KeyedPart):
    """The rank-one edits of one version."""

    method = "rankone"
    memory: KeyedRows
    selection: ClassVar[type[KeyedSelection]] = RankOneSelection
