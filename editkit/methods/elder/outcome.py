"""What ELDER learned of a batch of edits, and what became of the adaptors without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from editkit.engines.transformers.tokens import Encoded
from editkit.methods.elder.saved import Queries
from editkit_store.artifacts.snapshots import Snapshot

if TYPE_CHECKING:  # PEFT takes seconds to load, and most histories do without
    from editkit.methods.elder.learning import Learned

__all__ = ["Batch", "Relearned", "Taught"]


@dataclass(frozen=True)
class Batch:
    """What a batch learned together.

    Attributes:
        learned: The state with all of it, and how it came about.
        snapshot: The state as the store keeps it.
        kept: Earlier edits in it.
        lost: Those of them that do not hold since.
    """

    learned: Learned
    snapshot: Snapshot
    kept: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Relearned:
    """Adaptors without one of their edits.

    Attributes:
        snapshot: What they are, None where they know nothing.
        edits: Those that were learned again.
        lost: Edits that do not hold.
    """

    snapshot: Snapshot | None
    edits: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Taught:
    """What one request learned.

    Attributes:
        encoded: The request as tokens.
        queries: ``(w, d)`` float32, what routers see of its wordings.
        seconds: Its share of the wall-clock seconds.
        batch: All that was learned with it.
    """

    encoded: Encoded
    queries: Queries
    seconds: float
    batch: Batch
