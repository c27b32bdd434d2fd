"""Recall: which edits could be meant by a prompt, by a key that costs next to nothing.

The judge compares a prompt with one edit at a time, and encodes the prompt before. Most prompts of
a model in use have nothing to do with any edit, so something cheap has to say so first. The key of
a text is

    k = normalize([ sqrt(s) normalize(sum_t w_t P e_t) ; sqrt(1 - s) normalize(sum_t w_t Q g_t) ])

over its word pieces t: e_t is the encoder's own input embedding, less the mean and of unit length,
g_t the spelling of its word, w_t how much the piece says. P, Q, w and s were learned so that other
wordings of a question lie near it (benchmarks/judge/recall.py): no layer of a network runs, and the
key does not depend on the model that is edited.

Source: static embeddings with learned weights after Salton and Buckley (1988) and Arora et al., "A
simple but tough-to-beat baseline for sentence embeddings" (2017), trained with the contrastive loss
of van den Oord et al., "Representation learning with contrastive predictive coding" (2018, arXiv
1807.03748).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from editkit.scope.encoder import Reading, spelling

__all__ = ["Recall"]

Vector = npt.NDArray[np.float32]


class Recall:
    """Keys of texts. May be used from several threads.

    Args:
        tensors: ``meaning`` ``(e, a)``, ``spelling`` ``(GRAMS, b)``, ``weights`` ``(vocabulary,)``,
            ``shares`` ``(2,)``: s, and the weight of what was said before the asking turn.
        embeddings: ``(vocabulary, e)`` the encoder's input embeddings.

    Attributes:
        width: Length of a key, a + b.
        fingerprint: Identity of what was learned, 64 hexadecimal digits.

    Raises:
        KeyError: A tensor is missing.
        ValueError: Tensors that do not fit.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], embeddings: torch.Tensor) -> None:
        digest = hashlib.sha256()
        for name in sorted(tensors):
            digest.update(tensors[name].contiguous().numpy().tobytes())
        self.fingerprint = digest.hexdigest()
        self._table = embeddings.detach().float().numpy()
        self._mean = self._table.mean(axis=0)
        self._meaning = tensors["meaning"].float().numpy()
        self._spelling = tensors["spelling"].float().numpy()
        self._weights = tensors["weights"].float().numpy()
        self._share, self._before = tensors["shares"].float().tolist()
        self.width = self._meaning.shape[1] + self._spelling.shape[1]
        if self._weights.shape != self._table.shape[:1] or (
            self._meaning.shape[0] != self._table.shape[1]
        ):
            raise ValueError("recall tensors of another vocabulary")

    def key(self, reading: Reading) -> Vector:
        """Returns the key of a text, ``(width,)`` float32 of unit length; of no words zeros."""
        inner = [at for at, word in enumerate(reading.words) if word]
        found = np.zeros(self.width, np.float32)
        if not inner:
            return found
        ids = np.array([reading.ids[at] for at in inner])
        kinds = np.array([reading.kinds[at] for at in inner], np.float32)
        weights = self._weights[ids] * (1 - kinds * (1 - self._before))
        pieces = self._table[ids] - self._mean
        pieces /= np.maximum(np.linalg.norm(pieces, axis=1, keepdims=True), 1e-6)
        spelled = np.stack([spelling(reading.words[at]) for at in inner])
        cut = self._meaning.shape[1]
        found[:cut] = self._share**0.5 * _unit((weights @ pieces) @ self._meaning)
        found[cut:] = (1 - self._share) ** 0.5 * _unit((weights @ spelled) @ self._spelling)
        return found


def _unit(vector: Vector) -> Vector:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)
