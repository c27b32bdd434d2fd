"""Correcting the running model: from requests to verified, recorded, active edits."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from editkit.editing.conflicts import Contradictions, OnConflict, refusal
from editkit.editing.requests import build_request
from editkit.engines.base import Encoded, Engine, View
from editkit.errors import KeyReused
from editkit.history.views import Views
from editkit.methods.base import SLACK, EditMethod, LearnedEdit, Lesson
from editkit.methods.opened import Methods
from editkit.models.progress import Progress, SilentProgress
from editkit.scope.told import text_reach
from editkit_store import NewEdit, Store
from editkit_store.history import Operation, prompt_digest
from editkit_store.history.versions import format_version
from editkit_store.records import (
    Added,
    Contradiction,
    Edit,
    EditReach,
    EditRequest,
    Provenance,
)

__all__ = ["Editor", "OnConflict", "OnFailure", "Warned"]

OnFailure = Literal["record", "keep"]
"""``record``: log the failed attempt, leave the model as it was. ``keep``: make it active."""


Warned = Callable[[EditRequest, tuple[Contradiction, ...]], None]
"""Called with a request that contradicts active edits, before it is learned."""


@dataclass(frozen=True)
class _Candidate:
    """An edit that was learned but is not committed yet."""

    edit: Edit
    lesson: Lesson
    before: str | None = None
    conflicts: tuple[Contradiction, ...] = ()


class Editor:
    """Learns requests, verifies and records them, and updates the running model.

    Args:
        store: The history.
        engine: The running model.
        methods: Its methods.
        views: Its views of the history.
        settings: Returns the settings that the store does not hold yet.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        methods: Methods,
        views: Views,
        settings: Callable[[], Mapping[str, str]],
    ) -> None:
        self._store = store
        self._engine = engine
        self._methods = methods
        self._views = views
        self._settings = settings
        self._contradictions = Contradictions(store, engine, methods)

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
        self._store.check_writable()
        # All requests are checked before any is learned, so that a bad one costs no training.
        kind = self._engine.encoder.default_kind
        checked = [build_request(request, kind=kind) for request in requests]
        encoded = [self._methods.encode(request) for request in checked]
        pending = list(zip(checked, encoded, strict=True))
        if on_conflict == "error":
            for request, tokens in pending:
                self._check_conflicts(request, tokens, on_conflict)
        bar = progress or SilentProgress()
        results: list[Added] = []
        bar.start("Learning edits", len(pending), "edits")
        try:
            for part in self._batches(pending, one_by_one=on_conflict != "supersede"):
                there = self._existing_result(*part[0], on_conflict)
                if there is not None:
                    results.append(there)
                    bar.advance(1)
                    if told is not None:
                        told(there)
                    continue
                method = self._methods.of(part[0][0].method)
                batch = self._learn(part, method, warned)
                if before:
                    batch = self._with_answers_before(batch)
                while batch:
                    keep = on_failure == "keep"
                    done = self._verify_and_commit(batch, method, keep, provenance, told)
                    results += done
                    batch = batch[len(done) :]
                    bar.advance(len(done))
        finally:
            bar.done()
        return results

    def contradicted(self, request: EditRequest, encoded: Encoded) -> tuple[Contradiction, ...]:
        """Returns the active edits that a request contradicts now."""
        return self._check_conflicts(request, encoded, "keep")

    def _batches(
        self, pending: Sequence[tuple[EditRequest, Encoded]], *, one_by_one: bool
    ) -> Iterator[Sequence[tuple[EditRequest, Encoded]]]:
        """Yields batches of requests to learn together: of one method, up to its batch size.

        Requests that may be known already get a batch of their own. So do requests that replace an
        edit in shared weights: each version then has adaptors that hold all of its edits.
        """
        part: list[tuple[EditRequest, Encoded]] = []
        seen: set[str] = set()
        prompts: set[str] = set()
        for one in pending:
            request, key = one[0], one[0].idempotency_key
            alone = key is not None and (
                key in seen or self._store.history.with_key(key) is not None
            )
            method = self._methods.of(request.method)
            if method.replaces_alone:
                digest = prompt_digest(request)
                current = self._store.history.current()
                alone |= digest in prompts or bool(self._store.history.same_prompt(digest, current))
                prompts.add(digest)
            size = 1 if one_by_one else method.batch
            is_full = bool(part) and (len(part) >= size or part[0][0].method != request.method)
            if part and (alone or is_full):
                yield part
                part = []
            part.append(one)
            seen.update([key] if key is not None else [])
            if alone:
                yield part
                part = []
        if part:
            yield part

    def _existing_result(
        self, request: EditRequest, encoded: Encoded, on_conflict: OnConflict
    ) -> Added | None:
        """Returns the result of a request that needs no learning, else None."""
        if request.idempotency_key is not None:
            edit_id = self._store.history.with_key(request.idempotency_key)
            if edit_id is not None:
                return self._known(request, edit_id)
        if on_conflict != "supersede":
            found = self._check_conflicts(request, encoded, on_conflict)
            if found:
                return self._result_of(found[0].edit_id, outcome="kept", conflicts=found)
        return None

    def _check_conflicts(
        self, request: EditRequest, encoded: Encoded, on_conflict: OnConflict
    ) -> tuple[Contradiction, ...]:
        """Returns what a request contradicts; raises if ``on_conflict`` is ``error``."""
        found = self._contradictions.of(request, encoded)
        if found and on_conflict == "error":
            raise refusal(request, found)
        return found

    def _known(self, request: EditRequest, edit_id: str) -> Added:
        result = self._result_of(edit_id, outcome="known")
        if request != EditRequest.model_validate(
            {name: getattr(result.edit, name) for name in EditRequest.model_fields}
        ):
            raise KeyReused(
                f"the idempotency key '{request.idempotency_key}' belongs to edit '{edit_id}', "
                "which was made from another request",
                edit_id=edit_id,
                hint="a new request needs a new key",
            )
        return result

    def _result_of(
        self,
        edit_id: str,
        *,
        outcome: Literal["known", "kept"],
        conflicts: tuple[Contradiction, ...] = (),
    ) -> Added:
        """Returns an existing edit as a result."""
        current = self._store.history.current()
        artifact = self._store.artifacts.on_model([edit_id], self._engine.fingerprint).get(edit_id)
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

    def _learn(
        self,
        batch: Sequence[tuple[EditRequest, Encoded]],
        method: EditMethod,
        warned: Warned | None,
    ) -> list[_Candidate]:
        conflicts: dict[int, tuple[Contradiction, ...]] = {}

        def met(index: int, key: torch.Tensor) -> None:
            request, encoded = batch[index]
            conflicts[index] = self._contradictions.of(request, encoded, key)
            if conflicts[index] and warned is not None:
                warned(request, conflicts[index])

        edits = [(self._store.prepare(request), encoded) for request, encoded in batch]
        if self._engine.reader is not None:
            self._engine.reader.put((edit.id, edit) for edit, _ in edits)
        lessons = method.learn(edits, version=self._store.history.current(), met=met)
        return [
            _Candidate(edit, lesson, conflicts=conflicts.get(index, ()))
            for index, ((edit, _), lesson) in enumerate(zip(edits, lessons, strict=True))
        ]

    def _with_answers_before(self, batch: Sequence[_Candidate]) -> list[_Candidate]:
        """Records the model's answers without the edits of a batch."""
        encoded = [one.lesson.encoded for one in batch]
        limit = max(len(one.target) for one in encoded) + SLACK
        answers = self._engine.generate([one.prompt for one in encoded], max_new_tokens=limit)
        return [
            dataclasses.replace(one, before=answer.text)
            for one, answer in zip(batch, answers, strict=True)
        ]

    def _verify_and_commit(
        self,
        batch: Sequence[_Candidate],
        method: EditMethod,
        keep: bool,
        provenance: Provenance,
        told: Callable[[Added], None] | None,
    ) -> list[Added]:
        """Verifies all edits of a batch at once, and commits them up to the first failure.

        Each edit is verified on the view of its own version: all edits before it and itself. Those
        after a failed edit were verified on views that held it, so they are verified again. Those
        before it are committed together, each as an operation of its own.
        """
        started = time.monotonic()
        finished: list[LearnedEdit] = []
        done: list[tuple[Operation, Edit]] = []
        try:
            views = self._views_after(batch, method)
            answers = method.verify([one.lesson for one in batch], *views)
            share = (time.monotonic() - started) / len(batch)
            try:
                for one, view, answer in zip(batch, views, answers, strict=True):
                    outcome = method.finalize(
                        one.edit, one.lesson, view, answer, keep=keep, more=share
                    )
                    finished.append(outcome)
                    # The edit may also have moved to a row that the later views do not hold.
                    if not outcome.artifact.usable or outcome.view is not view:
                        break
            finally:  # keep what was verified, even if the rest is interrupted
                done = self._commit(batch, finished, method, provenance)
                self._follow(finished, done)
        finally:
            for left in batch[len(done) :]:
                method.forget(left.edit.id)
        results = []
        for one, outcome, (operation, edit) in zip(batch, finished, done, strict=False):
            reach = None
            if operation.changed:
                reach = self._reach(one, method, outcome, edit, alone=len(batch) == 1)
            results.append(_added(one, outcome, operation, edit, reach))
            if told is not None:
                told(results[-1])
        return results

    def _views_after(self, batch: Sequence[_Candidate], method: EditMethod) -> list[View]:
        """Returns the view after each edit of a batch, assuming that all of them verify."""
        history = self._store.history
        current = history.current()
        view = self._engine.view
        prompts: dict[str, str] = {}
        views = []
        for number, one in enumerate(batch, 1):
            digest = prompt_digest(one.edit)
            older = [*history.same_prompt(digest, current)]
            if digest in prompts:
                older.append(prompts[digest])
            prompts[digest] = one.edit.id
            view = view.without(older)
            part = method.joined(view.part(method.name), one.edit, one.lesson)
            view = view.replacing(method.name, part, format_version(current + number))
            if view.overrides:  # the newer edit decides about its own prompt
                view = dataclasses.replace(
                    view, overrides=view.overrides.claimed_by(one.edit.prompt)
                )
            views.append(view)
        return views

    def _commit(
        self,
        batch: Sequence[_Candidate],
        finished: Sequence[LearnedEdit],
        method: EditMethod,
        provenance: Provenance,
    ) -> list[tuple[Operation, Edit]]:
        """Stores the outcomes of the first edits of a batch, in one transaction."""
        new = [
            NewEdit(
                one.edit,
                outcome.artifact,
                outcome.payload,
                outcome.artifact.usable,
                outcome.snapshot,
                method.shared_by,
            )
            for one, outcome in zip(batch, finished, strict=False)
        ]
        return self._store.add_many(new, provenance=provenance, settings=self._settings())

    def _follow(
        self, finished: Sequence[LearnedEdit], done: Sequence[tuple[Operation, Edit]]
    ) -> None:
        """Moves the running model to the committed views."""
        for outcome, (operation, _) in zip(finished, done, strict=True):
            if operation.changed:
                self._views.keep(operation.version, outcome.view)
                self._engine.view = outcome.view

    def _reach(
        self,
        one: _Candidate,
        method: EditMethod,
        outcome: LearnedEdit,
        edit: Edit,
        *,
        alone: bool,
    ) -> EditReach | None:
        reader = self._engine.reader
        if reader is not None:
            return text_reach(reader, self._engine.encoder, edit, outcome.view, tries=alone)
        part = outcome.view.part(method.name)
        return None if part is None else method.reach(edit, one.lesson, part)


def _added(
    one: _Candidate,
    outcome: LearnedEdit,
    operation: Operation,
    edit: Edit,
    reach: EditReach | None,
) -> Added:
    is_active = operation.changed
    return Added(
        version=format_version(operation.version),
        verified=outcome.artifact.verified,
        seconds=outcome.seconds,
        edit=edit,
        before=one.before,
        answer=outcome.answer,
        carries=outcome.artifact.metrics.get("carries"),
        steps=outcome.steps,
        supersedes=tuple(operation.detail["supersedes"]),
        conflicts=one.conflicts,
        lost=outcome.lost if is_active else (),
        reach=reach,
    )
