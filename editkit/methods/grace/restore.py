"""Reading what GRACE has learned on a model out of a store."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from editkit.methods.grace.memory import Memory
from editkit.methods.grace.payload import METHOD, GracePayload, Place, Shelves
from editkit_store import Store
from editkit_store.errors import InvalidRecord

__all__ = ["Place", "find_conflicts", "learned_encoder", "learned_place", "load_memories"]


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
    shelves = Shelves(store.artifacts.usable_count(fingerprint, method=METHOD))
    with _uncollected():
        for part in store.artifacts.usable(fingerprint, method=METHOD):
            for age, edit_id, conflicts, data in part:
                payload = GracePayload.from_bytes(data, edit_id=edit_id, shelves=shelves, at=age)
                one = age, payload, conflicts
                found.setdefault(payload.place, []).append(one)
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


def find_conflicts(
    store: Store, learned: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the conflicts of artifacts that came from elsewhere.

    Everything that their models have learned is read as it is when they are opened: an artifact
    that cannot be read would be in the way for ever.

    Args:
        store: The history, with the artifacts in it.
        learned: Ids of their edits, by the fingerprint of the model.

    Returns:
        By model and edit, as ``Memory.conflicts`` gives them.

    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for fingerprint, edit_ids in learned.items():
        try:
            memories = load_memories(store, fingerprint).values()
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRecord(
                f"what the model {fingerprint} learned cannot be read: {error}"
            ) from error
        found[fingerprint] = {
            edit_id: memory.conflicts(memory.row(edit_id))
            for memory in memories
            for edit_id in edit_ids
            if edit_id in memory
        }
    return found


def learned_encoder(store: Store, fingerprint: str) -> str | None:
    """Returns the name of the sentence encoder that a model's newest edit was looked up by."""
    newest = store.artifacts.newest(fingerprint, method=METHOD)
    if newest is None:
        return None
    artifact = store.artifacts.on_model([newest[0]], fingerprint)[newest[0]]
    name = artifact.metrics.get("config", {}).get("sentence_encoder")
    return None if name is None else str(name)


def learned_place(store: Store, fingerprint: str) -> Place | None:
    """Returns where a model learned the newest of its edits, ``None`` for one without any."""
    newest = store.artifacts.newest(fingerprint, method=METHOD)
    if newest is None:
        return None
    payload = GracePayload.from_bytes(newest[1], edit_id=newest[0])
    return payload.place
