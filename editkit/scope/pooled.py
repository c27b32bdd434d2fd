"""The pooled key: a vector of what a prompt asks about, which rephrases share.

GRACE looks an edit up by the hidden state of the prompt's last token, which in a decoder encodes
the next token rather than the topic: rephrases lie as far away as unrelated prompts. The pooled key
is a mean over the words of the prompt,

    k = normalize( sum_w  a_w u_w ),        u_w = normalize( sum_{t in w} i_t e_t )

of the model's own token embeddings, standardized (e_t: minus the mean, divided by the spread, to
unit length). Each word is weighted by its information: a_w is the sum of its tokens'
self-information i_t beyond that of everyday words, up to a limit. Names and numbers weigh more,
since they identify the subject, and also have a spelling component: the embeddings of numbers are
all similar. Only the last sentence of the last turn counts in full. Earlier turns count if it names
nothing ("And its capital?"), unless they name nothing either and it stands alone: "Which planet is
closest to the sun?" after "Hello!" is treated as a first question.

Keys have unit length, so an L2 distance r between two of them is a cosine of 1 - r^2 / 2.

Source: the whitened mean is that of Huang et al., "WhiteningBERT" (2021, arXiv 2104.01767), here of
the embedding layer; weights by self-information after Salton and Buckley (1988). Ablations and
alternatives: benchmarks/results/quality.md.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from editkit.scope.information import Information
from editkit.scope.information import embeddings as embedded
from editkit.scope.spelling import direction
from editkit.scope.words import Word, Words, refers_back

__all__ = ["PooledKeys"]

Vector = npt.NDArray[np.float32]

_EVERYDAY = 4.0
"""Nats of everyday tokens, which are subtracted: `the` has 3, `what` 8, rare names 13."""

_LIMIT = 10.0
"""Maximum weight of a word, nats, however many tokens it has."""

_LEAST = 0.02
"""Weight of an uninformative token, so that a prompt of such tokens has a key too."""

_SAYING = 2.0
"""Nats beyond everyday words above which a word counts as informative."""

_TELLING = 2
"""Minimum informative words of a turn that stands alone: "Why?" does not."""

_NAME = 3.0
"""Factor on the weight of names and numbers."""

_NAME_LEAST = 5.0
"""Minimum weight of a name or a number, nats: digits are common tokens."""

_SPELLING = 0.3
"""Fraction of a name's squared vector that is spelling; a number's is all spelling."""

_SENTENCE = 2
"""Minimum words of a question: text that breaks off after "... ever. Johnson" is none about him."""

_EARLIER = 0.1
"""Weight of the sentences before the question."""

_COMMON = 0.3
"""A capitalized word at the start of a sentence is not a name if its lowercase form has at least
this relative frequency."""

_REMEMBERED = 4096  # cached tokens, and cached spellings: most of a prompt's occurred before
_KEPT = 256  # cached keys of recent prompts: `add` computes the same one several times


class _Token(NamedTuple):
    """Cached data of a token.

    Attributes:
        row: Its standardized embedding, ``(1, d)`` of unit length.
        weighted: The row times the token's weight.
        says: Its weight: nats beyond those of an everyday word.
        square: Squared length of ``weighted``.
    """

    row: Vector
    weighted: Vector
    says: float
    square: float


class PooledKeys:
    """Keys of prompts for one model. May be used from several threads.

    Args:
        model: A language model.
        tokenizer: Its tokenizer.
        information: Returns the model's token statistics; called once, for the first key. It may
            run the model, which must have no edits attached then.
    """

    def __init__(self, model: Any, tokenizer: Any, information: Callable[[], Information]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._embedding = model.get_input_embeddings()
        self._information = information
        self._words = Words(tokenizer)
        self._names: dict[str, bool] = {}
        self._keys: OrderedDict[tuple[int, ...], Vector] = OrderedDict()
        self._seen: dict[int, _Token] = {}
        self._spellings: dict[str, Vector] = {}

    kind = "pooled"

    @property
    def width(self) -> int:
        """Length of a key."""
        return int(self._embedding.weight.shape[1])

    def prepare(self) -> None:
        """Loads the token statistics, so that computing a key does not run the model."""
        _ = self._weights

    @functools.cached_property
    def _known(self) -> Information:
        return self._information()

    @functools.cached_property
    def _weights(self) -> Vector:
        return np.asarray(np.maximum(self._known.nats - _EVERYDAY, _LEAST), np.float32)

    @property
    def _typical(self) -> Vector | None:
        """The mean word vector, ``(d,)``, if it is subtracted from each word; see ``TextKeys``."""
        return None

    def key(self, ids: Sequence[int]) -> Vector:
        """Returns the key of a prompt, ``(d,)`` float32 of unit length.

        Args:
            ids: Its tokens, or those of a conversation up to the start of the answer.
        """
        asked = tuple(ids)
        found = self._keys.get(asked)
        if found is None:
            found = self._keys[asked] = self._compute(asked)
            while len(self._keys) > _KEPT:
                self._keys.popitem(last=False)
        return found

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the token ids of embeddings ``(n, d)``: the nearest ones."""
        rows = embeddings.float()
        best = torch.full((len(rows),), torch.inf, device=rows.device)
        found = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        for start, table in embedded(self._model):
            apart, at = torch.cdist(rows, table.float().to(rows.device)).min(dim=1)
            found = torch.where(apart < best, at + start, found)
            best = torch.minimum(best, apart)
        return [int(token) for token in found]

    def said(self, ids: Sequence[int]) -> tuple[list[str], list[str]]:
        """Returns the words that a prompt's key is made of, in order.

        Args:
            ids: The prompt's tokens.

        Returns:
            Names and numbers; and other informative words.
        """
        words, names = self._asked(tuple(ids))
        named = [word.text for word, is_name in zip(words, names, strict=True) if is_name]
        others = [
            word.text
            for word, is_name in zip(words, names, strict=True)
            if not is_name and self._is_informative(word)
        ]
        return list(dict.fromkeys(named)), list(dict.fromkeys(others))

    def asked(self, ids: Sequence[int]) -> str:
        """Returns the question in a prompt as text: the part that counts in full in its key.

        Args:
            ids: The prompt's tokens.
        """
        words, names = self._asked(tuple(ids))
        if not words:
            return str(self._tokenizer.decode(list(ids)))
        asking = _asking(words, names)
        kept = [token for word in words if word.sentence >= asking for token in word.ids]
        return str(self._tokenizer.decode(kept)).strip()

    def told_apart(self, ids: Sequence[int]) -> tuple[float | None, float | None]:
        """Estimates how far other questions would lie from a prompt, L2, from its words' weights.

        Assumes a question that shares one part of the key with the prompt, and whose other part has
        the same weight but is orthogonal to the prompt's.

        Args:
            ids: The prompt's tokens.

        Returns:
            Distance of the same question about another subject (None if nothing is named); and of
            another question about the same subject.
        """
        names, rest = self._parts(tuple(ids))
        apart = float(np.hypot(np.linalg.norm(names), np.linalg.norm(rest)))
        scale = max(apart * float(np.linalg.norm(names + rest)), 1e-12)

        def distance(shared: npt.NDArray[np.float64]) -> float:
            cosine = float(shared @ (names + rest)) / scale
            return float(np.sqrt(max(0.0, 2 - 2 * cosine)))

        return distance(rest) if names.any() else None, distance(names)

    def _compute(self, ids: tuple[int, ...]) -> Vector:
        names, rest = self._parts(ids)
        key = names + rest
        return (key / max(math.sqrt(np.dot(key, key)), 1e-6)).astype(np.float32)

    def _parts(
        self, ids: tuple[int, ...]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Returns the parts of a key from names and numbers, and from the other words, ``(d,)``."""
        words, names = self._asked(ids)
        if not words:  # only punctuation
            words = [Word(1, True, list(ids), self._tokenizer.decode(list(ids)))]
            names = [False]
        asking = _asking(words, names)
        # As few numpy calls as possible: while a model runs, each costs 30 microseconds.
        tokens = self._tokens([token for word in words for token in word.ids])
        starts = itertools.accumulate((len(word.ids) for word in words[:-1]), initial=0)
        parts = [token.row for token in tokens]
        shares: tuple[list[float], list[float]] = [0.0] * len(tokens), [0.0] * len(tokens)
        said = [0.0, 0.0]
        for word, is_name, start in zip(words, names, starts, strict=True):
            own = range(start, start + len(word.ids))
            square = _square([tokens[at] for at in own])
            weight = min(math.fsum(tokens[at].says for at in own), _LIMIT)
            if is_name:
                weight = max(weight, _NAME_LEAST) * _NAME
            if word.sentence < asking:
                weight *= _EARLIER
            spelling = (1.0 if word.has_digit else _SPELLING) if is_name else 0.0
            said[not is_name] += weight * math.sqrt(1 - spelling)
            for at in own:
                shares[not is_name][at] = (
                    weight
                    * math.sqrt(1 - spelling)
                    * tokens[at].says
                    / max(math.sqrt(square), 1e-6)
                )
            if is_name:
                parts.append(self._spelling_of(word.text))
                shares[0].append(weight * math.sqrt(spelling))
                shares[1].append(0.0)
        of_names, rest = np.array(shares) @ np.concatenate(parts)
        if (typical := self._typical) is not None:
            of_names, rest = of_names - said[0] * typical, rest - said[1] * typical
        return of_names, rest

    def _asked(self, ids: tuple[int, ...]) -> tuple[list[Word], list[bool]]:
        """Returns the words that count, and which of them are names."""
        words = self._words.split(ids)
        names = [self._is_name(word) for word in words]
        if not any(names):
            # "And its capital?": earlier turns give the subject.
            said = self._words.split(ids, turns="all")
            named = [self._is_name(word) for word in said]
            if any(named) or not self._stands_alone(words):
                return said, named
        return words, names

    def _stands_alone(self, words: Sequence[Word]) -> bool:
        """Whether a turn that names nothing can be understood without earlier ones."""
        return not refers_back(words) and sum(map(self._is_informative, words)) >= _TELLING

    def _is_informative(self, word: Word) -> bool:
        return float(self._weights[word.ids].sum()) >= _SAYING

    def _tokens(self, ids: Sequence[int]) -> list[_Token]:
        found = {token: known for token in ids if (known := self._seen.get(token))}
        new = [token for token in dict.fromkeys(ids) if token not in found]
        if new:
            if len(self._seen) > _REMEMBERED:
                self._seen.clear()
            rows, says = self._standardized(new), self._weights[new]
            for at, token in enumerate(new):
                row = rows[at : at + 1]
                weighted = row * says[at]
                known = _Token(row, weighted, float(says[at]), _length(weighted))
                found[token] = self._seen[token] = known
        return [found[token] for token in ids]

    def _standardized(self, ids: list[int]) -> Vector:
        with torch.no_grad():
            asked = torch.tensor(ids, device=self._model.device)
            rows = self._embedding(asked).float().cpu().numpy()
        rows = (rows - self._known.mean) / self._known.spread
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))

    def _spelling_of(self, text: str) -> Vector:
        """Returns the direction of a spelling, ``(1, d)`` of unit length; ignores case."""
        found = self._spellings.get(text)
        if found is None:
            if len(self._spellings) > _REMEMBERED:
                self._spellings.clear()
            found = direction(text.lower(), self.width)
            self._spellings[text] = found
        return found

    def _is_name(self, word: Word) -> bool:
        if word.has_digit:
            return True
        if not word.text[:1].isupper():
            return False
        if not word.is_first or len(word.ids) > 1:
            return True
        found = self._names.get(word.text)
        if found is None:
            small, own = self._frequency(word.text.lower()), self._frequency(word.text)
            found = self._names[word.text] = small < _COMMON * own
        return found

    def _frequency(self, text: str) -> float:
        """Returns the probability of a single-token word, at the start of or within a sentence."""
        total = 0.0
        for form in (text, f" {text}"):
            ids = self._tokenizer(form, add_special_tokens=False, verbose=False)["input_ids"]
            if len(ids) == 1:
                total += float(np.exp(-self._known.nats[ids[0]]))
        return total


# Summed in this order so that keys are bit-identical to those in existing histories: where edits
# must not overlap, two with equal keys have radius 0 and fire only at distance 0.
def _square(tokens: Sequence[_Token]) -> float:
    """Returns the squared length of a word's vector before normalization."""
    if len(tokens) == 1:
        return tokens[0].square
    total = tokens[1].weighted
    for token in tokens[2:]:
        total = total + token.weighted
    return _length(tokens[0].weighted + total)


def _length(vector: Vector) -> float:
    """Returns the squared length of a vector ``(1, d)``."""
    return float(np.einsum("wd,wd->w", vector, vector)[0])


def _asking(words: Sequence[Word], names: Sequence[bool]) -> int:
    """Returns the first sentence of the question: the last one, or an earlier one with a name."""
    asking = words[-1].sentence
    named = {word.sentence for word, is_name in zip(words, names, strict=True) if is_name}
    while asking > 1 and (
        not any(sentence >= asking for sentence in named)
        or sum(word.sentence >= asking for word in words) < _SENTENCE
    ):
        asking -= 1
    return asking
