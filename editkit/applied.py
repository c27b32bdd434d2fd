"""What a running model applies: a view of edits, and what gives the keys to look them up by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from editkit.config import Replacement

__all__ = ["Keys", "View"]


class Keys(Protocol):
    """What gives the keys of prompts from their tokens."""

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of."""


class View(Protocol):
    """What an attachment applies: a set of edits at the attached site."""

    version: str

    def __len__(self) -> int:
        """Number of edits that could fire; 0 makes every hook return at once."""

    def select(self, queries: torch.Tensor) -> list[int]:
        """Returns for each query ``(rows, d)`` the edit that fires, -1 for none."""

    def values(self, chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns their values ``(rows, m)`` in the dtype and on the device of ``like``."""

    def edit_id(self, chosen: int) -> str:
        """Returns the id of an edit."""

    def replacement(self, chosen: int) -> Replacement:
        """Returns the positions that an edit's value replaces."""
