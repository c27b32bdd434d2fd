"""An adapter as it stands, as what an attachment applies: its parameters themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Part, View

if TYPE_CHECKING:
    from editkit.scope.pooled import PooledKeys

__all__ = ["Live", "LiveKeys"]


class Live(View):
    """A view that is read anew whenever it is asked for its version or its parts.

    Args:
        version: Returns the name of the adapter.
        parts: Returns the active adapter's edits.
    """

    _version: Callable[[], str]
    _parts: Callable[[], tuple[Part, ...]]

    def __init__(self, version: Callable[[], str], parts: Callable[[], tuple[Part, ...]]) -> None:
        object.__setattr__(self, "_version", version)
        object.__setattr__(self, "_parts", parts)

    @property
    def version(self) -> str:
        """Name of the adapter."""
        return self._version()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The active adapter's edits; none where it is switched off."""
        return self._parts()


class LiveKeys:
    """Keys of prompts that are made when the first one is asked for.

    Args:
        words: Returns what gives them.
    """

    def __init__(self, words: Callable[[], PooledKeys]) -> None:
        self._words = words

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""
        return self._words().key(ids)

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of."""
        return self._words().ids(embeddings)
