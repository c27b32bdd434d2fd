"""Live views of a PEFT adapter: an attachment applies its parameters directly."""

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
    """A view of the adapter's current parameters, not of a copy."""

    _tuner: ElderModel

    def __init__(self, tuner: ElderModel) -> None:
        object.__setattr__(self, "_tuner", tuner)

    @property
    def version(self) -> str:
        """Name of the adapter."""
        return self._tuner.version

    @property
    def parts(self) -> tuple[Part, ...]:
        """The active adapter's edits; empty if adapters are disabled."""
        tuner = self._tuner
        names = [name for name in tuner.active_adapters if name in tuner.elder_codes]
        if len(names) > 1:
            raise ValueError(
                f"only one ELDER adapter can be active, not {', '.join(names)}: each has its own "
                "routers and codes"
            )
        if not names or tuner.is_disabled:
            return ()
        return (ElderPart(tuner.state(names[0]), is_training=tuner.training),)


class LiveKeys:
    """The prompt keys of the tuner's model, initialized on first use."""

    def __init__(self, tuner: ElderModel) -> None:
        self._tuner = tuner

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""
        return self._tuner.words().key(ids)

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the token ids of embeddings ``(n, d)``."""
        return self._tuner.words().ids(embeddings)
