"""Restoring GRACE's learned edits of a model from a store."""

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
        fingerprint: Fingerprint of the model.
        backend: Index behind the keys; see ``KeyTable``.
        device: Torch name of the index's device.


    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    found: dict[Place, list[tuple[int, GracePayload, dict[str, float] | None]]] = {}
    memories = {}
    shelves = Shelves(store.artifacts.usable_count(fingerprint, method=METHOD))
    with _without_gc():
        for part in store.artifacts.usable(fingerprint, method=METHOD):
            for age, edit_id, conflicts, data in part:
                payload = GracePayload.from_bytes(data, edit_id=edit_id, shelves=shelves, at=age)
                one = age, payload, conflicts
                found.setdefault(payload.place, []).append(one)
        for place, rows in found.items():
            rows.sort(key=itemgetter(0))
            memories[place] = Memory(backend=backend, device=device)
            # A history usually has one place: its keys are then used without a copy.
            keys = shelves.keys(place) if len(found) == 1 else None
            memories[place].put([row[1] for row in rows], [row[2] for row in rows], keys=keys)
    return memories


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Pauses the cyclic garbage collector.

    Allocations trigger it, and it would traverse a million live objects again and again: a third of
    the time of opening a large history.
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
    """Returns the conflicts of imported artifacts.

    Reads everything that their models have learned, as opening them does, because an unreadable
    artifact would prevent opening the history on that model.

    Args:
        store: The history, including the artifacts.
        learned: Ids of their edits, by model fingerprint.

    Returns:
        Conflicts by model and edit, as from ``Memory.conflicts``.

    Raises:
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for fingerprint, edit_ids in learned.items():
        try:
            memories = load_memories(store, fingerprint).values()
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRecord(
                f"the artifacts of the model {fingerprint} cannot be read: {error}"
            ) from error
        found[fingerprint] = {
            edit_id: memory.conflicts(memory.row(edit_id))
            for memory in memories
            for edit_id in edit_ids
            if edit_id in memory
        }
    return found


def learned_encoder(store: Store, fingerprint: str) -> str | None:
    """Returns the name of the sentence encoder of a model's newest edit."""
    newest = store.artifacts.newest(fingerprint, method=METHOD)
    if newest is None:
        return None
    artifact = store.artifacts.on_model([newest[0]], fingerprint)[newest[0]]
    name = artifact.metrics.get("config", {}).get("sentence_encoder")
    return None if name is None else str(name)


def learned_place(store: Store, fingerprint: str) -> Place | None:
    """Returns where a model learned its newest edit, ``None`` if it has learned none."""
    newest = store.artifacts.newest(fingerprint, method=METHOD)
    if newest is None:
        return None
    payload = GracePayload.from_bytes(newest[1], edit_id=newest[0])
    return payload.place
