from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from conftest import append
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from editkit_store import Store, open_store
from editkit_store.errors import AmbiguousId, NotActive, NothingToUndo, UnknownEdit


def targets(store: Store, version: int | None = None) -> dict[str, str]:
    at = store.history.current() if version is None else version
    return {edit.prompt: edit.target for edit in store.history.active(at)}


def test_each_change_makes_the_next_version_and_every_version_can_be_read(store: Store) -> None:
    append(store, "a", "1")
    append(store, "b", "2")
    assert store.version() == "v2"
    assert [targets(store, v) for v in range(3)] == [{}, {"a": "1"}, {"a": "1", "b": "2"}]


def test_the_newest_edit_of_a_prompt_supersedes_the_older_one(store: Store) -> None:
    old = append(store, "a", "1")
    new = append(store, "a", "2")
    assert targets(store) == {"a": "2"}
    assert store.history.active_count(2) == 1
    states = store.history.edits([old.id, new.id], at=2)
    assert (states[old.id].status, states[new.id].status) == ("superseded", "active")
    assert store.log()[0].detail == f"supersedes {old.id}"


def test_reverting_the_newer_edit_brings_the_older_one_back(store: Store) -> None:
    append(store, "a", "1")
    new = append(store, "a", "2")
    assert store.revert(new.id).view == 1
    assert targets(store) == {"a": "1"}


def test_reverting_the_superseded_edit_leaves_the_newer_one(store: Store) -> None:
    old = append(store, "a", "1")
    append(store, "a", "2")
    assert store.revert(old.id).view == 1
    assert targets(store) == {"a": "2"}
    assert store.undo().view == 1


def test_a_chat_and_a_plain_prompt_of_the_same_words_are_different_edits(store: Store) -> None:
    append(store, "hi", "1")
    append(store, "hi", "2", chat=({"role": "user", "content": "hi"},))
    assert store.history.active_count(2) == 2


def test_a_failed_edit_is_logged_and_makes_no_version(store: Store) -> None:
    edit = append(store, "a", "1", activate=False)
    assert store.version() == "v0"
    assert targets(store) == {}
    (entry,) = store.log()
    assert (entry.status, entry.version, entry.changed) == ("failed", "v0", False)
    with pytest.raises(NotActive, match="failed and never was active"):
        store.revert(edit.id)


def test_a_rollback_is_a_new_version_that_can_be_taken_back(store: Store) -> None:
    append(store, "a", "1")
    append(store, "b", "2")
    result = store.rollback("v0")
    assert (result.version, result.view, result.detail) == ("v3", 0, "back to v0")
    assert targets(store) == {}
    store.rollback("v2")
    assert targets(store) == {"a": "1", "b": "2"}
    assert store.version() == "v4"


def test_undo_twice_goes_one_further_back_and_redo_returns(store: Store) -> None:
    append(store, "a", "1")
    append(store, "b", "2")
    store.undo()
    assert targets(store) == {"a": "1"}
    store.undo()
    assert targets(store) == {}
    with pytest.raises(NothingToUndo, match="nothing to undo"):
        store.undo()
    store.redo()
    assert targets(store) == {"a": "1"}
    store.redo()
    assert targets(store) == {"a": "1", "b": "2"}
    with pytest.raises(NothingToUndo, match="nothing to redo"):
        store.redo()


def test_a_new_change_after_an_undo_ends_the_redo_chain(store: Store) -> None:
    append(store, "a", "1")
    store.undo()
    append(store, "b", "2")
    with pytest.raises(NothingToUndo):
        store.redo()
    store.undo()
    assert targets(store) == {}


def test_reverting_twice_is_refused(store: Store) -> None:
    edit = append(store, "a", "1")
    store.revert(edit.id)
    with pytest.raises(NotActive, match="taken back already"):
        store.revert(edit.id)


def test_ids_are_found_by_unique_prefix(store: Store) -> None:
    ids = [append(store, f"p{i}", "x").id for i in range(40)]
    assert store.history.resolve_edit(ids[0].upper()) == ids[0]
    assert store.history.resolve_edit(ids[0][:12]) == ids[0]
    shared = next(i[0] for i in ids if sum(j[0] == i[0] for j in ids) > 1)
    with pytest.raises(AmbiguousId) as caught:
        store.history.resolve_edit(shared)
    assert all(match.startswith(shared) for match in caught.value.matches)
    for unknown in ("", "zz", "%", "' OR 1=1"):
        with pytest.raises(UnknownEdit):
            store.history.resolve_edit(unknown)


