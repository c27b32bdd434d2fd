"""Results never go over a store, by whatever name it is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import append

from editkit_store import open_store
from editkit_store.database.outputs import refuse_store, replace_output, write_output
from editkit_store.errors import UnsafeTarget


@pytest.fixture
def path(tmp_path: Path) -> Path:
    where = tmp_path / "history.db"
    with open_store(where, write=True, create=True) as store:
        append(store, "a", "1")
    for suffix in (".server", ".tokens"):
        where.with_name(where.name + suffix).write_text("{}")
    return where


@pytest.fixture(params=["closed", "held", "held to read"])
def state(request: pytest.FixtureRequest, path: Path) -> object:
    if request.param == "closed":
        yield None
    else:
        with open_store(path, write=request.param == "held") as store:
            yield store


@pytest.mark.parametrize("put", [write_output, replace_output])
def test_a_store_and_what_lies_beside_it_is_refused(put: object, state: object, path: Path) -> None:
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    targets = [path.with_name(path.name + suffix) for suffix in ("", ".wal", ".server", ".tokens")]
    for target in targets:
        with pytest.raises(UnsafeTarget) as caught:
            put(target, b"x")  # type: ignore[operator]
        assert caught.value.path == target
        assert str(target) in str(caught.value)
        for make in (os.symlink, os.link):
            link = path.parent / f"page-{make.__name__}.html"
            if target.exists() or make is os.symlink:
                make(target, link)
                # A hard link to a small file of a store tells nothing of the store while nobody
                # here has it open; then nothing but a name is lost.
                if make is os.symlink or target == path or state is not None:
                    with pytest.raises(UnsafeTarget):
                        put(link, b"x")  # type: ignore[operator]
                link.unlink()
    with pytest.raises(UnsafeTarget):
        put(path.parent / "." / path.name, b"x")  # type: ignore[operator]
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_any_duckdb_file_is_refused(tmp_path: Path) -> None:
    import duckdb

    other = tmp_path / "somebody.else"
    duckdb.connect(str(other)).close()
    with pytest.raises(UnsafeTarget, match="is a DuckDB file"):
        refuse_store(other)


def test_everything_else_is_written(path: Path) -> None:
    for name in ("page.html", "history.db.html", "other.wal", "x.tokens", "history.db.wal.html"):
        write_output(path.parent / name, b"one")
        replace_output(path.parent / name, b"two")
        assert (path.parent / name).read_bytes() == b"two"
    replace_output(path.parent / "made" / "page.html", b"x")
    assert (path.parent / "made" / "page.html").read_bytes() == b"x"


def test_a_pipe_is_written_to_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refuse_store(pipe)
    refuse_store(Path("/dev/stdout"))
    refuse_store(tmp_path)


def test_a_bundle_is_not_made_where_a_log_would_be_looked_for(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        for target in (path, path.with_name("history.db.wal"), path.with_name("history.db.tokens")):
            with pytest.raises(UnsafeTarget):
                store.export(target)
        store.export(tmp_path / "bundle")
