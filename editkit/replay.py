"""Replay: bringing a history to a model, by restoring what it learned before or learning it now.

Edits that the model has learned are restored without training. The others are learned in batches;
each batch is one transaction, so an interrupted replay loses at most the batch at hand and goes on
from there when it is run again.
"""

from __future__ import annotations

from collections.abc import Sequence

from editkit.learning import Learner
from editkit.prompts import Encoded
from editkit_store import Store
from editkit_store.errors import EditkitError
from editkit_store.records import Artifact, Edit, ReplayFailure

__all__ = ["BATCH", "learn_batch"]

BATCH = 8
"""Edits learned together and committed together."""


def learn_batch(
    store: Store, learner: Learner, batch: Sequence[Edit], *, order: Sequence[str], version: str
) -> list[ReplayFailure]:
    """Learns edits of a history on the learner's model, and stores them in one transaction.

    Args:
        store: The history.
        learner: The model's.
        batch: Edits to learn.
        order: Ids of the whole view that is replayed, oldest first.
        version: Name of the version that is replayed.

    Returns:
        Those that this model did not learn, and why. They are recorded too.
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
    learned = learner.learn([encoded for _, encoded in possible])
    for (edit, encoded), value in zip(possible, learned, strict=True):
        outcome = learner.verify(edit, encoded, value, among=order, version=version)
        stored.append((outcome.artifact, outcome.payload))
        if not outcome.artifact.usable:
            failures.append(
                _failure(edit, outcome.answer, "free generation does not give the target")
            )
    store.put_artifacts(stored)
    return failures


def _failure(edit: Edit, answer: str, reason: str) -> ReplayFailure:
    return ReplayFailure(
        edit_id=edit.id, prompt=edit.prompt, target=edit.target, answer=answer, reason=reason
    )
