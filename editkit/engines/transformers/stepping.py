"""Watching rows while they are generated: what came, which edit fired, and ending a row early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from editkit.engines.base import Step, Watch

__all__ = ["watching"]


class _Watched(StoppingCriteria):
    """Hands each step to a watch.

    A stopping criterion and not a streamer, because it may also end a row.
    """

    def __init__(self, watch: Watch, told: Callable[[], Sequence[tuple[str | None, str]]]) -> None:
        self._watch = watch
        self._told = told
        self._known: tuple[tuple[str | None, ...], tuple[str, ...]] | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if self._known is None:  # decided once, at prefill
            told = self._told()
            self._known = tuple(edit for edit, _ in told), tuple(at for _, at in told)
        ended = self._watch(Step(tuple(input_ids[:, -1].tolist()), *self._known))
        return torch.tensor(list(ended), dtype=torch.bool, device=input_ids.device)


def watching(
    watch: Watch, told: Callable[[], Sequence[tuple[str | None, str]]], *others: Any
) -> StoppingCriteriaList:
    """Returns stopping criteria that hand each step to a watch.

    Args:
        watch: The watch.
        told: Gives the edit that fired in each row, and its version, once the prompts have run.
        *others: Stopping criteria beside it.
    """
    return StoppingCriteriaList([*others, _Watched(watch, told)])
