"""Snapshots of adaptors: stored by tensor, whole or as differences, and placed at versions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import pytest
from conftest import append
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import MODEL, add, snapshot, tensor

from editkit_store import Store, digest_bytes, open_store
from editkit_store.artifacts.snapshots import Snapshot, Tensor, digest_of
from editkit_store.database.compact import compact
from editkit_store.errors import StoreDamaged
from editkit_store.records import Artifact


def at(store: Store) -> list[str | None]:
    """The snapshot of every version, by its digest."""
    return [store.snapshots.at(v).get(MODEL) for v in range(store.history.current() + 1)]


def test_what_was_stored_comes_back_and_shared_tensors_are_stored_once(store: Store) -> None:
    found = [snapshot(seed) for seed in range(4)]
    for number, one in enumerate(found):
        add(store, str(number), one)
    for one in found:
        back = store.snapshots.get(digest_of(one))
        assert back.settings == one.settings
        assert back.tensors == one.tensors
    rows = store._db.query("SELECT base, length, octet_length(bytes) FROM tensors")
    assert len(rows) == 1 + 4 + 4  # still, moves, codes
    assert sum(base is not None for base, length, _ in rows if length == 8000) == 3
    sizes = [(base is None, size) for base, length, size in rows if length == 8000]
    whole = max(size for is_whole, size in sizes if is_whole)
    assert max(size for is_whole, size in sizes if not is_whole) < 0.8 * whole
    assert store.snapshots.get(digest_of(found[1]), only=["codes", "none"]).tensors.keys() == {
        "codes"
    }


def test_a_tensor_that_moved_far_is_stored_whole_again_and_none_needs_more_than_one(
    store: Store,
) -> None:
    noise = np.random.default_rng(1)
    values = noise.normal(0, 30, 4000)
    found = []
    for number in range(12):
        values = values + noise.normal(0, 6, 4000)
        found.append(Snapshot({}, {"walks": tensor(values)}))
        add(store, str(number), found[-1])
    bases = dict(store._db.query("SELECT digest, base FROM tensors"))
    assert 2 <= sum(base is None for base in bases.values()) <= 6
    assert all(base is None or bases[base] is None for base in bases.values())
    for one in found:
        assert store.snapshots.get(digest_of(one)).tensors == one.tensors


@given(
    first=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=40)),
    second=st.dictionaries(st.sampled_from("abc"), st.binary(max_size=40)),
)
@settings(deadline=None, max_examples=20)
def test_any_bytes_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    first: Mapping[str, bytes],
    second: Mapping[str, bytes],
) -> None:
    path = tmp_path_factory.mktemp("any") / "h.db"
    with open_store(path, write=True, create=True) as store:
        found = [
            Snapshot({}, {name: Tensor("U8", (len(data),), data) for name, data in one.items()})
            for one in (first, second)
        ]
        for number, one in enumerate(found):
            add(store, str(number), one)
        for one in found:
            assert store.snapshots.get(digest_of(one)) == one
        assert store.verify().ok


def test_a_tensor_of_another_size_than_its_shape_is_refused(store: Store) -> None:
    for bad in (Tensor("I16", (3,), b"12"), Tensor("X9", (1,), b"1")):
        with pytest.raises(ValueError, match="tensor 'bad' is not"):
            add(store, "a", snapshot(bad=bad))
    assert store.version() == "v0"
    assert store.verify().ok


def test_each_version_has_the_snapshot_that_an_operation_gave_it(store: Store) -> None:
    one, two = snapshot(1), snapshot(2)
    first = add(store, "a", one)[1]
    add(store, "b", snapshot(9), activate=False)  # a failed attempt changes nothing
    append(store, "c", "1")
    add(store, "d", two)
    store.rollback("v1")
    store.undo()
    store.rollback("v0")
    assert at(store) == [
        None, *[digest_of(one)] * 2, digest_of(two), digest_of(one), digest_of(two), None,
    ]  # fmt: skip
    store.undo()
    assert at(store)[-1] == digest_of(two)
    # What an operation does to adaptors it says itself, so that nobody can change it later.
    maker = store.history.maker(4)
    assert maker.detail["snapshots"] == {MODEL: [4, digest_of(one)]}
    reverted = store.revert(first.id)
    assert "deferred" in reverted.detail
    assert at(store)[-1] == digest_of(two)
    store.undo()
    store.revert(first.id, detail={"relearned": []}, snapshots={MODEL: None})
    assert at(store)[-1] is None
    assert store.verify().ok


def test_what_a_replay_learned_counts_from_its_version_on(store: Store) -> None:
    ids = [append(store, str(n), "t").id for n in range(3)]
    found = snapshot(5)
    payload = b"x"
    artifact = Artifact(
        edit_id=ids[0], fingerprint=MODEL, model="tiny", method="elder", verified=True,
        usable=True, digest=digest_bytes(payload), metrics={}, conflicts={},
    )  # fmt: skip
    store.put_artifacts([(artifact, payload)], snapshot=found, version=2)
    assert at(store) == [None, None, digest_of(found), digest_of(found)]
    assert [one.version for one in store.snapshots.placed(MODEL)] == [2]
    assert store.verify().ok


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    path = tmp_path / "closed.db"
    with open_store(path, write=True, create=True) as store:
        for number in range(3):
            add(store, str(number), snapshot(number))
    return path


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        ("UPDATE snapshot_versions SET version = version + 1 WHERE seq = 2", "snapshot", "altered"),
        ("UPDATE snapshot_versions SET digest = NULL WHERE seq = 2", "snapshot", "altered"),
        ("DELETE FROM snapshot_versions WHERE seq = 2", "snapshot", "missing"),
        (f"INSERT INTO snapshot_versions VALUES ('{MODEL}', 1, 1, NULL)", "snapshot", "altered"),
        ("UPDATE snapshots SET manifest = replace(manifest, 'seed', 'sead')", "snapshot", "digest"),
        ("DELETE FROM snapshots WHERE contains(manifest, '\"seed\":1')", "snapshot", "missing"),
        ("DELETE FROM tensors WHERE base IS NOT NULL", "tensor", "missing"),
        ("DELETE FROM tensors WHERE base IS NULL AND length = 8000", "tensor", "missing"),
        ("UPDATE tensors SET base = NULL WHERE base IS NOT NULL", "tensor", "digest"),
        ("UPDATE tensors SET length = length + 2 WHERE length = 1000", "tensor", "length"),
        ("UPDATE tensors SET item = 1 WHERE length = 1000", "tensor", "digest"),
        ("UPDATE tensors SET bytes = bytes[2:] WHERE length = 1000", "tensor", ""),
    ],
)
def test_verification_names_what_was_altered(
    closed: Path, damage: str, kind: str, message: str
) -> None:
    with duckdb.connect(str(closed)) as raw:
        raw.execute(damage)
    with open_store(closed) as store:
        found = store.verify()
        assert not found.ok
        assert {kind} <= {one.kind for one in found.problems}
        assert any(message in one.message for one in found.problems)
        # Whatever a snapshot gives is what was stored; else it raises and names the culprit.
        for digest, *_ in store._db.query("SELECT digest FROM snapshots"):
            with contextlib.suppress(StoreDamaged):
                back = store.snapshots.get(digest)
                assert digest_of(back) == digest


def test_a_missing_tensor_is_named(closed: Path) -> None:
    wanted = digest_of(snapshot(2))
    with open_store(closed) as store:
        gone = store.snapshots.digests(wanted)["codes"]
    with duckdb.connect(str(closed)) as raw:
        raw.execute("DELETE FROM tensors WHERE digest = ?", [gone])
    with open_store(closed) as store, pytest.raises(StoreDamaged, match=gone):
        store.snapshots.get(wanted)
    with open_store(closed) as store, pytest.raises(StoreDamaged, match="snapshot 'sha256:no'"):
        store.snapshots.get("sha256:no")


def test_a_compaction_keeps_every_snapshot(closed: Path) -> None:
    compact(closed)
    with open_store(closed) as store:
        for number in range(3):
            assert store.snapshots.get(digest_of(snapshot(number))) == snapshot(number)
        assert store.verify().ok


def test_methods_that_share_weights_on_one_model_keep_them_apart(store: Store) -> None:
    first, second, third = snapshot(0), snapshot(1), snapshot(2)
    add(store, "a", first)
    add(store, "b", second, shared_by=f"{MODEL}/other")
    assert store.snapshots.at(2) == {MODEL: digest_of(first), f"{MODEL}/other": digest_of(second)}
    edit = add(store, "c", third, shared_by=f"{MODEL}/other")[1]
    store.revert(edit.id, snapshots={f"{MODEL}/other": second})
    assert store.snapshots.at(4) == store.snapshots.at(2)
    store.rollback("v1")
    assert store.snapshots.at(5) == {MODEL: digest_of(first), f"{MODEL}/other": None}
    assert store.verify().ok