def test_tags_name_versions_and_can_move(store: Store) -> None:
    append(store, "a", "1")
    append(store, "b", "2")
    store.tag("v1", "prod")
    assert store.history.resolve("prod") == 1
    store.tag("@", "prod")
    assert store.history.resolve("prod") == 2
    assert store.version() == "v2"
    log = store.log()
    assert [entry.operation for entry in log] == ["tag", "tag", "add", "add"]
    assert log[2].tags == ("prod",)
    assert store.rollback("prod-").view == 1


def test_the_log_can_be_read_as_it_stood_at_a_version(store: Store) -> None:
    append(store, "a", "1")
    append(store, "a", "2")
    (entry,) = store.log(at="v1")
    assert entry.status == "active"
    assert store.log(limit=1)[0].target == "2"
    assert store.log(at="v0") == []


def test_operations_are_chained_by_digest(store: Store) -> None:
    append(store, "a", "1")
    store.tag("v1", "x")
    store.rollback("v0")
    third, second, first = store.history.operations()
    assert first.parent_digest is None
    assert (second.parent_digest, third.parent_digest) == (first.digest, second.digest)
    assert len({first.digest, second.digest, third.digest}) == 3


class PlainHistory(RuleBasedStateMachine):
    """Random operations on a store, against lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "h.db"
        self.store = open_store(self.path, write=True, create=True)
        self.members: list[list[str]] = [[]]  # by version, ids in order of adding
        self.edits: dict[str, tuple[str, str]] = {}
        self.order: list[str] = []
        self.undoable: list[int] = []
        self.redoable: list[int] = []

    def teardown(self) -> None:
        assert self.store.verify().problems == ()
        self.store.close()
        self.folder.cleanup()

    def changed(self, members: list[str]) -> int:
        self.members.append(sorted(members, key=self.order.index))
        return len(self.members) - 1

    def fresh(self, members: list[str]) -> None:
        self.undoable.append(self.changed(members))
        self.redoable.clear()

    @rule(prompt=st.sampled_from("abc"), answer=st.sampled_from("xyz"), works=st.booleans())
    def add(self, prompt: str, answer: str, works: bool) -> None:
        edit = append(self.store, prompt, answer, activate=works)
        self.edits[edit.id] = (prompt, answer)
        self.order.append(edit.id)
        if works:
            self.fresh([*self.members[-1], edit.id])

    @precondition(lambda self: self.order)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        edit_id = data.draw(st.sampled_from(self.order))
        if edit_id in self.members[-1]:
            self.store.revert(edit_id)
            self.fresh([m for m in self.members[-1] if m != edit_id])
        else:
            with pytest.raises(NotActive):
                self.store.revert(edit_id)

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, len(self.members) - 1))
        self.store.rollback(f"v{version}")
        self.fresh(self.members[version])

    @rule()
    def undo(self) -> None:
        if not self.undoable:
            with pytest.raises(NothingToUndo):
                self.store.undo()
            return
        undone = self.undoable.pop()
        self.redoable.append(undone)
        self.store.undo()
        self.changed(self.members[undone - 1])

    @rule()
    def redo(self) -> None:
        if not self.redoable:
            with pytest.raises(NothingToUndo):
                self.store.redo()
            return
        undone = self.redoable.pop()
        self.undoable.append(undone)
        self.store.redo()
        self.changed(self.members[undone])

    @rule(data=st.data(), name=st.sampled_from(["p", "q"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        version = data.draw(st.integers(0, len(self.members) - 1))
        self.store.tag(f"v{version}", name)
        assert self.store.history.resolve(name) == version

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = open_store(self.path, write=True)

    @invariant()
    def every_version_has_its_view(self) -> None:
        assert self.store.history.current() == len(self.members) - 1
        for version in {0, len(self.members) // 2, len(self.members) - 1}:
            newest = {self.edits[m][0]: m for m in self.members[version]}
            wanted = [m for m in self.members[version] if m in newest.values()]
            assert self.store.history.active_ids(version) == wanted
            assert self.store.history.active_count(version) == len(wanted)

    @invariant()
    def what_changed_between_versions_is_the_difference_of_their_views(self) -> None:
        last = len(self.members) - 1
        for before, after in ((0, last), (last, 0), (last // 2, last), (last, max(0, last - 1))):
            old, new = (self.store.history.active_ids(version) for version in (before, after))
            assert self.store.history.changes(before, after) == (
                [edit for edit in new if edit not in old],
                [edit for edit in old if edit not in new],
            )
            moves = self.store.history.moves(before, after)
            if moves is not None:
                assert [sorted(ids) for ids in moves] == [
                    sorted(set(new) - set(old)), sorted(set(old) - set(new)),
                ]  # fmt: skip


TestPlainHistory = PlainHistory.TestCase
TestPlainHistory.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
