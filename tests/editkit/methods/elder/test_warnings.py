"""What `status` warns of, as the method that learned it says."""

from __future__ import annotations

from conftest import append
from snapshots import add, snapshot

from editkit.history.status import status
from editkit_store import Store
from editkit_store.artifacts.snapshots import Snapshot


def test_status_tells_when_codes_no_longer_separate(store: Store) -> None:
    append(store, "a", "b")
    assert status(store) == store.status()
    for edges, warns in ((None, False), ([3, 9], False), ([9, 9], True), ([0, 0], True)):
        found = snapshot(0)
        add(store, str(edges), Snapshot({**found.settings, "separation": edges}, found.tensors))
        assert bool(status(store).warnings) == warns
    assert "tiny" in status(store).warnings[0]
