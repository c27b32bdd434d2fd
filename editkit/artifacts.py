"""Reading what GRACE has learned on a model out of a store."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from operator import itemgetter

from editkit.methods.memory import Memory
from editkit.methods.payload import GracePayload, Place, Shelves
from editkit_store import Store
from editkit_store.errors import InvalidRecord

__all__ = ["Place", "check_learned", "learned_place", "load_memories"]


def load_memories(
    store: Store, fingerprint: str, *, backend: str | None = None, device: str | None = None
) -> dict[Place, Memory]:
    """Returns everything that a model has learned, reverted edits included, by place.

    Args:
        store: The history.
        fingerprint: The model.
        backend: Index behind the keys; see ``KeyTable``.
        device: Torch's name of the device for the index.

    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    found: dict[Place, list[tuple[int, GracePayload, dict[str, float] | None]]] = {}
    memories = {}
    shelves = Shelves(store.artifacts.usable_count(fingerprint, method="grace"))
    with _uncollected():
        for part in store.artifacts.usable(fingerprint, method="grace"):
            for age, edit_id, conflicts, data in part:
                payload = GracePayload.from_bytes(data, edit_id=edit_id, shelves=shelves, at=age)
                one = age, payload, conflicts
                found.setdefault((payload.site, payload.position), []).append(one)
        for place, rows in found.items():
            rows.sort(key=itemgetter(0))
            memories[place] = Memory(backend=backend, device=device)
            # All at one place is what a history usually has: their keys are a table as they lie.
            keys = shelves.keys(place) if len(found) == 1 else None
            memories[place].put([row[1] for row in rows], [row[2] for row in rows], keys=keys)
    return memories


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Pauses the search for cyclic garbage.

    It is triggered by objects being made, and would go through a million that all stay, again and
    again: a third of the time of opening a large history.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def check_learned(store: Store, fingerprints: Iterable[str]) -> None:
    """Reads what models have learned, as opening the history with them would.

    For artifacts that came from elsewhere: one that cannot be read would be in the way for ever.

    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    for fingerprint in fingerprints:
        try:
            load_memories(store, fingerprint)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRecord(
                f"what the model {fingerprint} learned cannot be read: {error}"
            ) from error


def learned_place(store: Store, fingerprint: str) -> Place | None:
    """Returns where a model learned the newest of its edits, ``None`` for one without any."""
    newest = store.artifacts.newest(fingerprint, method="grace")
    if newest is None:
        return None
    payload = GracePayload.from_bytes(newest[1], edit_id=newest[0])
    return payload.site, payload.position
