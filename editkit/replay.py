"""Replay: bringing a history to a model, by restoring what it learned before or learning it now.

Edits that the model has learned are restored without training. The others are learned in batches;
each batch is one transaction, so an interrupted replay loses at most the batch at hand and goes on
from there when it is run again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from editkit.learning import BATCH, Learner
from editkit.models.progress import Progress, SilentProgress
from editkit.prompts import Encoded
from editkit_store import Store
from editkit_store.errors import EditkitError
from editkit_store.records import (
    Artifact,
    Edit,
    MethodName,
    Provenance,
    Replayed,
    ReplayFailure,
)
from editkit_store.versions import format_version

__all__ = ["run"]


def run(
    store: Store,
    learner: Learner,
    *,
    to: str | None,
    method: MethodName | None,
    provenance: Provenance,
    settings: Mapping[str, str],
    progress: Progress | None,
) -> Replayed:
    """Makes the learner's model hold every edit that is active at a version; see ``Kit.replay``."""
    started = time.monotonic()
    history = store.history
    version = history.current() if to is None else history.resolve(to)
    edits = history.active(version)
    if method is not None:
        learner.check_method(method)
        edits = [edit.model_copy(update={"method": method}) for edit in edits]
    # Attempts that failed are made again: settings or versions may have changed.
    wanted = [edit for edit in edits if not learner.has_learned(edit.id)]
    failures: list[ReplayFailure] = []
    told = progress or SilentProgress()
    if wanted:
        told.start("Learning edits", len(wanted), "edits")
        try:
            for at in range(0, len(wanted), BATCH):
                batch = wanted[at : at + BATCH]
                failures += _learn(store, learner, batch, edits, format_version(version))
                told.advance(len(batch))
        finally:
            told.done()
    counts = {
        "restored": len(edits) - len(wanted),
        "learned": len(wanted) - len(failures),
        "failed": len(failures),
    }
    operation = store.record_replay(
        version,
        fingerprint=learner.fingerprint,
        detail={**counts, "model": learner.name},
        provenance=provenance,
        settings=settings,
    )
    return Replayed(
        model=learner.name,
        fingerprint=learner.fingerprint,
        **counts,
        seconds=time.monotonic() - started,
        version=format_version(operation.version),
        failures=tuple(failures),
    )


def _learn(
    store: Store, learner: Learner, batch: Sequence[Edit], edits: Sequence[Edit], version: str
) -> list[ReplayFailure]:
    """Learns a batch and stores it in one transaction; returns what this model did not learn."""
    order = [edit.id for edit in edits]
    failures: list[ReplayFailure] = []
    stored: list[tuple[Artifact, bytes | None]] = []
    possible: list[tuple[Edit, Encoded]] = []
    for edit in batch:
        try:
            possible.append((edit, learner.encode(edit)))
        except EditkitError as error:  # too long for this model, no chat template, ...
            stored.append((learner.refused(edit, str(error)), None))
            failures.append(_failure(edit, "", str(error)))
    lessons = learner.learn([encoded for _, encoded in possible])
    for (edit, _), lesson in zip(possible, lessons, strict=True):
        learner.remember(edit, lesson)
    view = learner.view(order, version)
    answers = learner.tried(lessons, view)
    for (edit, _), lesson, answer in zip(possible, lessons, answers, strict=True):
        outcome = learner.settle(edit, lesson, view, answer)
        stored.append((outcome.artifact, outcome.payload))
        if not outcome.artifact.usable:
            failures.append(
                _failure(edit, outcome.answer, "free generation does not give the target")
            )
    try:
        store.put_artifacts(stored)
    except BaseException:
        for artifact, _ in stored:
            learner.forget(artifact.edit_id)
        raise
    return failures


def _failure(edit: Edit, answer: str, reason: str) -> ReplayFailure:
    return ReplayFailure(
        edit_id=edit.id, prompt=edit.prompt, target=edit.target, answer=answer, reason=reason
    )
