"""Correcting the running model: from requests to verified, recorded, active edits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from editkit.generation import Generated
from editkit.hooks import Attachment
from editkit.learning import Learner
from editkit.methods.grace import LearnedValue
from editkit.models.progress import Progress, SilentProgress
from editkit.prompts import Encoded
from editkit.replay import BATCH
from editkit.requests import build_request
from editkit.views import Views
from editkit_store import Store
from editkit_store.history import prompt_digest
from editkit_store.records import Added, EditRequest, Provenance
from editkit_store.versions import format_version

__all__ = ["Corrector", "OnFailure"]

OnFailure = Literal["record", "keep"]
"""``record``: log the failed attempt, leave the model as it was. ``keep``: make it active."""


class Corrector:
    """Learns requests, verifies them, writes them down, and moves the running model on.

    Args:
        store: The history.
        learner: The model's.
        views: The model's views of the history.
        attachment: What the running model follows.
        settings: What the store does not remember yet and should.
    """

    def __init__(
        self,
        store: Store,
        learner: Learner,
        views: Views,
        attachment: Attachment,
        settings: Callable[[], Mapping[str, str]],
    ) -> None:
        self._store = store
        self._learner = learner
        self._views = views
        self._attachment = attachment
        self._settings = settings

    def add_many(
        self,
        requests: Iterable[EditRequest | Mapping[str, Any]],
        *,
        on_failure: OnFailure,
        provenance: Provenance,
        progress: Progress | None,
    ) -> list[Added]:
        """Adds edits, learned in batches, committed one by one; see ``Kit.add_many``."""
        if on_failure not in ("record", "keep"):
            raise ValueError(f"on_failure is 'record' or 'keep', not '{on_failure}'")
        # Everything is checked before anything is learned: a bad request costs no good one.
        kind = self._learner.default_kind
        checked = [build_request(request, kind=kind) for request in requests]
        encoded = [self._learner.encode(request) for request in checked]
        pending = list(zip(checked, encoded, strict=True))
        told = progress or SilentProgress()
        results: list[Added] = []
        told.start("Learning edits", len(pending), "edits")
        try:
            for at in range(0, len(pending), BATCH):
                batch = pending[at : at + BATCH]
                before = self._learner.answers([one for _, one in batch])
                learned = self._learner.learn([one for _, one in batch])
                for (request, tokens), value, said in zip(batch, learned, before, strict=True):
                    results.append(
                        self._commit(request, tokens, value, said, on_failure == "keep", provenance)
                    )
                    told.advance(1)
        finally:
            told.done()
        return results

    def _commit(
        self,
        request: EditRequest,
        encoded: Encoded,
        learned: tuple[LearnedValue, float],
        before: Generated,
        keep: bool,
        provenance: Provenance,
    ) -> Added:
        history = self._store.history
        current = history.current()
        edit = self._store.prepare(request)
        older = set(history.same_prompt(prompt_digest(edit), current))
        among: Sequence[str] = [
            *(edit_id for edit_id in history.active_ids(current) if edit_id not in older),
            edit.id,
        ]
        version = format_version(current + 1)
        outcome = self._learner.verify(
            edit, encoded, learned, among=among, version=version, keep=keep
        )
        operation, edit = self._store.add(
            edit,
            artifact=outcome.artifact,
            payload=outcome.payload,
            activate=outcome.artifact.usable,
            provenance=provenance,
            settings=self._settings(),
        )
        if operation.changed:
            # The truth is written; now the running model follows, by one assignment.
            self._views.keep(operation.version, outcome.view)
            self._attachment.view = outcome.view
        return Added(
            version=format_version(operation.version),
            verified=outcome.artifact.verified,
            seconds=outcome.seconds,
            edit=edit,
            before=before.text,
            answer=outcome.answer,
            steps=outcome.steps,
            supersedes=tuple(operation.detail["supersedes"]),
        )
