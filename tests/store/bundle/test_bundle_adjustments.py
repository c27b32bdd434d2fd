"""Adjustments in bundles: what was said about the reach of edits goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import edited, files, lines
from conftest import append

from editkit_store import Store, digest_json, open_store
from editkit_store.errors import BundleDamaged
from editkit_store.records import AdjustedPrompt, Adjustments, Edit


@pytest.fixture
def other(tmp_path: Path, clock: Callable[[], Any]) -> Iterator[Store]:
    """Another history to bring things into."""
    with open_store(tmp_path / "other.db", write=True, create=True, clock=clock) as opened:
        yield opened


def adjust(store: Store, edit: Edit, *also: str, exclude: tuple[str, ...] = ()) -> None:
    checked = [AdjustedPrompt(prompt=one, carries=True, answer="x") for one in also]
    store.adjust(edit.id, also=checked, exclude=exclude)


def now(store: Store) -> dict[str, Adjustments]:
    return store.history.adjustments(at=store.history.current())


def test_an_edit_brings_its_adjustments_as_they_are_at_the_version(
    store: Store, other: Store, tmp_path: Path
) -> None:
    edit, plain = append(store, "a", "1"), append(store, "z", "2")
    adjust(store, edit, "b", exclude=("c",))
    adjust(store, edit, "undone")
    store.undo()
    adjust(store, plain, "y")
    store.export(tmp_path / "bundle", to="v5")
    assert lines(tmp_path / "bundle", "manifest.json")[0]["format"] == "editkit.bundle.3"
    done = other.import_bundle(tmp_path / "bundle")
    assert (done.version, done.adjusted) == ("v1", (edit.id,))
    assert now(other) == {edit.id: Adjustments(also=("b",), exclude=("c",))}
    assert other.verify().ok
    other.undo()
    assert now(other) == {}
    other.redo()
    assert set(now(other)) == {edit.id}


def test_a_bundle_of_an_import_brings_them_on(store: Store, other: Store, tmp_path: Path) -> None:
    edit = append(store, "a", "1")
    adjust(store, edit, "b")
    store.export(tmp_path / "first")
    other.import_bundle(tmp_path / "first")
    other.export(tmp_path / "second")
    assert lines(tmp_path / "second", "manifest.json")[0]["format"] == "editkit.bundle.3"
    with open_store(tmp_path / "third.db", write=True, create=True) as third:
        third.import_bundle(tmp_path / "second")
        assert now(third) == {edit.id: Adjustments(also=("b",))}


def test_an_edit_that_is_here_takes_over_only_what_nothing_was_said_about(
    store: Store, other: Store, tmp_path: Path
) -> None:
    edit = append(store, "a", "1")
    store.export(tmp_path / "first")
    other.import_bundle(tmp_path / "first")
    adjust(store, edit, "b", "c", exclude=("d",))
    store.export(tmp_path / "second")
    adjust(other, edit, exclude=("B!",))
    assert other.import_bundle(tmp_path / "second", dry_run=True).version == "v3"
    done = other.import_bundle(tmp_path / "second")
    assert (done.version, done.edits, done.adjusted) == ("v3", (), (edit.id,))
    assert now(other)[edit.id] == Adjustments(also=("c",), exclude=("B!", "d"))
    assert other.log()[0].detail == "adjusted 1 edit as in a bundle"
    again = other.import_bundle(tmp_path / "second")
    assert (again.version, again.adjusted, len(other.log())) == ("v3", (), 3)
    assert other.verify().ok


def test_adjustments_of_edits_that_are_left_out_are_not_brought(
    store: Store, other: Store, tmp_path: Path
) -> None:
    first, second = append(store, "a", "1"), append(store, "z", "2")
    adjust(store, first, "b")
    store.tag("v1", "old")
    adjust(store, second, "y")
    store.export(tmp_path / "bundle", since="old")
    assert other.import_bundle(tmp_path / "bundle").adjusted == (second.id,)


def test_a_bundle_without_adjustments_has_the_format_that_it_had(
    store: Store, tmp_path: Path
) -> None:
    append(store, "a", "1")
    store.export(tmp_path / "bundle")
    assert lines(tmp_path / "bundle", "manifest.json")[0]["format"] == "editkit.bundle.1"
    store.export(tmp_path / "again")
    assert files(tmp_path / "bundle") == files(tmp_path / "again")


@pytest.mark.parametrize(
    "detail",
    [{}, {"also": ["b"]}, {"also": "b", "not": 5}, {"also": [1], "not": []}, {"also": None}],
)
def test_an_adjustment_that_cannot_be_read_is_damage(
    store: Store, other: Store, tmp_path: Path, detail: Any
) -> None:
    adjust(store, append(store, "a", "1"), "b")
    store.export(tmp_path / "bundle")

    def change(found: list[Any]) -> None:
        found[-1]["detail"] = detail
        found[-1].pop("digest")
        found[-1]["digest"] = digest_json(found[-1])

    edited(tmp_path / "bundle", "operations.jsonl", change)
    with pytest.raises(BundleDamaged, match="adjustments cannot be read"):
        other.import_bundle(tmp_path / "bundle")
    assert other.log() == []
