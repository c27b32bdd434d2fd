from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editkit.errors import PackageMissing
from editkit.methods.grace.plot import plot_codebook
from editkit_store.errors import InvalidRequest, StoreUnwritable

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def edited(kit: Any) -> Any:
    kit.add("The capital of Australia is", "Canberra")
    kit.add("The capital of Austria is", "Vienna")
    kit.add("a cat and a dog", "yes")
    return kit


def test_a_picture_is_drawn_of_the_codebook_at_any_version(edited: Any, tmp_path: Path) -> None:
    drawn = plot_codebook(edited.store, tmp_path / "now.png", fingerprint=edited.fingerprint)
    assert (drawn.version, drawn.rows) == ("v3", 3)
    assert (tmp_path / "now.png").read_bytes()[:8] == PNG
    older = plot_codebook(
        edited.store, tmp_path / "old.png", version="v1", fingerprint=edited.fingerprint
    )
    assert (older.version, older.rows, older.conflicts, older.shrunk) == ("v1", 1, 0, 0)


def test_conflicts_are_counted_where_balls_of_other_targets_meet(kit: Any, tmp_path: Path) -> None:
    kit.add("The capital of Australia is", "Canberra")
    kit.add("The capital of Australia  is", "Sydney")
    memory = kit.methods.of("grace")._memory
    rows = memory.rows([entry.edit_id for entry in kit.log()])
    radii = memory.radii(rows)
    drawn = plot_codebook(kit.store, tmp_path / "a.png", fingerprint=kit.fingerprint)
    assert drawn.shrunk == int((radii[rows] < memory.initial(rows)).sum())
    assert drawn.conflicts == len(memory.pairs(rows))


def test_a_version_without_a_codebook_is_refused(edited: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no codebook at v0"):
        plot_codebook(
            edited.store, tmp_path / "a.png", version="v0", fingerprint=edited.fingerprint
        )
    assert list(tmp_path.glob("*.png")) == []


def test_a_missing_folder_and_a_missing_package_are_named(
    edited: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreUnwritable, match="cannot be written"):
        plot_codebook(edited.store, tmp_path / "no" / "a.png", fingerprint=edited.fingerprint)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(PackageMissing) as raised:
        plot_codebook(edited.store, tmp_path / "a.png", fingerprint=edited.fingerprint)
    assert raised.value.hint == "pip install 'editkit[plot]'"
