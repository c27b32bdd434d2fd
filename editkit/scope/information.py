"""Token statistics of a model: self-information, and mean and spread of the embeddings.

The self-information of a token is -log p(t) in nats, where p is the mean of the model's own
next-token distributions over a page of ordinary text (``general``). Every position gives a full
distribution, so a few hundred of them cover all tokens, including those that the page lacks, and
models of any language are covered.

A classifier has no such distribution. Its tokens are counted on the page, and for tokens that the
page lacks the vocabulary is used: tokenizers learn frequent words first in any language, so a word
of rank r has a frequency of about 1 / r (Zipf). benchmarks/results/quality.md measures both.

The computation takes one pass over about 700 tokens; for a model that was loaded by name the
numbers are cached on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from editkit.models.cache import cache_root, write_atomically
from editkit.models.layout import layout_of, text_config
from editkit.scope.general import TEXT
from editkit.scope.words import WORD_MARKS, inner_mark

__all__ = ["Information", "embeddings", "has_words", "of_model", "ranked"]

Vector = npt.NDArray[np.float32]

_WINDOW = 128  # tokens of the page per forward pass
_PART = 8192  # embedding rows per block

_RESERVED = re.compile(r"[\[<].*[\]>]$")
"""Reserved tokens: `[unused7]`, `<extra_id_3>`."""

_PRIOR = 1.0
"""Weight of the vocabulary's ranks relative to the page, as a multiple of the page's tokens."""

_FIRST = 100.0
"""Added to ranks: the most frequent words are less frequent than 1 / r (Mandelbrot)."""

_LETTERS = 2
"""Minimum letters of a ranked token: single letters come first, in alphabetical order."""


@dataclass(frozen=True)
class Information:
    """Token statistics of one model.

    Attributes:
        nats: ``(vocabulary,)`` float32, self-information of each token.
        mean: ``(d,)`` float32, mean of the embeddings, tokens weighted by sqrt(p).
        spread: ``(d,)`` float32, their standard deviation.
    """

    nats: Vector
    mean: Vector
    spread: Vector


def of_model(model: Any, tokenizer: Any, *, fingerprint: str, is_kept: bool) -> Information:
    """Returns the token statistics of a model.

    Args:
        model: A model without edits attached.
        tokenizer: Its tokenizer.
        fingerprint: Its identity.
        is_kept: Whether to use the cache folder.
    """
    path = _cache_path(fingerprint)
    if is_kept:
        try:
            return Information(**load_file(path))
        except (OSError, SafetensorError, TypeError):
            pass
    found = _compute(model, tokenizer)
    if is_kept:
        # If the cache folder is not writable, the next start takes a second longer.
        with contextlib.suppress(OSError):
            write_atomically(path, save(vars(found)))
    return found


def embeddings(model: Any) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields the embeddings of all tokens in blocks: the first token, and ``(n, d)`` on the device.

    Uses the layer itself, which may scale its weight.
    """
    embedding = model.get_input_embeddings()
    size = int(embedding.weight.shape[0])
    for start in range(0, size, _PART):
        ids = torch.arange(start, min(start + _PART, size), device=model.device)
        with torch.no_grad():
            yield start, embedding(ids)


def has_words(tokenizer: Any) -> bool:
    """Returns whether a vocabulary consists of words and subwords, and marks where words begin.

    The order of a vocabulary of single characters (Chinese BERT) is not informative; and words
    cannot be separated with tokenizers that mark the ends of words, or that are written in Python.
    """
    words = ranked(tokenizer)
    if 3 * len(words) < len(tokenizer):
        return False
    tokens = map(str, tokenizer.convert_ids_to_tokens(words))
    begins = sum(token.startswith(WORD_MARKS) for token in tokens)
    return inner_mark(tokenizer) is not None or 10 * begins >= len(words)


def ranked(tokenizer: Any) -> list[int]:
    """Returns the tokens that are words or subwords, in the order of the vocabulary."""
    special = frozenset(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [
        number
        for number, token in enumerate(tokens)
        if number not in special
        and token is not None
        and not _RESERVED.match(token)
        and sum(letter.isalpha() for letter in token if letter not in WORD_MARKS) >= _LETTERS
    ]


def _cache_path(fingerprint: str) -> Path:
    """Returns the cache file of a model; its name depends on the page of text."""
    page = hashlib.sha256(TEXT.encode()).hexdigest()[:8]
    name = fingerprint.removeprefix("sha256:")
    return cache_root() / "information" / f"{name}.{page}.safetensors"


def _compute(model: Any, tokenizer: Any) -> Information:
    size = int(model.get_input_embeddings().weight.shape[0])
    continues = layout_of(model).family == "decoder"
    shares = np.sqrt(_unigram(model, tokenizer, size) if continues else _count(tokenizer, size))
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
    """Returns the mean of the next-token distributions over the page, ``(size,)``."""
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
    # Impossible tokens (padding of the vocabulary) count as rare as the rarest possible ones.
    return np.asarray(np.maximum(found / found.sum(), 1e-9))


def _count(tokenizer: Any, size: int) -> npt.NDArray[np.float64]:
    """Returns token frequencies from the page and the ranks in the vocabulary, ``(size,)``."""
    ids = tokenizer(TEXT, verbose=False)["input_ids"]
    counts = np.bincount(ids, minlength=size)[:size]
    ranks = np.full(size, float(size))
    order = [token for token in ranked(tokenizer) if token < size]
    ranks[order] = np.arange(1, len(order) + 1)
    zipf = 1 / (ranks + _FIRST)
    found = counts + _PRIOR * len(ids) * zipf / zipf.sum()
    return np.asarray(found / found.sum())
