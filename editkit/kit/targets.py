"""The targets of a history's edits as tokens of the running model, and how answers deliver them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import get_args

from editkit.engines.base import Encoded, Targets
from editkit.kit.running import RunningModel
from editkit_store.errors import InvalidRequest
from editkit_store.records import Delivery

__all__ = ["EditTargets"]

_KEPT = 4096
"""Number of edits whose tokens are kept."""


class EditTargets:
    """Looks up the targets of edits; those asked for last are kept.

    Args:
        running: The running model with its history.
    """

    def __init__(self, running: RunningModel) -> None:
        self._running = running
        self._forms = functools.lru_cache(_KEPT)(self._read)

    def asked(self, delivery: Delivery | Sequence[Delivery], count: int) -> Targets:
        """Returns what the engine needs to deliver answers to so many prompts.

        Args:
            delivery: How the answers are delivered: all alike, or one value per prompt.
            count: Number of prompts.

        Raises:
            InvalidRequest: A delivery is unknown, or there is not one per prompt.
        """
        known = get_args(Delivery)
        each = list(delivery) if isinstance(delivery, list | tuple) else [delivery]
        for one in each:
            if one not in known:
                raise InvalidRequest(
                    f"the delivery is 'exact' or 'free', not '{one}'", field="delivery"
                )
        if isinstance(delivery, str):
            each *= count
        if len(each) != count:
            raise InvalidRequest(
                f"{len(each)} deliveries for {count} prompts; give one, or one per prompt",
                field="delivery",
            )
        return Targets(self.forms, [one == "exact" for one in each])

    def forms(self, edit_id: str) -> Sequence[Encoded]:
        """Returns the target of an edit in every form; none if the history does not hold it."""
        try:
            return self._forms(edit_id)
        except KeyError:  # not kept: it may come
            return ()

    def _read(self, edit_id: str) -> tuple[Encoded, ...]:
        # It fired, so it is active at some version; which one makes no difference to its target.
        edit = self._running.store.history.edits([edit_id], at=0, active=[edit_id])[edit_id]
        return self._running.engine.encoder.forms(edit)
