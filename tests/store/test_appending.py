"""Appending edits one by one, and several in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import append

from editkit_store import NewEdit, Store, digest_bytes, open_store
from editkit_store.errors import StoreError
from editkit_store.records import Artifact, EditRequest


def new(store: Store, prompt: str, target: str, *, active: bool = True, **fields: Any) -> NewEdit:
    edit = store.prepare(EditRequest(prompt=prompt, target=target, **fields))
    payload = f"{prompt}->{target}, {edit.id}".encode() if active else None
    artifact = Artifact(
        edit_id=edit.id, fingerprint="sha256:model", model="tiny", method="grace", verified=active,
        usable=active, digest=digest_bytes(payload) if payload else None, conflicts={},
    )  # fmt: skip
    return NewEdit(edit, artifact, payload, activate=active)


def test_each_of_a_group_is_an_operation_and_a_version_of_its_own(store: Store) -> None:
    append(store, "before", "1")
    wanted = [new(store, "a", "1"), new(store, "b", "2", active=False), new(store, "c", "3")]
    done = store.add_many(wanted)
    assert [operation.version for operation, _ in done] == [2, 2, 3]
    assert [operation.active_count for operation, _ in done] == [2, 2, 3]
    assert [edit.status for _, edit in done] == ["active", "failed", "active"]
    assert [one.version for one in store.log()] == ["v3", "v2", "v2", "v1"]
    assert [one.id for one in store.history.active(2)] == [
        store.history.active(1)[0].id,
        wanted[0].edit.id,
    ]
    assert store.verify().ok
    store.undo()
    assert store.history.active_ids(4) == store.history.active_ids(2)


def test_edits_of_one_prompt_supersede_each_other_within_a_group(store: Store) -> None:
    first = append(store, "a", "1")
    group = [new(store, "a", "2"), new(store, "b", "1"), new(store, "a", "3")]
    done = store.add_many(group)
    assert [operation.detail["supersedes"] for operation, _ in done] == [
        [first.id],
        [],
        [group[0].edit.id],
    ]
    assert [one.id for one in store.history.active(store.history.current())] == [
        group[1].edit.id,
        group[2].edit.id,
    ]
    assert store.verify().ok
    store.revert(group[2].edit.id)
    assert {one.target for one in store.history.active(store.history.current())} == {"1", "2"}


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_group_is_appended_whole_or_not_at_all(store: Store, bad: int) -> None:
    append(store, "before", "1")
    group = [new(store, name, "1") for name in "abc"]
    one = group[bad]
    group[bad] = NewEdit(one.edit, one.artifact, b"other bytes", activate=True)
    rows = _rows(store)
    with pytest.raises(ValueError, match="digest"):
        store.add_many(group)
    assert _rows(store) == rows
    group[bad] = one
    store.add_many(group)
    assert (store.version(), store.verify().ok) == ("v4", True)


def test_the_same_numbers_may_come_again(store: Store) -> None:
    group = [new(store, name, "1") for name in "ab"]
    same = [NewEdit(one.edit, *_with(one, b"same"), activate=True) for one in group]
    store.add_many(same)
    third = new(store, "c", "1")
    store.add_many([NewEdit(third.edit, *_with(third, b"same"), activate=True)])
    assert len(store._db.query("FROM payloads")) == 1
    assert (store.version(), store.verify().ok) == ("v3", True)


def test_nothing_is_appended_by_an_empty_group(store: Store) -> None:
    assert store.add_many([]) == []
    assert (store.version(), store.log()) == ("v0", [])


def test_a_group_tells_what_one_by_one_would_tell(
    tmp_path: Path, clock: Callable[[], datetime]
) -> None:
    found = []
    for name in ("single", "group"):
        with open_store(tmp_path / name, write=True, create=True, clock=clock) as store:
            group = [new(store, *pair) for pair in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "x")]]
            number = {one.edit.id: index for index, one in enumerate(group)}
            if name == "group":
                store.add_many(group)
            else:
                for one in group:
                    store.add_many([one])
            found.append(
                [
                    [number[edit.id] for edit in store.history.active(version)]
                    for version in range(store.history.current() + 1)
                ]
            )
            assert store.verify().ok
    assert found[0] == found[1]
    assert found[0][-1] == [1, 2, 3]


def test_a_closed_store_takes_nothing(store: Store) -> None:
    group = [new(store, "a", "1")]
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.add_many(group)


def _with(one: NewEdit, payload: bytes) -> tuple[Artifact, bytes]:
    return one.artifact.model_copy(update={"digest": digest_bytes(payload)}), payload


def _rows(store: Store) -> list[Any]:
    names = ("edits", "operations", "membership", "artifacts", "payloads")
    return [store._db.query(f"FROM {name} ORDER BY ALL") for name in names]
