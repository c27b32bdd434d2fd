"""The key of a text to be classified: a vector of its topic, which other wordings share.

It uses the weights and word vectors of the pooled key (``editkit.scope.pooled``), but such texts
are not questions: every sentence counts in full, and there are no turns. They may be long, and the
more words a text has, the closer its mean is to that of any text, so that unrelated long texts
would have similar keys. So the mean word vector is subtracted,

    k = normalize( sum_w  a_w (u_w - m) ),        m = E[a u] / E[a]

over the words of the vocabulary, weighted by their frequency in ordinary text.

Source: keys as in ``editkit.scope.pooled``; removing the common component after Arora et al., "A
simple but tough-to-beat baseline for sentence embeddings" (2017), and Mu and Viswanath,
"All-but-the-top" (2018, arXiv 1702.01417). Measured in benchmarks/results/quality.md.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.scope.information import Information, ranked
from editkit.scope.pooled import PooledKeys
from editkit.scope.words import Word, Words

__all__ = ["TextKeys"]

Vector = npt.NDArray[np.float32]

_PART = 8192  # tokens per block


class TextKeys(PooledKeys):
    """Keys of texts for one model. May be used from several threads; see ``PooledKeys``."""

    kind = "text"

    def __init__(self, model: Any, tokenizer: Any, information: Callable[[], Information]) -> None:
        super().__init__(model, tokenizer, information)
        self._words = Words(tokenizer, marked=False)
        self._special = frozenset(tokenizer.all_special_ids)

    def prepare(self) -> None:
        """Loads the token statistics, so that computing a key does not run the model."""
        super().prepare()
        _ = self._typical

    @functools.cached_property
    def _typical(self) -> Vector:
        total, weight = np.zeros(self.width), 0.0
        for part in self._vocabulary():
            often = np.exp(-self._known.nats[part].astype(np.float64)) * self._weights[part]
            total += often @ self._standardized(part)
            weight += float(often.sum())
        return np.asarray(total / max(weight, 1e-12), np.float32)

    def _vocabulary(self) -> Iterator[list[int]]:
        size = len(self._known.nats)
        words = [token for token in ranked(self._tokenizer) if token < size]
        yield from (words[start : start + _PART] for start in range(0, len(words), _PART))

    def told_apart(self, ids: Sequence[int]) -> tuple[None, None]:
        """Returns None twice: a text is not a question about a subject."""
        return None, None

    def _parts(
        self, ids: tuple[int, ...]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        # Otherwise the key of a text of only punctuation, ":(", would mostly be special tokens.
        return super()._parts(tuple(token for token in ids if token not in self._special) or ids)

    def _asked(self, ids: tuple[int, ...]) -> tuple[list[Word], list[bool]]:
        words = self._words.split(ids, turns="all")
        names = [self._is_name(word) for word in words]
        return [dataclasses.replace(word, sentence=1) for word in words], names
