"""What a model knows of its tokens: how much each one says, and how its embeddings are spread.

How much a token says is its self-information, -log p(t) in nats, where p is the mean of the model's
own next-token distributions over a page of ordinary text (``general``). Every position gives a
whole distribution, so a few hundred of them tell of all tokens, those that the page lacks included;
and a model of any language brings its own.

A model that does not continue text, a classifier, has no such distribution. Of its tokens the page
is counted, and what it lacks is told by the vocabulary: tokenizers are trained to learn frequent
words first, whichever the language, so a word of rank r comes about as often as 1 / r (Zipf). See
benchmarks/results/quality.md for what each is worth.

Computing it takes one pass over some 700 tokens; for a model that was loaded by name the numbers
are kept in the cache folder.
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

_WINDOW = 128  # tokens of the page that are read at a time
_PART = 8192  # rows of the embeddings that are looked at at a time

_RESERVED = re.compile(r"[\[<].*[\]>]$")
"""Tokens kept free for later: `[unused7]`, `<extra_id_3>`."""

_PRIOR = 1.0
"""How much the ranks of a vocabulary count beside the page, as a multiple of its tokens."""

_FIRST = 100.0
"""Added to ranks: the most frequent words are not as frequent as 1 / r has them (Mandelbrot)."""

_LETTERS = 2
"""Of tokens that have a rank: single letters come first, in the order of an alphabet."""


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
        model: A model with nothing attached.
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


def has_words(tokenizer: Any) -> bool:
    """Returns whether a vocabulary is one of words and their parts, and tells where words begin.

    Of a vocabulary of single characters (Chinese BERT) the order tells nothing; and tokenizers that
    mark where words end instead, or that are written in Python, leave no word apart.
    """
    words = ranked(tokenizer)
    if 3 * len(words) < len(tokenizer):
        return False
    tokens = map(str, tokenizer.convert_ids_to_tokens(words))
    begins = sum(token.startswith(WORD_MARKS) for token in tokens)
    return inner_mark(tokenizer) is not None or 10 * begins >= len(words)


def ranked(tokenizer: Any) -> list[int]:
    """Returns the tokens that are words or parts of words, in the order of the vocabulary."""
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


def _cached(fingerprint: str) -> Path:
    """The cached numbers of a model; another page of text gives others."""
    page = hashlib.sha256(TEXT.encode()).hexdigest()[:8]
    name = fingerprint.removeprefix("sha256:")
    return cache_root() / "information" / f"{name}.{page}.safetensors"


def _computed(model: Any, tokenizer: Any) -> Information:
    size = int(model.get_input_embeddings().weight.shape[0])
    continues = layout_of(model).family == "decoder"
    shares = np.sqrt(_unigram(model, tokenizer, size) if continues else _counted(tokenizer, size))
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


def _counted(tokenizer: Any, size: int) -> npt.NDArray[np.float64]:
    """How often tokens come, by the page and by their ranks in the vocabulary, ``(size,)``."""
    ids = tokenizer(TEXT, verbose=False)["input_ids"]
    counts = np.bincount(ids, minlength=size)[:size]
    ranks = np.full(size, float(size))
    order = [token for token in ranked(tokenizer) if token < size]
    ranks[order] = np.arange(1, len(order) + 1)
    zipf = 1 / (ranks + _FIRST)
    found = counts + _PRIOR * len(ids) * zipf / zipf.sum()
    return np.asarray(found / found.sum())
