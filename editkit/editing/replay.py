"""Replay: applying a history to a model, by restoring its artifacts or learning the edits now.

Edits that the model has learned are restored without training. The others are learned in batches,
each of one method. Each batch is one transaction, so an interrupted replay loses at most the
current batch and resumes there when it is run again. A plan previews a replay.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from editkit.engines.base import Encoded, Engine
from editkit.history.views import Views
from editkit.methods.base import LearnedEdit
from editkit.methods.opened import Methods
from editkit.models.progress import Progress, SilentProgress
from editkit_store import Store
from editkit_store.errors import EditkitError
from editkit_store.history.versions import format_version
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

__all__ = ["plan", "run"]

_SAMPLED = 1000
"""Maximum number of artifacts whose training times an estimate reads."""


def run(
    store: Store,
    engine: Engine,
    methods: Methods,
    views: Views,
    *,
    to: str | None,
    method: MethodName | None,
    only: str | None,
    provenance: Provenance,
    settings: Mapping[str, str],
    progress: Progress | None,
) -> Replayed:
    """Makes the running model hold the edits that are active at a version; see ``Kit.replay``."""
    started = time.monotonic()
    version, edits = _select(store, methods, to, method, only)
    # Failed attempts are retried: settings or versions may have changed.
    known = views.learned(version)
    wanted = [edit for edit in edits if edit.id not in known]
    # They are verified together with all edits of the version, selected by `only` or not.
    active = store.history.active_ids(version)
    failures: list[ReplayFailure] = []
    bar = progress or SilentProgress()
    if wanted:
        bar.start("Learning edits", len(wanted), "edits")
        try:
            for batch in _batches(wanted, methods):
                try:
                    failures += _learn(
                        store, engine, methods, views, batch, active, version, provenance
                    )
                except BaseException:  # edits that were not stored must not count as learned
                    _forget(batch, methods)
                    raise
                bar.advance(len(batch))
        finally:
            bar.done()
    counts = {
        "restored": len(edits) - len(wanted),
        "learned": len(wanted) - len(failures),
        "failed": len(failures),
    }
    detail: dict[str, Any] = {**counts, "model": engine.name}
    if only is not None:
        detail["only"] = format_version(store.history.resolve(only))
    operation = store.record_replay(
        version,
        fingerprint=engine.fingerprint,
        detail=detail,
        provenance=provenance,
        settings=settings,
    )
    return Replayed(
        model=engine.name,
        fingerprint=engine.fingerprint,
        **counts,
        seconds=time.monotonic() - started,
        version=format_version(operation.version),
        failures=tuple(failures),
    )


def plan(
    store: Store,
    engine: Engine,
    methods: Methods,
    views: Views,
    *,
    to: str | None,
    method: MethodName | None,
    only: str | None,
) -> ReplayPlan:
    """Returns what ``run`` would do; see ``Kit.plan_replay``."""
    version, edits = _select(store, methods, to, method, only)
    known = views.learned(version)
    planned = tuple(
        PlannedEdit(
            edit_id=edit.id,
            prompt=edit.prompt,
            target=edit.target,
            action="restore" if edit.id in known else "learn",
        )
        for edit in edits
    )
    to_learn = sum(edit.action == "learn" for edit in planned)
    seconds, measured_on = _seconds_per_edit(store, engine.fingerprint)
    return ReplayPlan(
        model=engine.name,
        fingerprint=engine.fingerprint,
        version=format_version(version),
        restored=len(planned) - to_learn,
        to_learn=to_learn,
        edits=planned,
        seconds=None if seconds is None else seconds * to_learn,
        measured_on=measured_on,
    )


def _select(
    store: Store, methods: Methods, to: str | None, method: MethodName | None, only: str | None
) -> tuple[int, list[Edit]]:
    """Returns the version to replay to, and the selected edits of it."""
    history = store.history
    version = history.current() if to is None else history.resolve(to)
    edits = history.active(version)
    if only is not None:
        kept = set(history.active_ids(history.resolve(only)))
        edits = [edit for edit in edits if edit.id in kept]
    if method is not None:
        methods.of(method)
        edits = [edit.model_copy(update={"method": method}) for edit in edits]
    return version, edits


def _seconds_per_edit(
    store: Store, fingerprint: str
) -> tuple[float | None, Literal["this model", "other models"] | None]:
    """Returns the median time to learn an edit, in seconds, and the models it was measured on."""
    own = _seconds(store, fingerprint)
    if own:
        return statistics.median(own), "this model"
    known = (one for one in store.artifacts.model_names() if one != fingerprint)
    others = [seconds for one in known for seconds in _seconds(store, one)]
    return (statistics.median(others), "other models") if others else (None, None)


def _seconds(store: Store, fingerprint: str) -> list[float]:
    # Ids are digests, so the first ones are a fair sample of a large history.
    ids = sorted(store.artifacts.attempted(fingerprint))[:_SAMPLED]
    found = (
        one.metrics.get("seconds") for one in store.artifacts.on_model(ids, fingerprint).values()
    )
    return [float(seconds) for seconds in found if seconds is not None]


def _batches(edits: Sequence[Edit], methods: Methods) -> Iterator[list[Edit]]:
    """Yields batches of consecutive edits of one method, to learn together."""
    batch: list[Edit] = []
    for edit in edits:
        is_other = bool(batch) and batch[0].method != edit.method
        if batch and (is_other or len(batch) >= _size(methods, edit.method)):
            yield batch
            batch = []
        batch.append(edit)
    if batch:
        yield batch


def _size(methods: Methods, method: MethodName) -> int:
    """Returns the batch size of a method; 1 if the model cannot use the method."""
    try:
        return methods.of(method).batch
    except EditkitError:
        return 1


def _learn(
    store: Store,
    engine: Engine,
    methods: Methods,
    views: Views,
    batch: Sequence[Edit],
    order: Sequence[str],
    version: int,
    provenance: Provenance,
) -> list[ReplayFailure]:
    """Learns a batch and stores it in one transaction; returns the failures.

    Args:
        store: The history.
        engine: The running model.
        methods: Its methods.
        views: Its views of the history.
        batch: The edits, of one method.
        order: Ids of all edits of the version, oldest first.
        version: The version that is replayed.
        provenance: Recorded with the artifacts.
    """
    failures: list[ReplayFailure] = []
    stored: list[tuple[Artifact, bytes | None]] = []
    possible: list[tuple[Edit, Encoded]] = []
    for edit in batch:
        try:
            possible.append((edit, methods.encode(edit)))
        except EditkitError as error:  # too long for this model, no chat template, ...
            if methods.get(edit.method) is not None:  # else it was not tried at all
                stored.append((methods.refused(edit, str(error)), None))
            failures.append(_failure(edit, "", str(error)))
    snapshot, shared_by = None, None
    if possible:
        method = methods.of(batch[0].method)
        lessons = method.learn(possible, version=version)
        view = views.known(order, version)
        part = view.part(method.name)
        for (edit, _), lesson in zip(possible, lessons, strict=True):
            part = method.joined(part, edit, lesson)
        view = view.replacing(method.name, method.ordered(part, order))
        answers = method.verify(lessons, view)
        outcomes: list[LearnedEdit] = []
        for (edit, _), lesson, answer in zip(possible, lessons, answers, strict=True):
            outcome = method.finalize(edit, lesson, view, answer)
            outcomes.append(outcome)
            stored.append((outcome.artifact, outcome.payload))
            if not outcome.artifact.usable:
                failures.append(
                    _failure(edit, outcome.answer, "free generation does not give the target")
                )
        shared_by = method.shared_by
        if any(outcome.artifact.usable for outcome in outcomes):
            snapshot = outcomes[0].snapshot
    # A failed retry does not replace a usable artifact, which other versions may use.
    known = store.artifacts.on_model([one.edit_id for one, _ in stored], engine.fingerprint)
    stored = [
        (one, data) for one, data in stored
        if one.usable or one.edit_id not in known or not known[one.edit_id].usable
    ]  # fmt: skip
    try:
        store.put_artifacts(
            stored,
            provenance=provenance,
            snapshot=snapshot,
            shared_by=shared_by,
            version=version,
        )
    except BaseException:
        for edit, _ in possible:
            methods.of(edit.method).forget(edit.id)
        raise
    return failures


def _forget(batch: Sequence[Edit], methods: Methods) -> None:
    """Makes methods forget edits that were learned but could not be stored."""
    for edit in batch:
        method = methods.get(edit.method)
        if method is not None:
            method.forget(edit.id)


def _failure(edit: Edit, answer: str, reason: str) -> ReplayFailure:
    return ReplayFailure(
        edit_id=edit.id, prompt=edit.prompt, target=edit.target, answer=answer, reason=reason
    )
