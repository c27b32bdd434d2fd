"""Bundles: what an export writes, what an import takes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import append
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editkit_store import Store, canonical_json, digest_bytes, open_store
from editkit_store.bundle_contents import read_contents
from editkit_store.digest import digest_json
from editkit_store.errors import (
    BundleDamaged,
    BundleError,
    BundleExists,
    BundleNotFound,
    BundleTooNew,
    BundleUnwritable,
    EditkitError,
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
    """A bundle of ``store``: three active edits, a superseded, a reverted and a failed one."""
    return make_bundle(store, tmp_path / "bundle")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a bundle, to copy."""
    folder = tmp_path_factory.mktemp("made")
    with open_store(folder / "history.db", write=True, create=True) as opened:
        return make_bundle(opened, folder / "bundle")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """Such a bundle, to break."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A history that nothing gets into."""
    path = tmp_path_factory.mktemp("guarded") / "history.db"
    with open_store(path, write=True, create=True) as opened:
        append(opened, "mine", "0")
        before = state(opened)
        yield opened
        assert state(opened) == before
        assert opened.verify().ok


def make_bundle(store: Store, path: Path) -> Path:
    append(store, "a", "1", author="Ada", reason='"quoted" \u2028 \U0001f600 \0')
    append(store, "b", "2", chat=({"role": "user", "content": "b"},), idempotency_key="k")
    append(store, "a", "3", rephrases=("x", "y"))
    append(store, "c", "4")
    append(store, "d", "5", activate=False)
    store.revert(append(store, "e", "6").id)
    store.tag("v2", "prod")
    store.export(path)
    return path


def elsewhere(store: Store, edit_id: str, payload: bytes = b"elsewhere", **fields: Any) -> None:
    """Stores what another model learned of an edit."""
    artifact = Artifact(
        edit_id=edit_id, fingerprint="sha256:other", model="other", method="grace", verified=True,
        usable=True, digest=digest_bytes(payload), metrics={"margin": 1e-7}, conflicts={"x": 0.1},
        radius=0.30000001192092896, **fields,
    )  # fmt: skip
    store.put_artifacts([(artifact, payload)])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(folder: Path, name: str) -> list[Any]:
    # Other characters end a line for `splitlines`, and may stand in a prompt.
    return [json.loads(line) for line in (folder / name).read_bytes().split(b"\n")[:-1]]


def state(store: Store) -> list[tuple[Any, ...]]:
    """Everything that a store holds."""
    tables = ("edits", "operations", "membership", "tags", "artifacts", "payloads")
    return [tuple(store._db.query(f"SELECT * FROM {name} ORDER BY ALL")) for name in tables]


