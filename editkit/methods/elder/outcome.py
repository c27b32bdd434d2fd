"""The outcome of learning a batch of edits with ELDER."""

from __future__ import annotations

from dataclasses import dataclass

from editkit.methods.base import Lesson
from editkit.methods.elder.learning import LearnedState
from editkit.methods.elder.saved import QueryRows
from editkit_store.artifacts.snapshots import Snapshot

__all__ = ["ElderLesson", "LearnedBatch"]


@dataclass(frozen=True)
class LearnedBatch:
    """The result of a batch.

    Attributes:
        learned: The new state, with training statistics.
        snapshot: The state as stored.
        kept: Earlier edits in it.
        lost: Those of them that no longer hold.
    """

    learned: LearnedState
    snapshot: Snapshot
    kept: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class ElderLesson(Lesson):
    """What the model learned for one request.

    Attributes:
        queries: ``(w, d)`` float32, the routers' inputs for its wordings.
        batch: The batch that it was learned in.
    """

    queries: QueryRows
    batch: LearnedBatch
