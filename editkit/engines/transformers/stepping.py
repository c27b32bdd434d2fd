"""A callback after every decoding step, which may end rows early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from editkit.engines.base import Step, Watch
from editkit.engines.transformers.delivery import TargetCheck

__all__ = ["watching"]


class _Watched(StoppingCriteria):
    """Passes each step to a watch.

    It is a stopping criterion and not a streamer, because it may also end a row.
    """

    def __init__(
        self,
        watch: Watch,
        fired: Callable[[], Sequence[tuple[str | None, str]]],
        check: TargetCheck | None,
    ) -> None:
        self._watch = watch
        self._fired = fired
        self._check = check
        self._known: tuple[tuple[str | None, ...], tuple[str, ...]] | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if self._known is None:  # decided once, at prefill
            fired = self._fired()
            self._known = tuple(edit for edit, _ in fired), tuple(at for _, at in fired)
        told = () if self._check is None else self._check.told(input_ids)
        ended = self._watch(
            Step(tuple(input_ids[:, -1].tolist()), *self._known, told or (None,) * len(input_ids))
        )
        if self._check is not None:
            self._check.end([row for row, is_over in enumerate(ended) if is_over])
        return torch.tensor(list(ended), dtype=torch.bool, device=input_ids.device)


def watching(
    watch: Watch,
    fired: Callable[[], Sequence[tuple[str | None, str]]],
    check: TargetCheck | None,
    *others: Any,
) -> StoppingCriteriaList:
    """Returns stopping criteria that pass each step to a watch.

    Args:
        watch: The watch.
        fired: Returns the edit that fired in each row and the version, once the prompts have run.
        check: Compares the answers with the targets of the edits that fired, if it is asked for.
        *others: More stopping criteria.
    """
    return StoppingCriteriaList([*others, _Watched(watch, fired, check)])
