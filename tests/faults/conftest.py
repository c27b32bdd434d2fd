"""Fixtures of the fault tests: the nursery, histories to harm, and the figures at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Figures, Nursery

from editkit_store import open_store

EDITS = 24
"""Edits of the histories to harm."""

_FIGURES = Figures()


@dataclass
class Prepared:
    """What the tests begin with; read, and copied, but never written to.

    Attributes:
        base: A history of one model.
        full: A history with every kind of operation but an import, replayed onto another model.
        bundle: `full`, exported.
        model: Folder of the model that learned them.
        other: Folder of the other model.
        edits: Versions of `base`; each added an edit.
    """

    base: Path
    full: Path
    bundle: Path
    model: Path
    other: Path
    edits: int


@pytest.fixture(scope="session")
def figures() -> Figures:
    return _FIGURES


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def prepared(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    where = tmp_path_factory.mktemp("prepared")
    folder = where / "work"
    folder.mkdir()
    model, other = where / "model", where / "other"
    nursery.run(folder, "prepare", model, other, EDITS)
    with open_store(folder / "base.db") as store:
        edits = store.history.current()
    assert edits >= EDITS - 2
    return Prepared(folder / "base.db", folder / "full.db", folder / "bundle", model, other, edits)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder with room for a child's output beside it."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def pytest_sessionfinish() -> None:
    """Leaves the figures for `run.py`."""
    if where := os.environ.get("EDITKIT_FAULTS_FIGURES"):
        Path(where).write_text(json.dumps(_FIGURES.counts), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _FIGURES.counts:
        terminalreporter.section("faults")
        for line in _FIGURES.lines():
            terminalreporter.write_line(line)
