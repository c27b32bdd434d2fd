"""Replay: bringing a history to a model, by restoring what it learned before or learning it now.

Edits that the model has learned are restored without training. The others are learned in batches
of ``BATCH``; each batch is one transaction, so an interrupted replay loses at most the batch at
hand and goes on from there when it is run again. A plan says beforehand what a replay would do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from editkit.learning import BATCH, Learner
from editkit.models.progress import Progress, SilentProgress
from editkit.prompts import Encoded
from editkit_store import Store
from editkit_store.errors import EditkitError
from editkit_store.records import (
    Artifact,
    Edit,
    MethodName,
    PlannedEdit,
    Provenance,
    Replayed,
    ReplayFailure,
    ReplayPlan,
)
from editkit_store.versions import format_version

__all__ = ["plan", "run"]

_SAMPLED = 1000
"""Most artifacts whose times an estimate reads."""


def run(
    store: Store,
    learner: Learner,
    *,
    to: str | None,
    method: MethodName | None,
    only: str | None,
    provenance: Provenance,
    settings: Mapping[str, str],
    progress: Progress | None,
) -> Replayed:
    """Makes the learner's model hold the edits that are active at a version; see ``Kit.replay``."""
    started = time.monotonic()
    version, edits = _chosen(store, learner, to, method, only)
    # Attempts that failed are made again: settings or versions may have changed.
    wanted = [edit for edit in edits if not learner.has_learned(edit.id)]
    # They are tried beside all that the version holds, chosen by `only` or not.
    active = store.history.active_ids(version)
    failures: list[ReplayFailure] = []
    told = progress or SilentProgress()
    if wanted:
        told.start("Learning edits", len(wanted), "edits")
        try:
            for at in range(0, len(wanted), BATCH):
                batch = wanted[at : at + BATCH]
                failures += _learn(
                    store, learner, batch, active, format_version(version), provenance
                )
                told.advance(len(batch))
        finally:
            told.done()
    counts = {
        "restored": len(edits) - len(wanted),
        "learned": len(wanted) - len(failures),
        "failed": len(failures),
    }
    detail: dict[str, Any] = {**counts, "model": learner.name}
    if only is not None:
        detail["only"] = format_version(store.history.resolve(only))
    operation = store.record_replay(
        version,
        fingerprint=learner.fingerprint,
        detail=detail,
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


def plan(
    store: Store,
    learner: Learner,
    *,
    to: str | None,
    method: MethodName | None,
    only: str | None,
) -> ReplayPlan:
    """Returns what ``run`` would do; see ``Kit.plan_replay``."""
    version, edits = _chosen(store, learner, to, method, only)
    planned = tuple(
        PlannedEdit(
            edit_id=edit.id,
            prompt=edit.prompt,
            target=edit.target,
            action="restore" if learner.has_learned(edit.id) else "learn",
        )
        for edit in edits
    )
    to_learn = sum(edit.action == "learn" for edit in planned)
    seconds, measured_on = _seconds_an_edit(store, learner.fingerprint)
    return ReplayPlan(
        model=learner.name,
        fingerprint=learner.fingerprint,
        version=format_version(version),
        restored=len(planned) - to_learn,
        to_learn=to_learn,
        edits=planned,
        seconds=None if seconds is None else seconds * to_learn,
        measured_on=measured_on,
    )


def _chosen(
    store: Store, learner: Learner, to: str | None, method: MethodName | None, only: str | None
) -> tuple[int, list[Edit]]:
    """Returns the version to replay to, and those of its edits that are asked for."""
    history = store.history
    version = history.current() if to is None else history.resolve(to)
    edits = history.active(version)
    if only is not None:
        kept = set(history.active_ids(history.resolve(only)))
        edits = [edit for edit in edits if edit.id in kept]
    if method is not None:
        learner.check_method(method)
        edits = [edit.model_copy(update={"method": method}) for edit in edits]
    return version, edits


def _seconds_an_edit(
    store: Store, fingerprint: str
) -> tuple[float | None, Literal["this model", "other models"] | None]:
    """Returns what learning an edit took, the median, and whom it took that long."""
    own = _seconds(store, fingerprint)
    if own:
        return statistics.median(own), "this model"
    known = (one for one in store.artifacts.model_names() if one != fingerprint)
    others = [seconds for one in known for seconds in _seconds(store, one)]
    return (statistics.median(others), "other models") if others else (None, None)


def _seconds(store: Store, fingerprint: str) -> list[float]:
    # Ids are digests, so the first of them are a fair sample of a large history.
    ids = sorted(store.artifacts.attempted(fingerprint))[:_SAMPLED]
    found = (
        one.metrics.get("seconds") for one in store.artifacts.on_model(ids, fingerprint).values()
    )
    return [float(seconds) for seconds in found if seconds is not None]


def _learn(
    store: Store,
    learner: Learner,
    batch: Sequence[Edit],
    order: Sequence[str],
    version: str,
    provenance: Provenance,
) -> list[ReplayFailure]:
    """Learns a batch and stores it in one transaction; returns what this model did not learn.

    Args:
        store: The history.
        learner: What learns.
        batch: The edits.
        order: Ids of all edits of the version that they are replayed to, oldest first.
        version: Its name.
        provenance: Who and why.
    """
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
        store.put_artifacts(stored, provenance=provenance)
    except BaseException:
        for artifact, _ in stored:
            learner.forget(artifact.edit_id)
        raise
    return failures


def _failure(edit: Edit, answer: str, reason: str) -> ReplayFailure:
    return ReplayFailure(
        edit_id=edit.id, prompt=edit.prompt, target=edit.target, answer=answer, reason=reason
    )
