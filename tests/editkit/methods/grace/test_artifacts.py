"""What a model has learned comes out of the store as it went in."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.payload import GracePayload, Shelves
from editkit.methods.grace.restore import load_memories
from editkit_store import Store, digest_bytes, open_store
from editkit_store.errors import InvalidRecord, StoreDamaged
from editkit_store.records import Artifact, EditRequest

MODEL = "sha256:model"


def learn(store: Store, number: int, payload: bytes, fingerprint: str = MODEL) -> str:
    edit = store.prepare(EditRequest(prompt=f"prompt {number}", target="x"))
    artifact = Artifact(
        edit_id=edit.id, fingerprint=fingerprint, model="m", method="grace", verified=True,
        usable=True, digest=digest_bytes(payload),
    )  # fmt: skip
    store.add(edit, artifact=artifact, payload=payload, activate=True)
    return edit.id


def payload(number: int, site: str = "here", position: str = "last") -> bytes:
    noise = np.random.default_rng(number)
    key, value = noise.standard_normal(6, np.float32), noise.standard_normal(3, np.float32)
    entry = Entry("", key, (number,), 0.5 + number)
    return GracePayload(entry, value, site, position=position).to_bytes()  # type: ignore[arg-type]


def test_rows_come_in_the_order_of_the_history_whatever_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    where = tmp_path / "h.db"
    with open_store(where, write=True, create=True) as store:
        # The same bytes twice, as when an edit was taken back and learned again.
        numbers = [*range(450), 3, 449]
        ids = [learn(store, at, payload(number)) for at, number in enumerate(numbers)]
        learn(store, 1000, payload(1000), "sha256:another")
        store._db.execute("CREATE TABLE old AS SELECT * FROM payloads ORDER BY digest")
        store._db.execute("DELETE FROM payloads")
        store._db.execute("INSERT INTO payloads SELECT * FROM old")
    with open_store(where) as store:
        ((place, memory),) = load_memories(store, MODEL).items()
        assert place == ("here", "last", "state")
        assert [memory.edit_id(row) for row in range(len(memory))] == ids
        for row, number in enumerate(numbers):
            expected = GracePayload.from_bytes(payload(number), edit_id=ids[row])
            found = memory.payload(row)
            assert np.array_equal(found.entry.key, expected.entry.key)
            assert np.array_equal(found.value, expected.value)
            assert (found.entry.target, found.entry.radius) == ((number,), 0.5 + number)
        rows = memory.rows(ids)
        chosen = memory.table.select(memory.keys(rows), memory.radii(rows))
        # Equal keys: the newer edit is the one that fires.
        newest = {number: row for row, number in enumerate(numbers)}
        near = [newest[numbers[row]] for row in chosen.tolist()]
        assert chosen.tolist() == near
        # The narrow limit of streaming is gone.
        limit = "SELECT current_setting('memory_limit')"
        assert store._db.one(limit) == duckdb.connect().execute(limit).fetchone()


def test_every_place_has_its_own_memory(store: Store) -> None:
    places = [("here", "last"), ("there", "last"), ("here", "first")]
    found = [(*place, "state") for place in places]
    for number in range(9):
        learn(store, number, payload(number, *places[number % 3]))
    memories = load_memories(store, MODEL)
    assert set(memories) == set(found)
    for at, place in enumerate(found):
        memory = memories[place]
        assert [memory.payload(row).entry.target for row in range(3)] == [
            (at,),
            (at + 3,),
            (at + 6,),
        ]
        rows = np.arange(3)
        assert memory.table.select(memory.keys(rows), np.zeros(3, np.float32)).tolist() == [0, 1, 2]


def test_what_was_not_learned_is_an_empty_answer(store: Store) -> None:
    assert load_memories(store, MODEL) == {}


def test_a_damaged_payload_is_named(store: Store) -> None:
    learn(store, 0, payload(0))
    store._db.execute("UPDATE payloads SET bytes = 'other'::BLOB")
    with pytest.raises(StoreDamaged, match="does not match its digest"):
        load_memories(store, MODEL)
    store._db.execute("DELETE FROM payloads")
    with pytest.raises(StoreDamaged, match="is missing"):
        load_memories(store, MODEL)


def test_tensors_of_another_width_do_not_fit_a_shelf(store: Store) -> None:
    learn(store, 0, payload(0))
    entry = Entry("", np.zeros(7, np.float32), (1,), 1.0)
    odd = learn(store, 1, GracePayload(entry, np.zeros(3, np.float32), "here").to_bytes())
    with pytest.raises(InvalidRecord, match=f"{odd}.*widths of 7 and 3"):
        load_memories(store, MODEL)


def test_a_shelf_keeps_what_is_put_on_it() -> None:
    shelves = Shelves(2)
    key, value = np.arange(4, dtype=np.float32), np.ones(2, np.float32)
    put_key, put_value = shelves.put(("a", "last"), 1, key, value)
    key[:], value[:] = 9, 9
    assert put_key.tolist() == [0, 1, 2, 3]
    assert put_value.tolist() == [1, 1]
    assert shelves.keys(("a", "last"))[1].tolist() == [0, 1, 2, 3]
