"""From a question to what the judge's encoder gets: word pieces, and how their words are spelled.

A text is read once; its states serve every comparison with another one. They are those of a small
sentence encoder whose upper layers were adapted to this task (LoRA, Hu et al. 2021, arXiv
2106.09685). Beside its state each word piece brings the letters of its word, so that mistyped words
and words of scripts which the encoder does not know are recognised by their spelling.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from editkit.scope.asking import Question, plain, sentences
from editkit.scope.repair import repaired

__all__ = ["GRAMS", "Reader", "Reading", "adapted_layers", "merge", "spelling"]

GRAMS = 256
"""Length of a word's spelling."""

_BEFORE = 96  # word pieces of earlier turns that are looked at
_ASKS = ("?", "\uff1f", "\u061f")  # Latin, full-width, Arabic


class Reading(NamedTuple):
    """A question in word pieces.

    Attributes:
        ids: Word pieces, with the encoder's marks around them.
        kinds: 1 for what was said before the asking turn, else 0.
        words: The word that each is of; "" for the encoder's marks.
        is_cut: The asking turn is longer than the window, and was cut to the part that asks.
    """

    ids: tuple[int, ...]
    kinds: tuple[int, ...]
    words: tuple[str, ...]
    is_cut: bool

    @property
    def is_empty(self) -> bool:
        """Whether no word is in it."""
        return not any(self.words)

    def asks_the_same(self, other: Reading) -> bool:
        """Returns whether another text reads the same, or ends in a turn that reads like this one.

        What was said before the turn that asks only counts where this text has it too.
        """
        if 1 in self.kinds or 1 not in other.kinds:
            return self.ids == other.ids and self.kinds == other.kinds
        return (
            self.ids[1:-1]
            == tuple(one for one, kind in zip(other.ids, other.kinds, strict=True) if not kind)[
                1:-1
            ]
        )

    @property
    def asked(self) -> list[str]:
        """Its words in their order, each once for all of its pieces in a row."""
        found: list[str] = []
        for word, kind in zip(self.words, self.kinds, strict=True):
            if word and not kind and (not found or found[-1] != word):
                found.append(word)
        return found


class Reader:
    """Reads questions in an encoder's word pieces. May be used from several threads.

    Args:
        tokenizer: The encoder's, of transformers.
        window: Word pieces that are looked at, marks included.
    """

    def __init__(self, tokenizer: Any, window: int = 256) -> None:
        # The plain tokenizer: that of transformers changes its settings in place as it is called.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._first, self._last = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._window = window
        # Pieces that are whole words, of those that the encoder knows best.
        self._known = frozenset(one for one in tokenizer.get_vocab() if one.isalpha())

    def read(self, asked: Question, meant: Sequence[str] = ()) -> Reading:
        """Returns a question as the encoder gets it.

        Args:
            asked: The question.
            meant: Words that mistyped ones of the asking turn are taken for.
        """
        room = self._window - 2
        ids, words = self._pieces(repaired(plain(asked.asking), meant, self._known))
        is_cut = len(ids) > room
        if is_cut:
            ids, words = self._asking_part(asked.asking, room, meant)
        before: list[int] = []
        said: list[str] = []
        room = min(_BEFORE, room - len(ids))
        for turn in reversed(asked.before):
            if room < 2:
                break
            earlier, of = self._pieces(plain(turn))
            earlier, of = earlier[-(room - 1) :], of[-(room - 1) :]
            before = [*earlier, self._last, *before]
            said = [*of, "", *said]
            room -= len(earlier) + 1
        return Reading(
            (self._first, *before, *ids, self._last),
            (0, *(1 for _ in before), *(0 for _ in ids), 0),
            ("", *said, *words, ""),
            is_cut,
        )

    def _pieces(self, text: str) -> tuple[list[int], list[str]]:
        read = self._tokenizer.encode(text, add_special_tokens=False)
        spans: dict[int, tuple[int, int]] = {}
        for word, (start, end) in zip(read.word_ids, read.offsets, strict=True):
            known = spans.get(word, (start, end))
            spans[word] = min(known[0], start), max(known[1], end)
        words = {word: text[start:end] for word, (start, end) in spans.items()}
        return list(read.ids), [words[word] for word in read.word_ids]

    def _asking_part(
        self, text: str, room: int, meant: Sequence[str]
    ) -> tuple[list[int], list[str]]:
        """The sentences that ask, with what surrounds them as far as there is room.

        Questions come before other sentences, and later ones before earlier ones, as whoever
        writes at length asks at the end.
        """
        parts = sentences(text)
        asks = [any(mark in part for mark in _ASKS) for part in parts]
        order = sorted(range(len(parts)), key=lambda at: (not asks[at], -at))
        chosen: dict[int, tuple[list[int], list[str]]] = {}
        for at in order:
            ids, words = self._pieces(repaired(plain(parts[at]), meant, self._known))
            if len(ids) > room:
                if chosen:
                    break
                ids, words = ids[-room:], words[-room:]
            chosen[at] = ids, words
            room -= len(ids)
        kept = [chosen[at] for at in sorted(chosen)]
        return [one for ids, _ in kept for one in ids], [one for _, words in kept for one in words]


@functools.lru_cache(maxsize=1 << 16)
def spelling(word: str) -> npt.NDArray[np.float32]:
    """Returns how a word is spelled, ``(GRAMS,)`` float32 of unit length; of no word zeros.

    Its letters, pairs of neighbours and pairs with one between count: a word and its mistyped form
    share most of them, whichever letters were swapped, doubled or left out.
    """
    counts = np.zeros(GRAMS, np.float32)
    for gram, weight in _grams(word):
        counts[zlib.crc32(gram.encode()) % GRAMS] += weight
    return counts / max(float(np.linalg.norm(counts)), 1e-6)


def _grams(word: str) -> Iterator[tuple[str, float]]:
    if not word:
        return
    edged = f"^{word}$"
    for letter in word:
        yield letter, 1.0
    for at in range(len(edged) - 1):
        yield edged[at : at + 2], 1.0
    for at in range(len(edged) - 2):
        yield edged[at] + "_" + edged[at + 2], 0.5


def adapted_layers(encoder: nn.Module, first: int) -> Iterable[tuple[str, nn.Module, str]]:
    """Yields the linear maps of an encoder from a layer on: name, the module that has it, its name.

    Args:
        encoder: A ``BertModel``.
        first: The first layer that is adapted, counted from 0.
    """
    stack: Any = encoder.encoder
    for at, layer in enumerate(stack.layer):
        if at >= first:
            attention: Any = layer.attention
            yield f"{at}.query", attention.self, "query"
            yield f"{at}.key", attention.self, "key"
            yield f"{at}.value", attention.self, "value"
            yield f"{at}.attended", attention.output, "dense"
            yield f"{at}.wide", layer.intermediate, "dense"
            yield f"{at}.narrow", layer.output, "dense"


def merge(encoder: nn.Module, adapters: Mapping[str, torch.Tensor], first: int) -> None:
    """Adds adapters to an encoder's weights, in place: ``W += up @ down``.

    Args:
        encoder: A ``BertModel`` in float32.
        adapters: ``NAME.up`` ``(out, r)`` and ``NAME.down`` ``(r, in)`` of every adapted map.
        first: The first layer that is adapted.
    """
    with torch.no_grad():
        for name, owner, leaf in adapted_layers(encoder, first):
            weight = getattr(owner, leaf).weight
            weight += adapters[f"{name}.up"].float() @ adapters[f"{name}.down"].float()
