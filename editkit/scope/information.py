"""What a model knows of its tokens: how much each one says, and how its embeddings are spread.

How much a token says is its self-information, -log p(t) in nats, where p is the mean of the model's
own next-token distributions over a page of ordinary text (``general``). Every position gives a
whole distribution, so a few hundred of them tell of all tokens, those that the page lacks included;
and a model of any language brings its own.

Computing it takes one pass over some 700 tokens; for a model that was loaded by name the numbers
are kept in the cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from editkit.families import text_config
from editkit.models.cache import cache_root, write_atomically
from editkit.scope.general import TEXT

__all__ = ["Information", "embeddings", "of_model"]

Vector = npt.NDArray[np.float32]

_WINDOW = 128  # tokens of the page that are read at a time
_PART = 8192  # rows of the embeddings that are looked at at a time


@dataclass(frozen=True)
class Information:
    """What is known of the tokens of one model.

    Attributes:
        nats: ``(vocabulary,)`` float32, self-information of each token.
        mean: ``(d,)`` float32, mean of the embeddings, tokens weighted by sqrt(p).
        spread: ``(d,)`` float32, their standard deviation.
    """

    nats: Vector
    mean: Vector
    spread: Vector


def of_model(model: Any, tokenizer: Any, *, fingerprint: str, is_kept: bool) -> Information:
    """Returns what a model knows of its tokens.

    Args:
        model: A decoder, with nothing attached.
        tokenizer: Its tokenizer.
        fingerprint: Its identity.
        is_kept: Look in the cache folder first, and leave it there.
    """
    path = _cached(fingerprint)
    if is_kept:
        try:
            return Information(**load_file(path))
        except (OSError, SafetensorError, TypeError):
            pass
    found = _computed(model, tokenizer)
    if is_kept:
        # A cache folder that cannot be written costs the next start a second, not this one its
        # model.
        with contextlib.suppress(OSError):
            write_atomically(path, save(vars(found)))
    return found


def embeddings(model: Any) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields the embeddings of all tokens in parts: the first token, and ``(n, d)`` on its device.

    Through the layer itself, which may scale what its weight holds.
    """
    embedding = model.get_input_embeddings()
    size = int(embedding.weight.shape[0])
    for start in range(0, size, _PART):
        ids = torch.arange(start, min(start + _PART, size), device=model.device)
        with torch.no_grad():
            yield start, embedding(ids)


def _cached(fingerprint: str) -> Path:
    """The cached numbers of a model; another page of text gives others."""
    page = hashlib.sha256(TEXT.encode()).hexdigest()[:8]
    name = fingerprint.removeprefix("sha256:")
    return cache_root() / "information" / f"{name}.{page}.safetensors"


def _computed(model: Any, tokenizer: Any) -> Information:
    size = int(model.get_input_embeddings().weight.shape[0])
    shares = np.sqrt(_unigram(model, tokenizer, size))
    shares /= shares.sum()
    total, squares = 0.0, 0.0
    for start, part in embeddings(model):
        rows = part.double().cpu().numpy()
        weights = shares[start : start + len(rows), None]
        total = total + (rows * weights).sum(axis=0)
        squares = squares + (rows**2 * weights).sum(axis=0)
    spread = np.sqrt(np.maximum(squares - np.square(total), 1e-12))
    nats = -2 * np.log(shares)
    nats += np.log(np.exp(-nats).sum())
    return Information(
        nats.astype(np.float32), np.asarray(total, np.float32), spread.astype(np.float32)
    )


def _unigram(model: Any, tokenizer: Any, size: int) -> npt.NDArray[np.float64]:
    """Mean of the next-token distributions over the page, ``(size,)``."""
    ids = tokenizer(TEXT, verbose=False)["input_ids"]
    limit = getattr(text_config(model), "max_position_embeddings", None) or _WINDOW
    window = min(_WINDOW, int(limit))
    found = np.zeros(size)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(ids), window):
                part = torch.tensor([ids[start : start + window]], device=model.device)
                logits = model(input_ids=part).logits[0].float()
                shares = logits.softmax(dim=-1).sum(dim=0).cpu().numpy()
                found[: len(shares)] += shares[:size]
    finally:
        model.train(was_training)
    # A token that cannot come (padding of the vocabulary) is as rare as the rarest that can.
    return np.asarray(np.maximum(found / found.sum(), 1e-9))
