"""A store file of an older editkit, kept as it was written, opens and migrates.

`fixtures/schema2.db.gz` was written with schema 2 on the model of `tiny.tiny_gpt2`: six edits, one
of them superseded, one attempt that failed, a tag, a revert and its undo, and a rollback to v1.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit_store import SCHEMA_VERSION, open_store
from editkit_store.database.compact import compact
from editkit_store.errors import SchemaMismatch

FIXTURE = Path(__file__).parents[2] / "fixtures" / "schema2.db.gz"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    where = tmp_path / "old.db"
    where.write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return where


def test_opening_to_read_refuses_and_writes_nothing(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(SchemaMismatch, match=f"has schema 2 and needs {SCHEMA_VERSION}"):
        open_store(old)
    assert old.read_bytes() == before
    assert [file.name for file in old.parent.iterdir()] == ["old.db"]


def test_opening_to_write_migrates_and_keeps_everything(old: Path) -> None:
    with open_store(old, write=True) as store:
        assert store.status().schema_version == SCHEMA_VERSION
        assert [entry.operation for entry in store.log()] == [
            "rollback", "undo", "revert", "tag", *["add"] * 7,
        ]  # fmt: skip
        assert store.verify().problems == ()
        (digest,) = {entry.digest for entry in store.log(limit=1)}
        radii = store._db.query("SELECT radius FROM artifacts WHERE usable")
        assert len(radii) == 6
        assert all(radius is not None and radius > 0 for (radius,) in radii)
        names = [row[0] for row in store._db.query("SELECT prompt FROM active_edits")]
        assert names == ["The capital of Australia is"]
        assert store._db.query("SELECT prompt FROM codebook_rows") == [(names[0],)]
        store.rollback("prod")
    compact(old)
    with open_store(old) as store:
        assert store.verify().problems == ()
        assert store.log()[1].digest == digest
        assert store.status().edits == 5


def test_the_model_that_learned_it_goes_on_with_it(old: Path) -> None:
    with editkit.open(old, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        assert kit.version == "v9"
        answer = kit.generate("The capital of Australia is", max_new_tokens=4).text
        assert answer.strip().startswith("Canberra")
        kit.rollback("prod")
        assert kit.generate("x one", max_new_tokens=2).text.strip().startswith("blue")
        assert kit.add("A new one", "green", idempotency_key="k").verified
        found = kit.diff("v0", "@").codebook
        assert found.added == 6
        assert all(row.radius > 0 for row in found.added_rows)
        assert kit.store.verify().ok


def test_the_same_request_is_found_in_an_older_store(old: Path) -> None:
    with open_store(old, write=True) as store:
        (edit,) = store.history.active(store.history.current())
        assert store.count_requests(editkit.EditRequest(**{
            name: getattr(edit, name) for name in editkit.EditRequest.model_fields
        })) == 1  # fmt: skip