def resealed(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file and makes the manifest agree with it."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(canonical_json(manifest) + "\n")


def edited(folder: Path, name: str, change: Callable[[list[Any]], None]) -> None:
    """Changes the records of a file, and makes the manifest agree with it."""
    found = lines(folder, name)
    change(found)
    data = "".join(canonical_json(one) + "\n" for one in found).encode()
    if name == "manifest.json":
        (folder / name).write_bytes(data)
    else:
        resealed(folder, name, data)


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
    assert other.bring(tmp_path / "empty").edits == ()
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
    done = other.bring(bundle)
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
    other.bring(bundle)
    newest = next(edit for edit in other.history.active(1) if edit.target == "3")
    other.revert(newest.id)
    assert {edit.target for edit in other.history.active(2)} == {"1", "2", "4"}
    assert other.verify().ok


def test_the_log_says_what_came_and_from_where(other: Store, bundle: Path) -> None:
    done = other.bring(bundle)
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
    first = other.bring(bundle)
    before = state(other)
    again = other.bring(bundle)
    assert state(other) == before
    assert again.edits == again.active == ()
    assert again.known == first.edits
    assert (again.version, again.view, again.artifacts) == ("v1", 3, 0)


def test_a_history_knows_its_own_bundle(store: Store, bundle: Path) -> None:
    before = state(store)
    assert len(store.bring(bundle).known) == 4
    assert state(store) == before


def test_undo_takes_the_whole_import_back_and_redo_brings_it(other: Store, bundle: Path) -> None:
    mine = append(other, "mine", "0")
    done = other.bring(bundle)
    assert other.undo().view == 1
    assert other.history.active_ids(3) == [mine.id]
    assert other.log()[0].detail == "took back v2 (import)"
    assert other.redo().view == 4
    assert set(other.history.active_ids(4)) == {mine.id, *done.active}
    assert other.verify().ok


def test_what_was_taken_back_here_is_not_brought_again(
    store: Store, other: Store, bundle: Path, tmp_path: Path
) -> None:
    other.bring(bundle)
    gone = next(edit for edit in other.history.active(1) if edit.target == "4")
    other.revert(gone.id)
    append(store, "new", "7")
    store.export(tmp_path / "later")
    done = other.bring(tmp_path / "later")
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
    (newest,) = other.bring(tmp_path / "newest").active
    done = other.bring(tmp_path / "all", on_conflict="supersede")
    assert (len(done.edits), done.active, done.known) == (1, (), (newest,))
    assert other.history.active_ids(2) == [newest]
    assert other.verify().ok


@pytest.mark.parametrize("policy", ["keep", "supersede"])
def test_an_edit_of_ours_is_never_overwritten(other: Store, bundle: Path, policy: Any) -> None:
    ours = append(other, "a", "mine")
    before = other._db.query("SELECT * FROM edits")
    done = other.bring(bundle, on_conflict=policy)
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
        other.bring(bundle, on_conflict="error")
    assert state(other) == before
    assert ours.id in str(caught.value)
    (theirs,) = caught.value.edit_ids
    assert theirs in str(caught.value)
    with pytest.raises(ValueError, match="on_conflict"):
        other.bring(bundle, on_conflict="mine")  # type: ignore[arg-type]


def test_an_edit_with_an_idempotency_key_of_ours_is_left_out(other: Store, bundle: Path) -> None:
    ours = append(other, "something else", "0", idempotency_key="k")
    done = other.bring(bundle)
    (clash,) = done.same_key
    assert (clash.ours, clash.target) == (ours.id, "2")
    assert clash.edit_id not in done.edits
    assert len(done.edits) == 3
    assert other.history.with_key("k") == ours.id
    assert other.verify().ok


def test_an_edit_with_the_id_of_another_is_refused(
    store: Store, other: Store, bundle: Path
) -> None:
    other.bring(bundle)
    other._db.execute("UPDATE edits SET request_digest = 'x' WHERE target = '4'")
    with pytest.raises(ImportConflict, match="id of another"):
        other.bring(bundle)


@pytest.mark.parametrize("policy", ["keep", "supersede"])
def test_a_dry_run_says_the_same_and_writes_nothing(
    other: Store, bundle: Path, policy: Any
) -> None:
    append(other, "a", "mine")
    before = state(other)
    plan = other.bring(bundle, on_conflict=policy, dry_run=True)
    assert plan.dry_run
    assert state(other) == before
    done = other.bring(bundle, on_conflict=policy)
    assert done == plan.model_copy(update={"dry_run": False})


def test_artifacts_of_other_models_come_for_edits_that_are_here(
    store: Store, other: Store, bundle: Path, tmp_path: Path
) -> None:
    first = other.bring(bundle)
    elsewhere(store, first.edits[0])
    store.export(tmp_path / "more")
    done = other.bring(tmp_path / "more")
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
    first = other.bring(bundle)
    elsewhere(store, first.edits[0])
    elsewhere(other, first.edits[0], b"mine")
    before = other.artifacts.of_edit(first.edits[0])
    store.export(tmp_path / "more")
    assert other.bring(tmp_path / "more").artifacts == 0
    assert other.artifacts.of_edit(first.edits[0]) == before


def test_conflicts_with_rows_of_ours_are_left_to_be_found_out(other: Store, bundle: Path) -> None:
    append(other, "mine", "0")
    done = other.bring(bundle)
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

    done = other.bring(bundle, compare=compare)
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
    done = other.bring(tmp_path / "x")
    assert (done.artifacts, done.elsewhere, done.models) == (1, 1, ("sha256:model",))
    again = other.bring(tmp_path / "x")
    assert (again.artifacts, again.elsewhere) == (0, 1)
    assert other.verify().ok


def test_what_a_check_before_the_commit_refuses_leaves_no_trace(other: Store, bundle: Path) -> None:
    append(other, "mine", "0")
    before = state(other)

    def refuse() -> None:
        assert other.version() == "v2"
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        other.bring(bundle, before_commit=refuse)
    assert state(other) == before
    assert other.version() == "v1"
    other.bring(bundle)
    assert other.verify().ok


def test_an_imported_history_can_be_exported_again(
    other: Store, bundle: Path, tmp_path: Path
) -> None:
    other.bring(bundle)
    other.export(tmp_path / "second")
    with open_store(tmp_path / "third.db", write=True, create=True) as third:
        assert len(third.bring(tmp_path / "second").active) == 3
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
    assert other.bring(tmp_path / "old").artifacts == 4
    assert other.verify().ok


# Refusing ------------------------------------------------------------------------------------


def refused(store: Store, folder: Path, error: type[BundleError] = BundleDamaged) -> BundleError:
    with pytest.raises(error) as caught:
        store.bring(folder)
    return caught.value


def test_every_flipped_bit_is_refused(copy: Path) -> None:
    for name, data in files(copy).items():
        stride = max(1, len(data) // 60)
        for at in range(0, len(data), stride):
            broken = bytearray(data)
            broken[at] ^= 1 << (at % 8)
            (copy / name).write_bytes(broken)
            with pytest.raises(EditkitError) as caught:
                read_contents(copy)
            assert isinstance(caught.value, BundleDamaged | BundleTooNew), (name, at)
        (copy / name).write_bytes(data)
    read_contents(copy)


@pytest.mark.parametrize("change", ["shorter", "longer", "empty"])
def test_every_file_of_another_length_is_refused(guarded: Store, copy: Path, change: str) -> None:
    for name, data in files(copy).items():
        broken = {"shorter": data[:-1], "longer": data + b"\n", "empty": b""}[change]
        (copy / name).write_bytes(broken)
        error = refused(guarded, copy)
        assert isinstance(error, BundleDamaged)
        assert error.file.startswith(name)
        (copy / name).write_bytes(data)


def test_a_missing_file_is_refused_by_name(guarded: Store, copy: Path) -> None:
    for name, data in files(copy).items():
        (copy / name).unlink()
        kind = BundleNotFound if name == "manifest.json" else BundleDamaged
        assert name in str(refused(guarded, copy, kind))
        (copy / name).write_bytes(data)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "tensors/x", "tensors/sub/x", "sub/x"])
