"""Bundles with snapshots of adaptors: what comes along, where it goes, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import edited, files, lines, resealed, state
from conftest import append
from snapshots import MODEL, add, snapshot

from editkit_store import Store, open_store
from editkit_store.artifacts.snapshots import digest_of
from editkit_store.errors import BundleDamaged


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two edits by ELDER and one by GRACE, at the second of three snapshots."""
    folder = tmp_path_factory.mktemp("made")
    with open_store(folder / "history.db", write=True, create=True) as store:
        add(store, "a", snapshot(0))
        append(store, "b", "1")
        add(store, "c", snapshot(1))
        store.tag("@", "good")
        add(store, "d", snapshot(2))
        store.export(folder / "bundle", to="good")
        store.export(folder / "plain", to="v2", since="v1")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "bundle", tmp_path / "copy"))


def test_the_snapshot_of_the_version_comes_along_and_every_byte_is_named(made: Path) -> None:
    found = files(made / "bundle")
    (line,) = lines(made / "bundle", "snapshots.jsonl")
    assert (line["fingerprint"], line["digest"]) == (MODEL, digest_of(snapshot(1)))
    names = {f"adaptors/{one[2].removeprefix('sha256:')}.bin" for one in line["tensors"].values()}
    assert {name for name in found if name.startswith("adaptors/")} == names
    assert lines(made / "bundle", "manifest.json")[0]["format"] == "editkit.bundle.2"
    # Without an edit of ELDER in it, a bundle is what it always was.
    assert lines(made / "plain", "manifest.json")[0]["format"] == "editkit.bundle.1"
    assert "snapshots.jsonl" not in files(made / "plain")


def test_it_goes_where_the_model_has_no_adaptors(copy: Path, store: Store) -> None:
    append(store, "mine", "0")
    told = store.import_bundle(copy)
    assert (told.snapshots, told.unplaced, told.version) == ((MODEL,), (), "v2")
    assert store.snapshots.at(2) == {MODEL: digest_of(snapshot(1))}
    assert store.snapshots.get(digest_of(snapshot(1))) == snapshot(1)
    assert store.verify().ok
    store.undo()
    assert store.snapshots.at(3) == {MODEL: None}
    assert store.import_bundle(copy).edits == ()  # known
    assert store.verify().ok


def test_ours_stay_where_there_are_any(copy: Path, store: Store) -> None:
    add(store, "mine", snapshot(7))
    told = store.import_bundle(copy)
    assert (told.snapshots, told.unplaced) == ((), (MODEL,))
    assert store.snapshots.at(2) == {MODEL: digest_of(snapshot(7))}
    assert store.verify().ok


def test_a_bundle_of_a_bundle_is_the_same_adaptors(
    copy: Path, store: Store, tmp_path: Path
) -> None:
    store.import_bundle(copy)
    store.export(tmp_path / "again")
    again, first = files(tmp_path / "again"), files(copy)
    for name in first:
        if name.startswith("adaptors/") or name == "snapshots.jsonl":
            assert again[name] == first[name]


def test_what_a_later_replay_learned_for_an_older_version_stays_out(
    store: Store, tmp_path: Path
) -> None:
    add(store, "a", None)
    append(store, "b", "1")
    learned = store.artifacts.of_edit(store.show("v1").edits[0].id)[0].model_copy(
        update={"metrics": {"snapshot": digest_of(snapshot(3))}}
    )
    store.put_artifacts([(learned, b"a")], snapshot=snapshot(3), version=1)
    store.export(tmp_path / "old", to="v1")
    store.export(tmp_path / "new")
    for name, found in (("old", ()), ("new", (MODEL,))):
        with open_store(tmp_path / f"{name}.db", write=True, create=True) as fresh:
            assert fresh.import_bundle(tmp_path / name).snapshots == found
            assert fresh.verify().ok


def test_weights_of_another_name_come_along_and_those_of_other_edits_do_not(
    store: Store, tmp_path: Path
) -> None:
    add(store, "a", snapshot(0))
    add(store, "b", snapshot(1), shared_by=f"{MODEL}/other")
    store.export(tmp_path / "bundle", since="v1")
    (line,) = lines(tmp_path / "bundle", "snapshots.jsonl")
    assert line["fingerprint"] == f"{MODEL}/other"
    with open_store(tmp_path / "new.db", write=True, create=True) as fresh:
        assert fresh.import_bundle(tmp_path / "bundle").snapshots == (f"{MODEL}/other",)
        assert fresh.snapshots.at(1) == {f"{MODEL}/other": digest_of(snapshot(1))}
        assert fresh.verify().ok


def tensor_of(folder: Path, name: str) -> str:
    (line,) = lines(folder, "snapshots.jsonl")
    return f"adaptors/{line['tensors'][name][2].removeprefix('sha256:')}.bin"


def changed(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    return lambda folder: edited(folder, name, lambda found: change(found[0]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "snapshots.jsonl").unlink(), "snapshots.jsonl is missing"),
        (lambda f: (f / tensor_of(f, "codes")).unlink(), "is missing"),
        (lambda f: (f / tensor_of(f, "codes")).write_bytes(b"abcdef"), "SHA-256"),
        (lambda f: resealed(f, tensor_of(f, "codes"), b"abcdef"), "is not the tensor 'codes'"),
        (lambda f: (f / "adaptors" / "x").write_bytes(b""), "does not belong to it"),
        (changed("snapshots.jsonl", lambda s: s["settings"].update(seed=3)), "another digest"),
        (changed("snapshots.jsonl", lambda s: s.update(fingerprint="x")), "its log gives another"),
        (changed("snapshots.jsonl", lambda s: s["tensors"].pop("codes")), "another digest"),
        (changed("snapshots.jsonl", lambda s: s.update(more=1)), "does not read"),
        (lambda f: edited(f, "snapshots.jsonl", lambda s: s.append(s[0])), "twice"),
        (lambda f: edited(f, "snapshots.jsonl", lambda s: s.clear()), "belongs to no artifact"),
        (changed("manifest.json", lambda m: m.update(format="editkit.bundle.1")), "no bundle has"),
    ],
)  # fmt: skip
def test_what_is_not_what_was_exported_is_refused_and_nothing_is_written(
    copy: Path, store: Store, damage: Callable[[Path], None], message: str
) -> None:
    before = state(store)
    damage(copy)
    with pytest.raises(BundleDamaged, match=message):
        store.import_bundle(copy)
    assert state(store) == before
    assert store.verify().ok
