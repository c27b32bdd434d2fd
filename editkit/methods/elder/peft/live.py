"""An adapter as it stands, as what an attachment applies: its parameters themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Part, View
from editkit.methods.elder.part import ElderPart

if TYPE_CHECKING:
    from editkit.methods.elder.peft.tuner import ElderModel

__all__ = ["Live", "LiveKeys"]


class Live(View):
    """What applies as the adapter stands: a view of its parameters themselves."""

    _tuner: ElderModel

    def __init__(self, tuner: ElderModel) -> None:
        object.__setattr__(self, "_tuner", tuner)

    @property
    def version(self) -> str:
        """Names the adapter."""
        return self._tuner.version

    @property
    def parts(self) -> tuple[Part, ...]:
        """The active adapter's edits; none where it is switched off."""
        tuner = self._tuner
        names = [name for name in tuner.active_adapters if name in tuner.elder_codes]
        if len(names) > 1:
            raise ValueError(
                f"one ELDER adapter is active at a time, not {', '.join(names)}: each has its own "
                "routers and codes"
            )
        if not names or tuner.is_disabled:
            return ()
        return (ElderPart(tuner.state(names[0]), is_training=tuner.training),)


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
