"""What ELDER learned of a batch of edits."""

from __future__ import annotations

from dataclasses import dataclass

from editkit.methods.base import Lesson
from editkit.methods.elder.learning import LearnedState
from editkit.methods.elder.saved import QueryRows
from editkit_store.artifacts.snapshots import Snapshot

__all__ = ["ElderLesson", "LearnedBatch"]


@dataclass(frozen=True)
class LearnedBatch:
    """What a batch learned together.

    Attributes:
        learned: The state with all of it, and how it came about.
        snapshot: The state as the store keeps it.
        kept: Earlier edits in it.
        lost: Those of them that do not hold since.
    """

    learned: LearnedState
    snapshot: Snapshot
    kept: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class ElderLesson(Lesson):
    """What one request learned.

    Attributes:
        queries: ``(w, d)`` float32, what routers see of its wordings.
        batch: All that was learned with it.
    """

    queries: QueryRows
    batch: LearnedBatch