def test_what_does_not_belong_is_refused(guarded: Store, copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("x")
    assert "does not belong" in str(refused(guarded, copy))


def test_links_and_pipes_are_refused(guarded: Store, copy: Path, tmp_path: Path) -> None:
    for name in ("edits.jsonl", "manifest.json"):
        outside = tmp_path / "outside"
        shutil.move(copy / name, outside)
        (copy / name).symlink_to(outside)
        refused(guarded, copy)
        (copy / name).unlink()
        os.mkfifo(copy / name)
        refused(guarded, copy)
        (copy / name).unlink()
        shutil.move(outside, copy / name)
    shutil.move(copy / "tensors", tmp_path / "tensors")
    (copy / "tensors").symlink_to(tmp_path / "tensors")
    assert "link" in str(refused(guarded, copy))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "tensors/../edits.jsonl", "a\x00b"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(
    guarded: Store, copy: Path, name: str
) -> None:
    def change(found: list[Any]) -> None:
        found[0]["files"][name] = found[0]["files"]["edits.jsonl"]

    edited(copy, "manifest.json", change)
    assert "no bundle has" in str(refused(guarded, copy))


def test_a_newer_format_asks_for_an_upgrade(guarded: Store, copy: Path) -> None:
    def change(found: list[Any]) -> None:
        found[0] |= {"format": "editkit.bundle.2", "novelty": 1}

    edited(copy, "manifest.json", change)
    assert "upgrade" in str(refused(guarded, copy, BundleTooNew).hint)


def test_what_is_no_bundle_is_said_to_be_none(guarded: Store, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(guarded, tmp_path / "none", BundleNotFound)
    refused(guarded, tmp_path / "folder", BundleNotFound)
    refused(guarded, guarded.path, BundleNotFound)


# Each a file, a change of its records that the manifest goes along with, and a word of the error.
FORGED: list[tuple[str, Callable[[list[Any]], Any], str]] = [
    ("edits.jsonl", lambda e: e[0]["request"].update(target="9"), "another request"),
    ("edits.jsonl", lambda e: e[0]["request"].update(weight=9), "line 1, does not read"),
    ("edits.jsonl", lambda e: e[0].update(id="0" * 16), "another request"),
    ("edits.jsonl", lambda e: e[0].update(id="../../../../etc"), "line 1, does not read"),
    ("edits.jsonl", lambda e: e[0].update(time="2026-01-02T03:04:05+01:00"), "time"),
    ("edits.jsonl", lambda e: e[0].update(time="yesterday"), "does not read"),
    ("edits.jsonl", lambda e: e[0]["operation"].update(seq=99), "from an operation"),
    ("edits.jsonl", lambda e: e[0]["operation"].update(version=2), "from an operation"),
    ("edits.jsonl", lambda e: e.append(e[0]), "twice"),
    ("edits.jsonl", lambda e: e.pop(), "without its edit"),
    ("artifacts.jsonl", lambda a: a[0].update(radius=1e9), "another record"),
    ("artifacts.jsonl", lambda a: a[0].update(digest=a[1]["digest"]), "another record"),
    ("artifacts.jsonl", lambda a: a[0].update(digest=None), "without tensors"),
    ("artifacts.jsonl", lambda a: a[0].update(usable="yes"), "does not read"),
    ("artifacts.jsonl", lambda a: a[0].update(fingerprint="x" * 1000), "does not read"),
    ("artifacts.jsonl", lambda a: a.append(a[0]), "twice"),
    ("artifacts.jsonl", lambda a: a.pop(), "lacks the artifact"),
    ("artifacts.jsonl", lambda a: a[0].update(fingerprint="x"), "lacks the artifact"),
    ("edits.jsonl", lambda e: e[0]["provenance"].update(author="Eve"), "another provenance"),
    ("operations.jsonl", lambda o: o[0].update(active_count=7), "was altered"),
    ("operations.jsonl", lambda o: o[0].update(kind="delete"), "does not read"),
    ("operations.jsonl", lambda o: o[0].update(seq=2**70), "does not read"),
    ("operations.jsonl", lambda o: o.pop(0), "breaks off"),
    ("operations.jsonl", lambda o: o.pop(), "does not end with the head"),
    ("manifest.json", lambda m: m[0].update(head=None), "does not end with the head"),
    ("manifest.json", lambda m: m[0].update(version=5), "another version"),
    ("manifest.json", lambda m: m[0]["counts"].update(edits=5), "counts 5 edits"),
    ("manifest.json", lambda m: m[0].update(novelty=1), "does not read"),
    ("manifest.json", lambda m: m[0].pop("tool"), "does not read"),
    ("manifest.json", lambda m: m[0]["files"].pop("edits.jsonl"), "does not list"),
    ("manifest.json", lambda m: m[0].update(format="zip"), "names no format"),
    ("manifest.json", lambda m: m[0].update(format=1), "names no format"),
]


@pytest.mark.parametrize(("name", "change", "words"), FORGED)
def test_a_forgery_is_refused_though_the_manifest_agrees(
    guarded: Store, copy: Path, name: str, change: Callable[[list[Any]], Any], words: str
) -> None:
    edited(copy, name, change)
    assert words in str(refused(guarded, copy))


HOSTILE = {
    "not UTF-8": b'{"a":"\xff"}',
    "a lone surrogate": b'{"a":"\\ud800"}',
    "a raw surrogate": b'{"a":"\xed\xa0\x80"}',
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":1e999}',
    "a long number": b'{"a":' + b"9" * 10000 + b"}",
    "depth": b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
    "depth of objects": b'{"a":' * 100000 + b"1" + b"}" * 100000,
    "doubled keys": b'{"a":1,"a":1}',
    "blanks": b'{"a": 1}',
    "an array": b"[1]",
    "a number": b"1",
    "half an object": b'{"a":',
    "nothing": b"",
    "a zero byte": b"\0",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "an empty object": b"{}",
}


@pytest.mark.parametrize("name", ["manifest.json", "edits.jsonl", "operations.jsonl"])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_json_is_refused(guarded: Store, copy: Path, name: str, what: str) -> None:
    if name == "manifest.json":
        (copy / name).write_bytes(HOSTILE[what] + b"\n")
    else:
        resealed(copy, name, HOSTILE[what] + b"\n")
    error = refused(guarded, copy)
    assert isinstance(error, BundleDamaged)
    assert error.file.startswith(name)
    assert len(str(error)) < 1000


@given(data=st.binary(max_size=200), at=st.integers(0, 2000), name=st.integers(0, 3))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_noise_anywhere_is_refused_and_never_crashes(
    copy: Path, data: bytes, at: int, name: int
) -> None:
    file = ["manifest.json", "edits.jsonl", "artifacts.jsonl", "operations.jsonl"][name]
    original = files(copy)
    place = at % (len(original[file]) + 1)
    broken = original[file][:place] + data + original[file][place + len(data) :]
    try:
        if file == "manifest.json":
            (copy / file).write_bytes(broken)
        else:
            resealed(copy, file, broken)
        if broken == original[file]:
            read_contents(copy)
        else:
            with pytest.raises(EditkitError):
                read_contents(copy)
    finally:
        for one in (file, "manifest.json"):
            (copy / one).write_bytes(original[one])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), inner,
                      max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(value=JSON, pick=st.integers(0, 10**6), name=st.integers(0, 3))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_in_any_field_is_refused_or_read(
    copy: Path, value: Any, pick: int, name: int
) -> None:
    file = ["manifest.json", "edits.jsonl", "artifacts.jsonl", "operations.jsonl"][name]
    original = files(copy)

    def change(found: list[Any]) -> None:
        places: list[tuple[Any, Any]] = []

        def walk(node: Any) -> None:
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            for key, inner in list(pairs):
                places.append((node, key))
                if isinstance(inner, dict | list):
                    walk(inner)

        walk(found)
        node, key = places[pick % len(places)]
        node[key] = value

    try:
        edited(copy, file, change)
        try:
            contents = read_contents(copy)
        except EditkitError:
            return
        assert contents.edits  # e.g. the tool's name is anybody's to choose
    finally:
        for one in (file, "manifest.json"):
            (copy / one).write_bytes(original[one])
