"""Cached activations of edits' wordings below the adapted layers, for training.

Nothing below the first adapted block depends on what is learned, and if the mixture applies from
the query on, nothing before the query does either. So a wording runs through the model once; then a
training step runs only the query token and the target through the adapted blocks and those above,
on top of the cached prompt. Rehearsing an earlier edit costs the same.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from editkit.config import Replacement
from editkit.engines.base import Encoded
from editkit.engines.transformers import training
from editkit.engines.transformers.batches import Batch, lay_out
from editkit.methods.elder.config import Span
from editkit.methods.shortlist import LARGE, Shortlist, output_layer
from editkit.models.layout import Layout

__all__ = ["Note", "Notebook", "TrainingBatch"]

_ROWS = 16
"""Wordings per forward pass."""

_LEADING = 64
"""Tokens kept in the shortlist for each target position; see ``methods.shortlist``."""

_KEPT = 2048
"""Maximum notes kept; about 150 KB each for SmolLM2-135M."""


@dataclass(frozen=True, eq=False)
class Note:
    """The unedited model's activations for one wording and its target.

    Attributes:
        encoded: Prompt and target as tokens.
        query: ``(d,)`` float32, the state of the prompt's last token at the first adapted block.
        states: ``(columns, d)``, input of that block: of the query and the target tokens, or of all
            tokens if the cache cannot be split.
        before: For the blocks from there on, keys and values of the tokens before the query,
            ``(heads, tokens, size)`` each; empty if all tokens are run.
        leading: Top tokens at the target's positions.
    """

    encoded: Encoded
    query: torch.Tensor
    states: torch.Tensor
    before: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    leading: torch.Tensor


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Notes as one teacher-forced batch.

    Attributes:
        batch: Their tokens.
        resumed: ``(rows, columns, d)``, input of the first adapted block.
        on: ``(rows, columns, 1)`` bool, where the mixture applies; None for everywhere.
        shortlist: The tokens whose logits are computed; None for all.
    """

    batch: Batch
    resumed: Any
    on: torch.Tensor | None
    shortlist: Shortlist | None


class Notebook:
    """A cache of notes of one model, computed on first use.

    Args:
        model: A decoder.
        layout: Its layout.
        first: Index of the first adapted block.
        span: Tokens that the mixture applies to.
        paused: Runs its body on the unedited model.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        *,
        first: int,
        span: Span,
        paused: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._model = model
        self._layout = layout
        self._first = first
        self._span = span
        self._paused = paused
        self._is_whole = span == "sequence"
        self._is_tuple = False
        self._kept: OrderedDict[Encoded, Note] = OrderedDict()

    def of(self, wordings: Sequence[Encoded]) -> list[Note]:
        """Returns the note of each wording."""
        missing = [one for one in dict.fromkeys(wordings) if one not in self._kept]
        missing.sort(key=lambda one: len(one.prompt) + len(one.target))
        found = {one: self._kept[one] for one in wordings if one in self._kept}
        for start in range(0, len(missing), _ROWS):
            part = missing[start : start + _ROWS]
            with self._paused(), torch.no_grad():
                found.update(zip(part, self._compute(part), strict=True))
        for one in wordings:
            self._kept[one] = found[one]
            self._kept.move_to_end(one)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return [found[one] for one in wordings]

    def problem(self, notes: Sequence[Note]) -> TrainingBatch:
        """Returns notes as one batch."""
        batch = self._lay_out([note.encoded for note in notes])
        columns = batch.mask if self._is_whole else batch.valid
        resumed = notes[0].states.new_zeros(*columns.shape, notes[0].states.shape[1])
        for row, note in enumerate(notes):
            resumed[row, columns[row].bool().to(resumed.device)] = note.states
        on = None
        if self._is_whole and self._span == "query":
            on = batch.mask.bool()[..., None].clone()
            on[:, : batch.front] = False
        if not self._is_whole:
            batch.cache = self._cache(notes, batch.front)
        head = output_layer(self._model)
        shortlist = None
        if head is not None and head.out_features > LARGE:
            shortlist = Shortlist(head, _LEADING)
            shortlist.take(torch.cat([note.leading for note in notes]))
        return TrainingBatch(batch, (resumed,) if self._is_tuple else resumed, on, shortlist)

    def logits(
        self,
        problem: TrainingBatch,
        modules: Sequence[nn.Module],
        change: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
        *,
        in_full: bool = False,
    ) -> torch.Tensor:
        """Returns the logits of the target tokens, ``(rows, t, n)`` float32.

        Args:
            problem: The batch.
            modules: The adapted layers.
            change: Changes their outputs; see ``training.adjust``.
            in_full: Compute the logits of the whole vocabulary.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._paused())
            if self._first:
                blocks = self._layout.blocks
                stack.enter_context(training.resume_above(blocks, self._first, problem.resumed))
            stack.enter_context(training.adjust(modules, change))
            if problem.shortlist is not None and not in_full:
                stack.enter_context(problem.shortlist.narrowed())
            return problem.batch.logits()

    def _lay_out(self, wordings: Sequence[Encoded]) -> Any:
        replaced: Replacement = "all" if self._is_whole else "last"
        return lay_out(self._model, self._layout, wordings, replacement=replaced, position=None)

    def _compute(self, wordings: Sequence[Encoded]) -> list[Note]:
        blocks = self._layout.blocks
        batch = self._lay_out(wordings)
        watched = [blocks[self._first], blocks[max(0, self._first - 1)]]
        logits, found = batch.begin(*watched)
        if not self._is_whole and not _is_plain(batch.cache):
            # A cache that drops tokens or is compressed cannot be split into rows and joined.
            self._is_whole = True
            return self._compute(wordings)
        states, below = found[0][0], found[1][1]
        self._is_tuple = isinstance(below, tuple)
        columns = batch.mask if self._is_whole else batch.valid
        leading = logits.topk(min(_LEADING, logits.shape[2])).indices
        notes = []
        for row, one in enumerate(wordings):
            mine = states[row, columns[row].bool().to(states.device)].clone()
            start = len(one.prompt) - 1
            length = len(one.target)
            tokens = torch.cat([leading[row, :length].flatten(), batch.target[row, :length]])
            before: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
            if not self._is_whole and batch.cache is not None:
                span = slice(batch.front - start, batch.front)
                before = tuple(
                    (layer.keys[row, :, span].clone(), layer.values[row, :, span].clone())
                    for layer in batch.cache.layers[self._first :]
                )
            query = mine[start if self._is_whole else 0].float()
            notes.append(Note(one, query, mine, before, tokens))
        return notes

    def _cache(self, notes: Sequence[Note], front: int) -> DynamicCache | None:
        """Returns the cached prompts, padded on the left; None if no prompt has cached tokens."""
        if not front:
            return None
        cache = DynamicCache()
        for layer in range(self._first):  # skipped layers; the first one gives the cache's length
            empty = torch.zeros(len(notes), 1, front, 1)
            cache.update(empty, empty, layer)
        like = next(note.before for note in notes if note.before)
        for layer, (keys, values) in enumerate(like):
            padded = []
            for which, one in enumerate((keys, values)):
                whole = one.new_zeros(len(notes), one.shape[0], front, one.shape[2])
                for row, note in enumerate(notes):
                    if note.before:
                        mine = note.before[layer][which]
                        whole[row, :, front - mine.shape[1] :] = mine
                padded.append(whole)
            cache.update(padded[0], padded[1], self._first + layer)
        return cache


def _is_plain(cache: Any) -> bool:
    return cache is None or all(type(layer) is DynamicLayer for layer in cache.layers)
