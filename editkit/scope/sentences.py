"""Keys made of what a sentence encoder says of a prompt, and of its words.

The pooled key hardly tells what is asked about a subject: names weigh most in it, and "What is the
capital of Australia?" lies as near to "What language is spoken in Australia?" as to a rephrasing. A
sentence encoder was trained to tell such questions apart, and tells similar names apart less well.
Together,

    k = [ sqrt(1 - w) k_pooled ; sqrt(w) k_sentence ],        w = 0.8,

both of unit length: a cosine of two keys is the weighted mean of both cosines, and everything that
holds of pooled keys (index, radii, undo) holds of these. Only the part of a prompt that asks goes
through the encoder, as its words are told by ``PooledKeys``.

Source: the encoder is that of Wang et al., "MiniLM" (2020, arXiv 2002.10957), trained as by Reimers
and Gurevych, "Sentence-BERT" (2019, arXiv 1908.10084). What it is worth, and w:
benchmarks/results/scope.txt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from editkit.models.sentences import SentenceEncoder
from editkit.scope.pooled import PooledKeys

__all__ = ["SentenceKeys"]

_WEIGHT = 0.8
"""Of the encoder's part, w."""

_KEPT = 256  # keys of the last prompts

Vector = npt.NDArray[np.float32]


class SentenceKeys:
    """Keys of prompts for one model and one sentence encoder. May be used from several threads.

    Args:
        pooled: The model's pooled keys.
        encoder: The sentence encoder.
    """

    def __init__(self, pooled: PooledKeys, encoder: SentenceEncoder) -> None:
        self._pooled = pooled
        self._encoder = encoder
        self._keys: OrderedDict[tuple[int, ...], Vector] = OrderedDict()

    @property
    def kind(self) -> str:
        """What tells these keys from others: of another encoder's they say nothing."""
        return f"sentence:{self._encoder.fingerprint.removeprefix('sha256:')[:16]}"

    @property
    def width(self) -> int:
        """Length of a key."""
        return self._pooled.width + self._encoder.width

    def prepare(self) -> None:
        """Takes in what the model knows of its tokens, so that a key does not run it."""
        self._pooled.prepare()

    def key(self, ids: Sequence[int]) -> Vector:
        """Returns the key of a prompt, ``(d,)`` float32 of unit length; see ``PooledKeys.key``."""
        asked = tuple(ids)
        found = self._keys.get(asked)
        if found is None:
            sentence = self._encoder.encode(self._pooled.asked(asked))
            parts = (1 - _WEIGHT, self._pooled.key(asked)), (_WEIGHT, sentence)
            found = np.concatenate([np.float32(share**0.5) * part for share, part in parts])
            self._keys[asked] = found
            while len(self._keys) > _KEPT:
                self._keys.popitem(last=False)
        return found

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of: the nearest ones."""
        return self._pooled.ids(embeddings)

    def said(self, ids: Sequence[int]) -> tuple[list[str], list[str]]:
        """Returns the words that the pooled part is made of; see ``PooledKeys.said``."""
        return self._pooled.said(ids)

    def told_apart(self, ids: Sequence[int]) -> tuple[None, None]:
        """Returns that nothing is known: what an encoder says of other questions it alone knows."""
        return None, None
