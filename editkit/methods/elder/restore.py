"""Restoring ELDER's adaptors on one model from a store, at any version.

The database is the source of truth; this is a cache. A version's adaptors are the newest ones that
an operation stored for the model at that version or before. If they do not hold all of the
version's edits (the model learned some of them later), the adaptors that hold most of them are
used. The codes of inactive edits are left out, so those edits are deferred.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.saved import QueryRows, queries_of, state_of
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.tensors import METHOD, edits_of
from editkit_store import Store
from editkit_store.artifacts.snapshots import Placed, Snapshot, digest_of

__all__ = ["Adaptors", "part_of"]

_KEPT = 8
"""States kept: about 2 MB each for SmolLM2-135M, 12 MB for a model of seven billion weights."""


class Adaptors:
    """Reads the adaptors of one model; reads nothing until ``reload``.

    Args:
        store: The history.
        fingerprint: Fingerprint of the model.
        device: Torch name of the weights' device; None for the CPU.

    Attributes:
        queries: Queries of every edit that the model has learned with ELDER, by id; see ``saved``.
        settings: Settings of the newest adaptors, None if there are none.
    """

    def __init__(self, store: Store, fingerprint: str, *, device: str | None = None) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._device = device
        self._lock = threading.Lock()  # versions may be read while another thread learns
        self._states: OrderedDict[str, ElderState] = OrderedDict()
        self._edits: dict[str, frozenset[str]] = {}
        self._placed: tuple[int, list[Placed]] | None = None
        self.queries: dict[str, QueryRows] = {}
        self.settings: Mapping[str, Any] | None = None

    def reload(self) -> None:
        """Reads what the model has learned.

        Raises:
            StoreDamaged, InvalidRecord: An artifact cannot be read.
        """
        self._states.clear()
        self._placed = None
        self.queries = {
            edit_id: queries_of(data, edit_id=edit_id)
            for part in self._store.artifacts.usable(self._fingerprint, method=METHOD)
            for _, edit_id, _, data in part
        }
        newest = next((one.digest for one in reversed(self._all()) if one.digest), None)
        self.settings = None
        if newest is not None:
            self.settings = self._store.snapshots.get(newest, only=()).settings

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self.queries

    def active_at(self, version: int) -> list[str]:
        """Returns the edits of a version that this model learned with ELDER, oldest first."""
        if not self.queries:
            return []
        return self._store.history.active_among(list(self.queries), version)

    def at(self, version: int) -> tuple[ElderPart | None, list[str]]:
        """Returns the adaptors of a version, and the edits of it that they do not hold.

        Raises:
            StoreDamaged, InvalidRecord: They cannot be read.
        """
        return self.of(self.active_at(version), version)

    def of(self, edit_ids: Sequence[str], version: int) -> tuple[ElderPart | None, list[str]]:
        """Returns the adaptors of a version with the given edits active; see ``at``."""
        if not edit_ids:
            return None, []
        best, known = self._choose(edit_ids, version)
        missing = [edit_id for edit_id in edit_ids if edit_id not in known]
        if best is None:
            return None, missing
        return part_of(self.state(best), edit_ids), missing

    def base(self, version: int) -> ElderState | None:
        """Returns the state to learn on top of at a version; None if there is none."""
        active = self.active_at(version)
        digest = self._choose(active, version)[0] if active else self._own(version)
        return None if digest is None else self.state(digest)

    def _choose(self, edit_ids: Sequence[str], version: int) -> tuple[str | None, frozenset[str]]:
        """Returns the snapshot that a version uses for some edits, and all edits that it holds."""
        best, known = None, frozenset[str]()
        for digest in self._candidates(version):
            theirs = self._known(digest)
            if best is None or len(theirs & set(edit_ids)) > len(known & set(edit_ids)):
                best, known = digest, theirs
            if known.issuperset(edit_ids):
                break
        return best, known

    def knows(self, edit_id: str, version: int) -> bool:
        """Returns whether the adaptors of a version hold an edit."""
        digest = self._own(version)
        return digest is not None and edit_id in self._known(digest)

    def before(self, edit_id: str, version: int) -> str | None:
        """Returns the last adaptors in a version's line that do not hold an edit.

        None if there are none.
        """
        line = self._store.history.line(version)  # versions that were rolled back do not count
        mine = [one for one in self._all() if one.version in line]
        mine.sort(key=lambda one: one.seq)
        for one in reversed(mine):
            if one.digest is None or edit_id not in self._known(one.digest):
                return one.digest
        return None

    def state(self, digest: str) -> ElderState:
        """Returns the state of a snapshot; its digests are checked on the first read.

        Raises:
            StoreDamaged, InvalidRecord: The snapshot cannot be read.
        """
        found = self._states.get(digest)
        if found is None:
            found = state_of(self._store.snapshots.get(digest), self.queries, device=self._device)
        self._keep(digest, found)
        return found

    def remember(self, snapshot: Snapshot, state: ElderState) -> None:
        """Caches a state that was just learned."""
        self.settings = snapshot.settings
        self._keep(digest_of(snapshot), state)

    def _keep(self, digest: str, state: ElderState) -> None:
        with self._lock:
            self._states[digest] = state
            self._states.move_to_end(digest)
            while len(self._states) > _KEPT:
                self._states.popitem(last=False)

    def _all(self) -> list[Placed]:
        seq = self._store.history.last().seq
        if self._placed is None or self._placed[0] != seq:
            self._placed = seq, self._store.snapshots.placed(self._fingerprint)
        return self._placed[1]

    def _own(self, version: int) -> str | None:
        mine = [one for one in self._all() if one.version <= version]
        return mine[-1].digest if mine else None

    def _candidates(self, version: int) -> Iterator[str]:
        """Yields snapshots: the version's own, older ones from new to old, then later ones."""
        placed = self._all()
        before = [one.digest for one in placed if one.version <= version]
        after = [one.digest for one in placed if one.version > version]
        yield from dict.fromkeys(digest for digest in [*reversed(before), *after] if digest)

    def _known(self, digest: str) -> frozenset[str]:
        if digest not in self._edits:
            snapshot = self._store.snapshots.get(digest, only=("edits",))
            self._edits[digest] = frozenset(edits_of(snapshot))
        return self._edits[digest] & self.queries.keys()


def part_of(state: ElderState, edit_ids: Sequence[str]) -> ElderPart:
    """Returns a state with only the given edits active; edits that it does not hold are ignored.

    Args:
        state: The state.
        edit_ids: Ids of edits.
    """
    active = set(edit_ids)
    return ElderPart(
        state, [index for index, edit_id in enumerate(state.edit_ids) if edit_id in active]
    )
