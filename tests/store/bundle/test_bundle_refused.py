"""Bundles: what an import refuses, and how it says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import edited, files, make_bundle, resealed, state
from conftest import append
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editkit_store import Store, open_store
from editkit_store.bundle.contents import read_contents
from editkit_store.errors import (
    BundleDamaged,
    BundleError,
    BundleNotFound,
    BundleTooNew,
    EditkitError,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to copy."""
    folder = tmp_path_factory.mktemp("made")
    with open_store(folder / "history.db", write=True, create=True) as opened:
        return make_bundle(opened, folder / "bundle")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A bundle to break."""
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


def refused(store: Store, folder: Path, error: type[BundleError] = BundleDamaged) -> BundleError:
    with pytest.raises(error) as caught:
        store.import_bundle(folder)
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
        found[0] |= {"format": "editkit.bundle.4", "novelty": 1}

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
