"""Teacher-forced batches of edits, for each model family.

A batch runs the model on prompts followed by their targets, so that one forward call yields the
logits of every target token. If only the query position is replaced, the prompts of a decoder are
cached and a call runs only the query token and the target: nothing before the query can see the
value.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from editkit.config import Position, Replacement
from editkit.engines.base import Encoded, Family
from editkit.engines.learning import Forced
from editkit.engines.transformers import training
from editkit.models.layout import Layout

__all__ = ["Batch", "lay_out", "supported"]


class Batch(Forced):
    """A batch of edits as tensors; see ``Forced``.

    Attributes:
        columns: ``(rows,)`` int64, column of the query in the site's output.
        replaced: ``(rows, length)`` bool, columns there that the value replaces.
    """

    _rowwise: ClassVar[tuple[str, ...]] = ("target", "valid", "columns", "replaced", "prompts")
    columns: torch.Tensor
    replaced: torch.Tensor

    def __init__(self, model: Any) -> None:
        self.model = model

    def begin(self, *modules: nn.Module) -> tuple[torch.Tensor, list[tuple[torch.Tensor, Any]]]:
        """Runs the unmodified model once, and caches what no value can change.

        Args:
            *modules: Modules to capture.

        Returns:
            What ``logits`` returns; and the input and output of each module, as in a call of
            ``logits``.
        """
        with training.capture(*modules) as found:
            return self.logits(), found

    def select(self, rows: torch.Tensor) -> Batch:
        """Returns a batch of some rows, without the columns that they do not need."""
        chosen = copy.copy(self)
        for name in self._rowwise:
            value = getattr(self, name)
            setattr(chosen, name, None if value is None else value[rows])
        return chosen


class _Decoder(Batch):
    """Prompt and target in one sequence; every query is in the same column.

    Prefixes (prompts without their last token) are padded on the left, suffixes (that token and the
    target without its last one) on the right. If cached, the prefixes live in a KV cache and a call
    runs the suffixes, whose column 0 is the query; otherwise a call runs both.
    """

    _rowwise = (*Batch._rowwise, "prefix", "suffix", "mask", "positions")

    def __init__(
        self, model: Any, requests: Sequence[Encoded], replacement: Replacement, position: Position
    ) -> None:
        super().__init__(model)
        device = model.device
        prefixes = [list(request.prompt[:-1]) for request in requests]
        suffixes = [[request.prompt[-1], *request.target[:-1]] for request in requests]
        self.front = max(map(len, prefixes))
        self.prefix, before = _padded(prefixes, left=True)
        self.suffix, self.valid = _padded(suffixes)
        self.target, _ = _padded([list(request.target) for request in requests])
        self.mask = torch.cat([before, self.valid], dim=1).long()
        self.prompts = self.mask[:, : self.front + 1]
        self.positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)  # (rows, front + back)
        # No mask without padding: attention then takes its faster path, as in a plain prefill.
        self.is_padded = bool((self.mask == 0).any())
        self.cache: Any = None
        self.is_cached = replacement == "last" and position == "last"
        if self.is_cached:
            self.columns = torch.zeros(len(requests), dtype=torch.long)
            self.replaced = torch.zeros_like(self.valid)
            self.replaced[:, 0] = True
        else:
            rows = torch.arange(len(requests))
            self.columns = torch.full_like(rows, self.front)
            if position == "first":
                self.columns = self.mask.argmax(dim=1)
            self.replaced = self.mask.bool()
            if replacement == "prompt":
                self.replaced[:, self.front + 1 :] = False
            elif replacement == "last":
                self.replaced = torch.zeros_like(self.replaced)
                self.replaced[rows, self.columns] = True
        for name in self._rowwise:
            setattr(self, name, getattr(self, name).to(device))

    def select(self, rows: torch.Tensor) -> Batch:
        chosen = super().select(rows)
        assert isinstance(chosen, _Decoder)
        back = int(chosen.valid.sum(dim=1).max())
        spare = chosen.valid.shape[1] - back
        for name in ("suffix", "target", "valid", "mask", "positions", "replaced"):
            value = getattr(chosen, name)
            setattr(chosen, name, value[:, : value.shape[1] - spare])
        chosen.is_padded = bool((chosen.mask == 0).any())
        chosen.cache = _branched(self.cache)
        if chosen.cache is not None:
            chosen.cache.batch_select_indices(rows)
        return chosen

    def begin(self, *modules: nn.Module) -> tuple[torch.Tensor, list[tuple[torch.Tensor, Any]]]:
        if not self.is_cached or self.front == 0:
            return super().begin(*modules)
        with training.capture(*modules) as found:
            output = self._run(torch.cat([self.prefix, self.suffix], dim=1), slice(None))
        back = self.suffix.shape[1]
        self.cache = output.past_key_values
        try:
            self.cache.crop(-back)
        except (AttributeError, RuntimeError, ValueError):
            # A cache that drops tokens (a full sliding window, a state-space layer) cannot be
            # cropped to where the target starts, so the prefix is run on its own.
            self.cache = self._run(self.prefix, slice(0, self.front)).past_key_values
            return super().begin(*modules)
        cut = [(_last_columns(i, back), _last_columns(o, back)) for i, o in found]
        return output.logits[:, -back:].float(), cut

    def _run(self, ids: torch.Tensor, columns: slice) -> Any:
        """Runs some columns from the start, and fills a cache."""
        return self.model(
            input_ids=ids,
            **supported(
                self.model,
                attention_mask=self.mask[:, columns] if self.is_padded else None,
                position_ids=self.positions[:, columns] if self.is_padded else None,
                logits_to_keep=self.suffix.shape[1],
                use_cache=True,
            ),
        )

    def logits(self) -> torch.Tensor:
        start, back = (self.front if self.is_cached else 0), self.suffix.shape[1]
        logits: torch.Tensor = self.model(
            input_ids=self.suffix if self.is_cached else torch.cat([self.prefix, self.suffix], 1),
            past_key_values=_branched(self.cache),
            **supported(
                self.model,
                attention_mask=self.mask if self.is_padded else None,
                position_ids=self.positions[:, start:] if self.is_padded else None,
                logits_to_keep=back,
                use_cache=self.cache is not None,
            ),
        ).logits
        return logits[:, -back:].float()


class _EncoderDecoder(Batch):
    """Prompts in the encoder, where the site is; targets in the decoder."""

    _rowwise = (*Batch._rowwise, "inputs", "mask", "decoder_inputs")

    def __init__(
        self, model: Any, requests: Sequence[Encoded], replacement: Replacement, position: Position
    ) -> None:
        super().__init__(model)
        start = model.generation_config.decoder_start_token_id
        start = model.config.decoder_start_token_id if start is None else start
        prompts = [list(request.prompt) for request in requests]
        self.inputs, attended = _padded(prompts)
        self.mask = self.prompts = attended.long()
        self.target, self.valid = _padded([list(request.target) for request in requests])
        self.decoder_inputs, _ = _padded([[start, *request.target[:-1]] for request in requests])
        self.columns, self.replaced = _encoder_columns(attended, replacement, position)
        for name in self._rowwise:
            setattr(self, name, getattr(self, name).to(model.device))

    def logits(self) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=self.inputs,
            attention_mask=self.mask,
            decoder_input_ids=self.decoder_inputs,
            **supported(self.model, use_cache=False),
        ).logits
        return logits.float()


class _Classifier(Batch):
    """One input per row; its label is the only target token."""

    _rowwise = (*Batch._rowwise, "inputs", "mask")

    def __init__(
        self, model: Any, requests: Sequence[Encoded], replacement: Replacement, position: Position
    ) -> None:
        super().__init__(model)
        self.inputs, attended = _padded([list(request.prompt) for request in requests])
        self.mask = self.prompts = attended.long()
        self.target = torch.tensor([[request.target[0]] for request in requests])
        self.valid = torch.ones_like(self.target, dtype=torch.bool)
        self.columns, self.replaced = _encoder_columns(attended, replacement, position)
        pad = getattr(model.config, "pad_token_id", None)
        if pad is not None:  # decoders with a classification head locate the last token by padding
            self.inputs = self.inputs.masked_fill(~attended, pad)
        for name in self._rowwise:
            setattr(self, name, getattr(self, name).to(model.device))

    def logits(self) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=self.inputs, attention_mask=self.mask).logits
        return logits[:, None, :].float()  # (rows, 1, labels)


def lay_out(
    model: Any,
    layout: Layout,
    requests: Sequence[Encoded],
    *,
    replacement: Replacement,
    position: Position | None,
) -> Batch:
    """Returns requests as a batch for the model's family.

    Args:
        model: The model.
        layout: Its layout.
        requests: Prompts and targets as tokens.
        replacement: Positions that the value replaces.
        position: Token of the prompt that is the query; by default the model family's.
    """
    kinds: dict[Family, Callable[..., Batch]] = {
        "decoder": _Decoder,
        "encoder-decoder": _EncoderDecoder,
        "classifier": _Classifier,
    }
    return kinds[layout.family](model, requests, replacement, position or layout.position)


def supported(model: nn.Module, **arguments: Any) -> dict[str, Any]:
    """Returns the arguments that are set and that the model's forward accepts."""
    taken = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in arguments.items() if value is not None and name in taken}


def _padded(rows: list[list[int]], *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns padded ids ``(rows, longest)`` int64, and their mask, bool."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        span = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, span] = torch.tensor(row, dtype=torch.long)
        mask[index, span] = True
    return ids, mask


def _encoder_columns(
    attended: torch.Tensor, replacement: Replacement, position: Position
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns query columns ``(rows,)`` and replaced columns ``(rows, length)`` of full inputs."""
    rows = torch.arange(len(attended))
    columns = attended.sum(dim=1) - 1 if position == "last" else torch.zeros_like(rows)
    if replacement != "last":
        return columns, attended.clone()
    replaced = torch.zeros_like(attended)
    replaced[rows, columns] = True
    return columns, replaced


def _last_columns(output: Any, count: int) -> Any:
    """Returns the last columns of a module's input or output ``(rows, length, n)``."""
    if isinstance(output, tuple):
        return (_last_columns(output[0], count), *output[1:])
    return output[:, -count:]


def _branched(cache: Any) -> Any:
    """Returns a cache that continues ``cache`` without changing it; the tensors are shared."""
    if cache is None:
        return None
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    return branch
