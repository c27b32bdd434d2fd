"""An adapter as it stands, as what an attachment applies: its parameters themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from editkit.config import Replacement
from editkit.engines.base import Queries
from editkit.methods.elder.state import ElderView

if TYPE_CHECKING:
    from editkit.methods.elder.peft.tuner import ElderModel

__all__ = ["Live", "LiveKeys"]


class Live:
    """What applies as the adapter stands: a view of its parameters themselves."""

    def __init__(self, tuner: ElderModel) -> None:
        self._tuner = tuner

    def __len__(self) -> int:
        return 0

    @property
    def version(self) -> str:
        """Names the adapter."""
        return self._tuner.version

    @property
    def mixture(self) -> ElderView | None:
        """The active adapter's edits; None where it is switched off."""
        tuner = self._tuner
        names = [name for name in tuner.active_adapters if name in tuner.elder_codes]
        if len(names) > 1:
            raise ValueError(
                f"one ELDER adapter is active at a time, not {', '.join(names)}: each has its own "
                "routers and codes"
            )
        if not names or tuner.is_disabled:
            return None
        return ElderView(tuner.state(names[0]), is_training=tuner.training)

    def select(self, queries: Queries) -> list[int]:
        """Nothing fires at a site."""
        return [-1] * len(queries)

    def values(self, chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Not asked for."""
        raise AssertionError("nothing is learned at a site")

    def apart(self, chosen: int, query: Queries) -> float:
        """Not asked for."""
        raise AssertionError("nothing is learned at a site")

    def edit_id(self, chosen: int) -> str:
        """Not asked for."""
        raise AssertionError("nothing is learned at a site")

    def replacement(self, chosen: int) -> Replacement:
        """Not asked for."""
        raise AssertionError("nothing is learned at a site")


class LiveKeys:
    """The keys of the tuner's model, which are made when the first one is asked for."""

    def __init__(self, tuner: ElderModel) -> None:
        self._tuner = tuner

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""
        return self._tuner.words().key(ids)

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of."""
        return self._tuner.words().ids(embeddings)
