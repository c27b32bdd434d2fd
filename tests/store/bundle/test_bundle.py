"""Bundles: what an export writes, and what an import takes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import files, lines, make_bundle, state
from conftest import append

from editkit_store import Store, canonical_json, digest_bytes, open_store
from editkit_store.digest import digest_json
from editkit_store.errors import (
    BundleExists,
    BundleUnwritable,
    ImportConflict,
    StoreDamaged,
    UnknownVersion,
)
from editkit_store.records import Artifact


@pytest.fixture
def other(tmp_path: Path, clock: Callable[[], Any]) -> Iterator[Store]:
    """Another history to bring things into."""
    with open_store(tmp_path / "other.db", write=True, create=True, clock=clock) as opened:
        yield opened


@pytest.fixture
def bundle(store: Store, tmp_path: Path) -> Path:
    """What ``make_bundle`` puts into ``store``, exported."""
    return make_bundle(store, tmp_path / "bundle")


def elsewhere(store: Store, edit_id: str, payload: bytes = b"elsewhere", **fields: Any) -> None:
    """Stores what another model learned of an edit."""
    artifact = Artifact(
        edit_id=edit_id, fingerprint="sha256:other", model="other", method="grace", verified=True,
        usable=True, digest=digest_bytes(payload), metrics={"margin": 1e-7}, conflicts={"x": 0.1},
        radius=0.30000001192092896, **fields,
    )  # fmt: skip
    store.put_artifacts([(artifact, payload)])


# Exporting -----------------------------------------------------------------------------------


def test_an_export_has_what_is_active_and_what_could_come_back(store: Store, bundle: Path) -> None:
    edits = lines(bundle, "edits.jsonl")
    assert [(e["request"]["prompt"], e["request"]["target"], e["status"]) for e in edits] == [
        ("a", "1", "superseded"), ("b", "2", "active"), ("a", "3", "active"), ("c", "4", "active"),
    ]  # fmt: skip
    assert edits[0]["provenance"]["author"] == "Ada"
    assert edits[0]["operation"]["digest"] == store.log()[-1].digest
    assert [one["edit_id"] for one in lines(bundle, "artifacts.jsonl")] == [e["id"] for e in edits]
    log = lines(bundle, "operations.jsonl")
    assert [one["digest"] for one in reversed(log)] == [one.digest for one in store.log()]
    for one in log:
        assert one.pop("digest") == digest_json(one)


def test_an_export_says_what_it_is(store: Store, tmp_path: Path, bundle: Path) -> None:
    done = store.export(tmp_path / "again")
    assert (done.version, done.edits, done.artifacts, done.tensors) == ("v6", 4, 4, 4)
    assert done.head == store.verify().head
    found = files(tmp_path / "again")
    assert done.bytes == sum(map(len, found.values()))
    assert done.manifest == digest_bytes(found["manifest.json"])
    manifest = json.loads(found["manifest.json"])
    assert manifest["format"] == "editkit.bundle.1"
    assert manifest["head"] == done.head
    assert manifest["selection"] == {"to": "@", "from": None, "only": None}
    assert manifest["counts"] == {"edits": 4, "artifacts": 4, "operations": 8, "tensors": 4}
    listed = manifest["files"]
    assert set(listed) == set(found) - {"manifest.json"}
    for name, said in listed.items():
        digest = hashlib.sha256(found[name]).hexdigest()
        assert said == {"bytes": len(found[name]), "sha256": digest}
        assert not name.startswith("tensors/") or name == f"tensors/{digest}.safetensors"
    assert all(data.endswith(b"\n") for name, data in found.items() if "tensors" not in name)


def test_the_same_history_exports_the_same_bytes(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    store.export(tmp_path / "again")
    assert files(tmp_path / "again") == files(bundle)
    store.close()
    (tmp_path / "moved").mkdir()
    shutil.copy(store.path, tmp_path / "moved" / "renamed.db")
    with open_store(tmp_path / "moved" / "renamed.db") as moved:
        moved.export(tmp_path / "moved" / "bundle")
    assert files(tmp_path / "moved" / "bundle") == files(bundle)


def test_an_export_may_be_of_an_older_version(store: Store, tmp_path: Path, bundle: Path) -> None:
    done = store.export(tmp_path / "old", to="prod")
    assert (done.version, done.edits) == ("v2", 2)
    assert done.head == lines(tmp_path / "old", "operations.jsonl")[-1]["digest"]
    assert [one["version"] for one in lines(tmp_path / "old", "operations.jsonl")] == [1, 2]


def test_an_export_may_leave_out_what_another_version_has(
    store: Store, tmp_path: Path, bundle: Path
) -> None:
    def targets(**how: str) -> list[str]:
        shutil.rmtree(tmp_path / "some", ignore_errors=True)
        store.export(tmp_path / "some", **how)
        return [one["request"]["target"] for one in lines(tmp_path / "some", "edits.jsonl")]

    assert targets(since="prod") == ["3", "4"]
    assert targets(only="prod") == ["2"]  # the other one is superseded now
    assert targets(since="v1", only="v3") == ["2", "3"]
    assert targets(since="@") == []
    assert targets(to="v0") == []


def test_an_empty_history_can_be_exported_and_imported(
    store: Store, other: Store, tmp_path: Path
) -> None:
    done = store.export(tmp_path / "empty")
    assert (done.head, done.edits) == (None, 0)
    assert sorted(files(tmp_path / "empty")) == [
        "artifacts.jsonl", "edits.jsonl", "manifest.json", "operations.jsonl",
    ]  # fmt: skip
    assert other.import_bundle(tmp_path / "empty").edits == ()
    assert other.log() == []


def test_an_export_takes_an_empty_folder_and_no_other(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store.export(tmp_path / "empty")
    before = files(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for name in ("empty", "file"):
        with pytest.raises(BundleExists, match="exists already"):
            store.export(tmp_path / name)
    assert files(tmp_path / "empty") == before
    assert (tmp_path / "file").read_text() == "mine"


def test_an_export_that_fails_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, "a", "1")
    (tmp_path / "room").mkdir()
    with pytest.raises(UnknownVersion):
        store.export(tmp_path / "room" / "x", to="v9")
    with pytest.raises(BundleUnwritable):
        store.export(tmp_path / "room" / "no" / "x")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleUnwritable, match="No space left"):
        store.export(tmp_path / "room" / "x")
    assert list((tmp_path / "room").iterdir()) == []


def test_an_altered_store_is_not_exported(store: Store, tmp_path: Path) -> None:
    append(store, "a", "1")
    store._db.execute("UPDATE payloads SET bytes = 'x'::BLOB")
    with pytest.raises(StoreDamaged, match="payload"):
        store.export(tmp_path / "x")
    store._db.execute("UPDATE operations SET active_count = 7")
    with pytest.raises(StoreDamaged, match="operation 1"):
        store.export(tmp_path / "x")
    assert not (tmp_path / "x").exists()


# Importing -----------------------------------------------------------------------------------


def test_an_empty_history_gets_all_of_it(store: Store, other: Store, bundle: Path) -> None:
    done = other.import_bundle(bundle)
    assert (done.version, done.view, done.operation) == ("v1", 3, "import")
    assert done.head == store.verify().head
    assert (len(done.edits), len(done.active), done.artifacts) == (4, 3, 4)
    assert (done.known, done.kept, done.same_key) == ((), (), ())
    assert done.learned == {"sha256:model": 3}
    assert other.verify().problems == ()
    assert other.history.active(1) == store.history.active(6)
    for edit_id in done.edits:
        assert other.artifacts.of_edit(edit_id) == store.artifacts.of_edit(edit_id)
    old, new = (s._db.query("SELECT * FROM payloads ORDER BY 1") for s in (store, other))
    assert set(new) < set(old)


def test_a_superseded_edit_comes_back_when_the_newer_one_is_taken_back(
    other: Store, bundle: Path
) -> None:
    other.import_bundle(bundle)
    newest = next(edit for edit in other.history.active(1) if edit.target == "3")
    other.revert(newest.id)
    assert {edit.target for edit in other.history.active(2)} == {"1", "2", "4"}
    assert other.verify().ok


def test_the_log_says_what_came_and_from_where(other: Store, bundle: Path) -> None:
    done = other.import_bundle(bundle)
    (entry,) = other.log()
    assert (entry.operation, entry.version) == ("import", "v1")
    assert entry.detail == "brought 4 edits from a bundle, 3 active"
    shown = other.show("v1")
    assert (shown.view, shown.edit) == (3, None)
    assert {edit.id for edit in shown.edits} == set(done.active)
    shown = other.show(done.edits[0])
    assert shown.version == "v1"
    assert shown.edit is not None
    assert (shown.edit.target, shown.edit.status) == ("1", "superseded")
    detail = other.history.last().detail["bundle"]
    assert detail == {"head": done.head, "manifest": done.manifest, "version": 6}
    assert other.status().edits == 3


def test_the_same_bundle_twice_changes_nothing(other: Store, bundle: Path) -> None:
    first = other.import_bundle(bundle)
    before = state(other)
    again = other.import_bundle(bundle)
    assert state(other) == before
    assert again.edits == again.active == ()
    assert again.known == first.edits
    assert (again.version, again.view, again.artifacts) == ("v1", 3, 0)


def test_a_history_knows_its_own_bundle(store: Store, bundle: Path) -> None:
    before = state(store)
    assert len(store.import_bundle(bundle).known) == 4
    assert state(store) == before


def test_undo_takes_the_whole_import_back_and_redo_brings_it(other: Store, bundle: Path) -> None:
    mine = append(other, "mine", "0")
    done = other.import_bundle(bundle)
    assert other.undo().view == 1
    assert other.history.active_ids(3) == [mine.id]
    assert other.log()[0].detail == "took back v2 (import)"
    assert other.redo().view == 4
    assert set(other.history.active_ids(4)) == {mine.id, *done.active}
    assert other.verify().ok


def test_what_was_taken_back_here_is_not_brought_again(
    store: Store, other: Store, bundle: Path, tmp_path: Path
) -> None:
    other.import_bundle(bundle)
    gone = next(edit for edit in other.history.active(1) if edit.target == "4")
    other.revert(gone.id)
    append(store, "new", "7")
    store.export(tmp_path / "later")
    done = other.import_bundle(tmp_path / "later")
    assert (len(done.edits), len(done.known)) == (1, 4)
    assert gone.id not in other.history.active_ids(other.history.current())
    assert other.verify().ok


def test_an_older_edit_does_not_become_active_in_place_of_one_taken_back_here(
    store: Store, other: Store, tmp_path: Path
) -> None:
    append(store, "a", "1")
    append(store, "a", "2")
    store.export(tmp_path / "newest", since="v1")
    store.export(tmp_path / "all")
    (newest,) = other.import_bundle(tmp_path / "newest").active
    done = other.import_bundle(tmp_path / "all", on_conflict="supersede")
    assert (len(done.edits), done.active, done.known) == (1, (), (newest,))
    assert other.history.active_ids(2) == [newest]
    assert other.verify().ok


@pytest.mark.parametrize("policy", ["keep", "supersede"])
def test_an_edit_of_ours_is_never_overwritten(other: Store, bundle: Path, policy: Any) -> None:
    ours = append(other, "a", "mine")
    before = other._db.query("SELECT * FROM edits")
    done = other.import_bundle(bundle, on_conflict=policy)
    assert other._db.query("SELECT * FROM edits ORDER BY ordinal LIMIT 1") == before
    active = other.history.active(2)
    assert len(done.edits) == 4
    assert done.view == len(active) == 3
    (clash,) = done.kept if policy == "keep" else done.superseded
    assert (clash.ours, clash.our_target, clash.prompt, clash.target) == (ours.id, "mine", "a", "3")
    if policy == "keep":
        assert {edit.target for edit in active} == {"mine", "2", "4"}
        assert (len(done.active), done.superseded) == (2, ())
    else:
        assert {edit.target for edit in active} == {"3", "2", "4"}
        assert (len(done.active), done.kept) == (3, ())
        for _ in ("3", "1"):
            theirs = next(edit for edit in other.history.active(other.history.current())
                          if edit.prompt == "a")  # fmt: skip
            other.revert(theirs.id)
        assert ours.id in other.history.active_ids(other.history.current())
    assert other.verify().ok


def test_a_conflict_may_refuse_everything(other: Store, bundle: Path) -> None:
    ours = append(other, "a", "mine")
    before = state(other)
    with pytest.raises(ImportConflict) as caught:
        other.import_bundle(bundle, on_conflict="error")
    assert state(other) == before
    assert ours.id in str(caught.value)
    (theirs,) = caught.value.edit_ids
    assert theirs in str(caught.value)
    with pytest.raises(ValueError, match="on_conflict"):
        other.import_bundle(bundle, on_conflict="mine")  # type: ignore[arg-type]


def test_an_edit_with_an_idempotency_key_of_ours_is_left_out(other: Store, bundle: Path) -> None:
    ours = append(other, "something else", "0", idempotency_key="k")
    done = other.import_bundle(bundle)
    (clash,) = done.same_key
    assert (clash.ours, clash.target) == (ours.id, "2")
    assert clash.edit_id not in done.edits
    assert len(done.edits) == 3
    assert other.history.with_key("k") == ours.id
    assert other.verify().ok


def test_an_edit_with_the_id_of_another_is_refused(
    store: Store, other: Store, bundle: Path
) -> None:
    other.import_bundle(bundle)
    other._db.execute("UPDATE edits SET request_digest = 'x' WHERE target = '4'")
    with pytest.raises(ImportConflict, match="id of another"):
        other.import_bundle(bundle)


@pytest.mark.parametrize("policy", ["keep", "supersede"])
def test_a_dry_run_says_the_same_and_writes_nothing(
    other: Store, bundle: Path, policy: Any
) -> None:
    append(other, "a", "mine")
    before = state(other)
    plan = other.import_bundle(bundle, on_conflict=policy, dry_run=True)
    assert plan.dry_run
    assert state(other) == before
    done = other.import_bundle(bundle, on_conflict=policy)
    assert done == plan.model_copy(update={"dry_run": False})


def test_artifacts_of_other_models_come_for_edits_that_are_here(
    store: Store, other: Store, bundle: Path, tmp_path: Path
) -> None:
    first = other.import_bundle(bundle)
    elsewhere(store, first.edits[0])
    store.export(tmp_path / "more")
    done = other.import_bundle(tmp_path / "more")
    assert (done.edits, done.artifacts, done.models) == ((), 1, ("sha256:other",))
    assert (done.version, other.version()) == ("v1", "v1")
    assert other.log()[0].detail == "brought 1 artifacts from a bundle"
    found = {one.fingerprint: one for one in other.artifacts.of_edit(first.edits[0])}
    assert found["sha256:other"].conflicts == {"x": 0.1}  # nothing else was learned on it here
    assert found["sha256:other"].radius == 0.30000001192092896
    assert other.verify().problems == ()
    assert other.undo().view == 0


def test_artifacts_that_are_here_are_never_replaced(
    store: Store, other: Store, bundle: Path, tmp_path: Path
) -> None:
    first = other.import_bundle(bundle)
    elsewhere(store, first.edits[0])
    elsewhere(other, first.edits[0], b"mine")
    before = other.artifacts.of_edit(first.edits[0])
    store.export(tmp_path / "more")
    assert other.import_bundle(tmp_path / "more").artifacts == 0
    assert other.artifacts.of_edit(first.edits[0]) == before


def test_conflicts_with_rows_of_ours_are_left_to_be_found_out(other: Store, bundle: Path) -> None:
    append(other, "mine", "0")
    done = other.import_bundle(bundle)
    assert all(other.artifacts.of_edit(one)[0].conflicts is None for one in done.edits)
    assert other.verify().ok


def test_conflicts_with_rows_of_ours_are_written_down_where_somebody_finds_them(
    other: Store, bundle: Path
) -> None:
    mine = append(other, "mine", "0")

    def compare(learned: Any) -> Any:
        assert set(learned) == {"sha256:model"}
        assert len(learned["sha256:model"]) == 4
        return {"sha256:model": {one: {mine.id: 0.1} for one in learned["sha256:model"]}}

    done = other.import_bundle(bundle, compare=compare)
    assert all(other.artifacts.of_edit(one)[0].conflicts == {mine.id: 0.1} for one in done.edits)
    assert other.verify().problems == ()


def test_artifacts_from_another_module_are_left_out(
    store: Store, other: Store, tmp_path: Path
) -> None:
    def payload(site: str) -> bytes:
        about = canonical_json({"site": site, "position": "last"})
        header = json.dumps({"__metadata__": {"editkit": about}}).encode()
        return len(header).to_bytes(8, "little") + header

    theirs, ours = append(store, "a", "1"), append(other, "b", "2")
    elsewhere(store, theirs.id, payload("h.1"))
    elsewhere(other, ours.id, payload("h.2"))
    store.export(tmp_path / "x")
    done = other.import_bundle(tmp_path / "x")
    assert (done.artifacts, done.elsewhere, done.models) == (1, 1, ("sha256:model",))
    again = other.import_bundle(tmp_path / "x")
    assert (again.artifacts, again.elsewhere) == (0, 1)
    assert other.verify().ok


def test_what_a_check_before_the_commit_refuses_leaves_no_trace(other: Store, bundle: Path) -> None:
    append(other, "mine", "0")
    before = state(other)

    def refuse() -> None:
        assert other.version() == "v2"
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        other.import_bundle(bundle, before_commit=refuse)
    assert state(other) == before
    assert other.version() == "v1"
    other.import_bundle(bundle)
    assert other.verify().ok


def test_an_imported_history_can_be_exported_again(
    other: Store, bundle: Path, tmp_path: Path
) -> None:
    other.import_bundle(bundle)
    other.export(tmp_path / "second")
    with open_store(tmp_path / "third.db", write=True, create=True) as third:
        assert len(third.import_bundle(tmp_path / "second").active) == 3
        assert third.history.active(1) == other.history.active(1)
        assert third.verify().ok


def test_an_older_bundle_takes_what_was_learned_later(
    store: Store, other: Store, bundle: Path, tmp_path: Path
) -> None:
    failed = store.log()[-1].edit_id
    assert failed is not None
    elsewhere(store, failed)
    elsewhere(store, failed, b"again")  # another attempt
    store.tag("@", "here")
    append(store, "z", "9")
    store.export(tmp_path / "old", to="v3")
    assert other.import_bundle(tmp_path / "old").artifacts == 4
    assert other.verify().ok
