"""Correcting the running model: from requests to verified, recorded, active edits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from editkit.contradictions import Contradictions, OnConflict, refusal
from editkit.errors import KeyReused
from editkit.hooks import Attachment
from editkit.learning import BATCH, Learner, Lesson, Outcome
from editkit.methods.view import GraceView
from editkit.models.progress import Progress, SilentProgress
from editkit.prompts import Encoded
from editkit.requests import build_request
from editkit.views import Views
from editkit_store import Store
from editkit_store.errors import StoreUnwritable
from editkit_store.history import prompt_digest
from editkit_store.records import Added, Contradiction, Edit, EditRequest, Provenance
from editkit_store.versions import format_version

__all__ = ["Corrector", "OnConflict", "OnFailure", "Warned"]

OnFailure = Literal["record", "keep"]
"""``record``: log the failed attempt, leave the model as it was. ``keep``: make it active."""


Warned = Callable[[EditRequest, tuple[Contradiction, ...]], None]
"""Told about a request that contradicts active edits, before it is learned."""


@dataclass(frozen=True)
class _Candidate:
    """An edit that was learned and is not committed yet."""

    edit: Edit
    lesson: Lesson
    before: str | None = None
    conflicts: tuple[Contradiction, ...] = ()


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
        self._contradictions = Contradictions(store, attachment)

    def add_many(
        self,
        requests: Iterable[EditRequest | Mapping[str, Any]],
        *,
        on_failure: OnFailure,
        on_conflict: OnConflict,
        provenance: Provenance,
        progress: Progress | None,
        told: Callable[[Added], None] | None = None,
        warned: Warned | None = None,
        before: bool = False,
    ) -> list[Added]:
        """Adds edits, learned in batches, committed one by one; see ``Kit.add_many``."""
        if on_conflict not in ("supersede", "error", "keep"):
            raise ValueError(f"on_conflict is 'supersede', 'error' or 'keep', not '{on_conflict}'")
        if on_failure not in ("record", "keep"):
            raise ValueError(f"on_failure is 'record' or 'keep', not '{on_failure}'")
        if not self._store.is_writable:
            raise StoreUnwritable(
                f"the store '{self._store.path}' was opened to read", path=self._store.path,
                hint="open it without read_only",
            )  # fmt: skip
        # Everything is checked before anything is learned: a bad request costs no good one.
        kind = self._learner.default_kind
        checked = [build_request(request, kind=kind) for request in requests]
        encoded = [self._learner.encode(request) for request in checked]
        pending = list(zip(checked, encoded, strict=True))
        if on_conflict == "error":
            for request, tokens in pending:
                self._respect(request, tokens, on_conflict)
        bar = progress or SilentProgress()
        results: list[Added] = []
        bar.start("Learning edits", len(pending), "edits")
        try:
            for part in self._parts(pending, 1 if on_conflict != "supersede" else BATCH):
                there = self._there(*part[0], on_conflict)
                if there is not None:
                    results.append(there)
                    bar.advance(1)
                    if told is not None:
                        told(there)
                    continue
                batch = self._learned(part, warned)
                if before:
                    batch = self._asked(batch)
                while batch:
                    done = self._verified(batch, on_failure == "keep", provenance, told)
                    results += done
                    batch = batch[len(done) :]
                    bar.advance(len(done))
        finally:
            bar.done()
        return results

    def _parts(
        self, pending: Sequence[tuple[EditRequest, Encoded]], size: int
    ) -> Iterator[Sequence[tuple[EditRequest, Encoded]]]:
        """Yields the requests to learn together; those that may be known already come alone."""
        part: list[tuple[EditRequest, Encoded]] = []
        seen: set[str] = set()
        for one in pending:
            key = one[0].idempotency_key
            alone = key is not None and (
                key in seen or self._store.history.with_key(key) is not None
            )
            if part and (alone or len(part) == size):
                yield part
                part = []
            part.append(one)
            seen.update([key] if key is not None else [])
            if alone:
                yield part
                part = []
        if part:
            yield part

    def _there(
        self, request: EditRequest, encoded: Encoded, on_conflict: OnConflict
    ) -> Added | None:
        """Returns the result of a request for which nothing is to be learned."""
        if request.idempotency_key is not None:
            edit_id = self._store.history.with_key(request.idempotency_key)
            if edit_id is not None:
                return self._known(request, edit_id)
        if on_conflict != "supersede":
            found = self._respect(request, encoded, on_conflict)
            if found:
                return self._found(found[0].edit_id, outcome="kept", conflicts=found)
        return None

    def _respect(
        self, request: EditRequest, encoded: Encoded, on_conflict: OnConflict
    ) -> tuple[Contradiction, ...]:
        """Returns what a request contradicts; refuses it where that is asked for."""
        found = self._contradictions.of(request, self._learner.key(encoded))
        if found and on_conflict == "error":
            raise refusal(request, found)
        return found

    def _known(self, request: EditRequest, edit_id: str) -> Added:
        result = self._found(edit_id, outcome="known")
        if request != EditRequest.model_validate(
            {name: getattr(result.edit, name) for name in EditRequest.model_fields}
        ):
            raise KeyReused(
                f"the idempotency key '{request.idempotency_key}' belongs to edit '{edit_id}', "
                "which came of another request",
                edit_id=edit_id,
                hint="a new request needs a new key",
            )
        return result

    def _found(
        self,
        edit_id: str,
        *,
        outcome: Literal["known", "kept"],
        conflicts: tuple[Contradiction, ...] = (),
    ) -> Added:
        """Returns an edit of the history as a result."""
        current = self._store.history.current()
        artifact = self._store.artifacts.on_model([edit_id], self._learner.fingerprint).get(edit_id)
        metrics = artifact.metrics if artifact else {}
        return Added(
            version=format_version(current),
            verified=artifact is not None and artifact.verified,
            seconds=0.0,
            edit=self._store.history.edits([edit_id], at=current)[edit_id],
            answer=str(metrics.get("answer", "")),
            conflicts=conflicts,
            outcome=outcome,
        )

    def _learned(
        self, batch: Sequence[tuple[EditRequest, Encoded]], warned: Warned | None
    ) -> list[_Candidate]:
        conflicts: dict[int, tuple[Contradiction, ...]] = {}

        def met(index: int, key: torch.Tensor) -> None:
            request = batch[index][0]
            conflicts[index] = self._contradictions.of(request, key)
            if conflicts[index] and warned is not None:
                warned(request, conflicts[index])

        lessons = self._learner.learn([encoded for _, encoded in batch], met=met)
        return [
            _Candidate(self._store.prepare(request), lesson, conflicts=conflicts.get(index, ()))
            for index, ((request, _), lesson) in enumerate(zip(batch, lessons, strict=True))
        ]

    def _asked(self, batch: Sequence[_Candidate]) -> list[_Candidate]:
        """Notes what the model says without the edits of a batch."""
        said = self._learner.answers([one.lesson.encoded for one in batch])
        return [
            dataclasses.replace(one, before=answer.text)
            for one, answer in zip(batch, said, strict=True)
        ]

    def _verified(
        self,
        batch: Sequence[_Candidate],
        keep: bool,
        provenance: Provenance,
        told: Callable[[Added], None] | None,
    ) -> list[Added]:
        """Asks for all edits of a batch at once, and commits them up to the first that fails.

        Each is asked on the view that its own version would have: all before it and itself. Those
        after a failed one were asked on views that held it, so they are asked again.
        """
        started = time.monotonic()
        views = self._chain(batch)
        said = self._learner.tried([one.lesson for one in batch], *views)
        share = (time.monotonic() - started) / len(batch)
        results: list[Added] = []
        try:
            for one, view, answer in zip(batch, views, said, strict=True):
                lesson = dataclasses.replace(one.lesson, seconds=one.lesson.seconds + share)
                outcome = self._learner.settle(one.edit, lesson, view, answer, keep=keep)
                results.append(self._commit(one, outcome, provenance))
                if told is not None:
                    told(results[-1])
                # Settling may also have taken another row than the later views hold.
                if not outcome.artifact.usable or outcome.view is not view:
                    break
        finally:
            for left in batch[len(results) :]:
                self._views.memory.discard(left.edit.id)
        return results

    def _chain(self, batch: Sequence[_Candidate]) -> list[GraceView]:
        """Returns the view after each edit of a batch, if all of them verify."""
        history, memory = self._store.history, self._views.memory
        current = history.current()
        view = self._attachment.view
        assert isinstance(view, GraceView)
        rows = view.rows
        prompts: dict[str, str] = {}
        views = []
        for number, one in enumerate(batch, 1):
            digest = prompt_digest(one.edit)
            older = [*history.same_prompt(digest, current)]
            if digest in prompts:
                older.append(prompts[digest])
            prompts[digest] = one.edit.id
            rows = rows[~np.isin(rows, memory.rows(older))]
            rows = np.append(rows, self._learner.remember(one.edit, one.lesson))
            views.append(self._views.folded(rows, format_version(current + number)))
        return views

    def _commit(self, one: _Candidate, outcome: Outcome, provenance: Provenance) -> Added:
        operation, edit = self._store.add(
            one.edit,
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
            before=one.before,
            answer=outcome.answer,
            steps=outcome.steps,
            supersedes=tuple(operation.detail["supersedes"]),
            conflicts=one.conflicts,
            reach=self._learner.reach(edit, one.lesson, outcome.view)
            if operation.changed
            else None,
        )
