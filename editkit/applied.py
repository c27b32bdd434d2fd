"""What a running model applies: a view of edits, and what gives the keys to look them up by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from editkit.config import Replacement

__all__ = ["Keys", "Mixture", "Queries", "Routes", "Span", "View"]

Span = Literal["query", "sequence"]
"""Tokens that a mixture applies to: from the query on, or all of the sequence."""

Queries = torch.Tensor | npt.NDArray[np.float32]
"""What edits are looked up by: states on the model's device, or keys of prompts on the host."""


class Keys(Protocol):
    """What gives the keys of prompts from their tokens."""

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of."""


class Routes(Protocol):
    """Where a mixture of LoRAs sends some sequences; decided once, at their prefill."""

    @property
    def fired(self) -> Sequence[int]:
        """For each sequence the edit whose experts it takes, -1 where it is deferred."""

    @property
    def apart(self) -> Sequence[float]:
        """For each sequence the L2 distance of its query to the nearest of that edit's.

        None are told where what was learned does not look at queries.
        """

    def lora(
        self, layer: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the experts of some of the sequences in a layer, as one LoRA a sequence.

        Returns:
            ``(rows, k r, in)`` and ``(rows, out, k r)`` on the device of ``like``.
        """


class Mixture(Protocol):
    """What an attachment applies at several layers: ELDER's routers, codes and LoRAs."""

    @property
    def span(self) -> Span:
        """Tokens that it applies to."""

    def __len__(self) -> int:
        """Number of edits that could fire; 0 makes every hook return at once."""

    def route(self, queries: torch.Tensor) -> Routes:
        """Returns where sequences with these queries ``(n, d)`` go."""

    def edit_id(self, chosen: int) -> str:
        """Returns the id of an edit."""


class View(Protocol):
    """What an attachment applies: a set of edits at the attached site."""

    @property
    def version(self) -> str:
        """Name of the version that it is of."""

    @property
    def mixture(self) -> Mixture | None:
        """The edits that a mixture of LoRAs learned, if any."""

    def __len__(self) -> int:
        """Number of edits at the site that could fire."""

    def select(self, queries: Queries) -> list[int]:
        """Returns for each query ``(rows, d)`` the edit that fires, -1 for none."""

    def values(self, chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns their values ``(rows, m)`` in the dtype and on the device of ``like``."""

    def apart(self, chosen: int, query: Queries) -> float:
        """Returns the L2 distance from a query ``(d,)`` to the key of an edit."""

    def edit_id(self, chosen: int) -> str:
        """Returns the id of an edit."""

    def replacement(self, chosen: int) -> Replacement:
        """Returns the positions that an edit's value replaces."""
