"""Adjustments: operations that say which prompts an edit also applies to, and which it does not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conftest import append

from editkit_store import Store, open_store
from editkit_store.errors import InvalidRequest, NotActive, UnknownEdit
from editkit_store.history.wording import wording
from editkit_store.records import Adjusted, AdjustedPrompt, Adjustments, Edit, Provenance


def adjust(store: Store, edit: Edit, *also: str, carries: bool = True, **how: Any) -> Adjusted:
    """Adjusts an edit; ``also`` prompts are taken as verified."""
    checked = [AdjustedPrompt(prompt=one, carries=carries, answer="x") for one in also]
    return store.adjust(edit.id, also=checked, **how)


def reach(store: Store, edit: Edit, version: int | None = None) -> Adjustments:
    at = store.history.current() if version is None else version
    return store.history.adjustments([edit.id], at=at).get(edit.id, Adjustments())


def test_an_adjustment_is_an_operation_that_makes_a_version(store: Store) -> None:
    edit = append(store, "a", "1")
    done = adjust(store, edit, "b", exclude=["c"], provenance=Provenance(reason="seen"))
    assert (done.version, done.outcome, done.verified, done.view) == ("v2", "adjusted", True, 1)
    assert done.adjustments == Adjustments(also=("b",), exclude=("c",))
    entry = store.log()[0]
    assert (entry.version, entry.operation, entry.edit_id) == ("v2", "adjust", edit.id)
    assert (entry.prompt, entry.reason, entry.changed) == ("a", "seen", True)
    assert entry.detail == "also 'b'; not 'c'"
    assert store.history.active_ids(2) == [edit.id]
    assert store.verify().ok


def test_adjustments_add_up_and_the_later_one_of_a_wording_counts(store: Store) -> None:
    edit, other = append(store, "a", "1"), append(store, "z", "2")
    adjust(store, edit, "How much is it?", exclude=["where is it"])
    adjust(store, edit, "Where is it?")
    adjust(store, edit, exclude=["HOW MUCH, is it"])
    adjust(store, other, "w")
    assert reach(store, edit, 2) == Adjustments()
    assert reach(store, edit, 3) == Adjustments(also=("How much is it?",), exclude=("where is it",))
    assert reach(store, edit, 4) == Adjustments(also=("How much is it?", "Where is it?"))
    assert reach(store, edit) == Adjustments(also=("Where is it?",), exclude=("HOW MUCH, is it",))
    assert set(store.history.adjustments(at=6)) == {edit.id, other.id}
    assert store.history.adjustments([other.id], at=5) == {}


def test_undo_redo_and_rollback_take_adjustments_along(store: Store) -> None:
    edit = append(store, "a", "1")
    adjust(store, edit, "b")
    adjust(store, edit, "c")
    assert store.undo().detail == "took back v3 (adjust)"
    assert reach(store, edit).also == ("b",)
    store.redo()
    assert reach(store, edit).also == ("b", "c")
    store.rollback("v1")
    assert not reach(store, edit)
    adjust(store, edit, "d")
    assert reach(store, edit).also == ("d",)
    store.undo()
    store.undo()
    assert reach(store, edit).also == ("b", "c")
    assert store.verify().ok


def test_a_reverted_edit_has_its_adjustments_again_when_that_is_undone(store: Store) -> None:
    edit = append(store, "a", "1")
    adjust(store, edit, "b")
    store.revert(edit.id)
    store.undo()
    assert reach(store, edit).also == ("b",)


def test_a_walk_through_the_history_agrees_with_replaying_it_from_the_start(store: Store) -> None:
    chance = random.Random(7)
    edits = [append(store, text, "1") for text in ("a", "b")]
    states: list[dict[str, dict[str, str]]] = [{}, {}, {}]  # by version
    for number in range(120):
        act = chance.choice(["also", "not", "also", "rollback", "undo", "redo"])
        now = {edit_id: dict(said) for edit_id, said in states[-1].items()}
        if act in ("also", "not"):
            edit, prompt = chance.choice(edits), f"p{chance.randrange(9)}"
            if now.get(edit.id, {}).get(prompt) == act:
                continue
            done = adjust(store, edit, *([prompt] if act == "also" else []),
                          exclude=[prompt] if act == "not" else [])  # fmt: skip
            assert done.outcome == "adjusted", number
            now.setdefault(edit.id, {})[prompt] = act
        elif act == "rollback":
            back = chance.randrange(2, len(states))
            store.rollback(f"v{back}")
            now = states[back]
        else:
            if act == "undo" and store.history.last().undo_version in (None, 1, 2):
                continue
            if act == "redo" and store.history.last().redo_version is None:
                continue
            getattr(store, act)()
            target = store.history.last().target_version
            assert target is not None
            now = states[target]
        states.append(now)
        assert store.history.current() == len(states) - 1
    store.close()
    with open_store(store.path) as again:  # without what the writer keeps in memory
        for version, said in enumerate(states):
            for edit in edits:
                found = again.history.adjustments(at=version).get(edit.id, Adjustments())
                wanted = said.get(edit.id, {})
                assert set(found.also) == {one for one, how in wanted.items() if how == "also"}
                assert set(found.exclude) == {one for one, how in wanted.items() if how == "not"}


def test_one_that_does_not_verify_is_logged_and_makes_no_version(store: Store) -> None:
    edit = append(store, "a", "1")
    done = adjust(store, edit, "b", carries=False, activate=False)
    assert (done.version, done.outcome, done.verified) == ("v1", "failed", False)
    assert not reach(store, edit)
    entry = store.log()[0]
    assert (entry.version, entry.changed) == ("v1", False)
    assert entry.detail == "did not verify at 'b'; the reach is as before"
    assert store.verify().ok


def test_what_is_so_already_is_not_recorded_again(store: Store) -> None:
    edit = append(store, "a", "1")
    adjust(store, edit, "b", exclude=["c"])
    again = adjust(store, edit, "B!")
    assert (again.version, again.outcome, len(store.log())) == ("v2", "known", 2)
    assert adjust(store, edit, exclude=["b"]).version == "v3"


def test_a_dry_run_records_nothing(store: Store) -> None:
    edit = append(store, "a", "1")
    done = adjust(store, edit, "b", dry_run=True)
    assert (done.version, done.dry_run, len(store.log())) == ("v1", True, 1)


def test_the_log_is_searched_for_adjusted_prompts_and_the_version_shows_them(store: Store) -> None:
    edit = append(store, "a", "1")
    adjust(store, edit, "Where does it LIVE?")
    adjust(store, edit, exclude=["something else"])
    assert [one.version for one in store.log(containing="it live")] == ["v2"]
    assert [one.version for one in store.log(containing="adjust")] == ["v3", "v2"]
    assert store.show("v1").adjustments is None
    assert store.show("v2").adjustments == Adjustments(also=("Where does it LIVE?",))
    assert store.show(edit.id).adjustments == reach(store, edit)
    table = store.sql("SELECT version, stance, prompt, edit_prompt FROM adjustments")
    assert table.rows == (
        ("v2", "also", "Where does it LIVE?", "a"),
        ("v3", "not", "something else", "a"),
    )


@pytest.mark.parametrize(
    ("also", "exclude", "said", "field"),
    [
        ((), (), "names no prompt", "also"),
        (("",), (), "is empty", "also"),
        ((), (" \t\n",), "is empty", "not"),
        ((), ("\u200b",), "is empty", "not"),
        (("b\ud800",), (), "lone surrogate", "also"),
        ((), ("x" * 100_001,), "longer than", "also"),
        ([f"p{n}" for n in range(257)], (), "at most 256", "also"),
        (("Who is it?",), ("who  is IT",), "cannot both", "not"),
        ((), ("the CAPITAL, is!",), "own prompt", "not"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    store: Store, also: tuple[str, ...], exclude: tuple[str, ...], said: str, field: str
) -> None:
    edit = append(store, "The capital is", "1")
    with pytest.raises(InvalidRequest, match=said) as caught:
        adjust(store, edit, *also, exclude=exclude)
    assert caught.value.field == field
    assert len(store.log()) == 1


def test_only_an_active_edit_is_adjusted(store: Store) -> None:
    old = append(store, "a", "1")
    append(store, "a", "2")
    failed = append(store, "b", "1", activate=False)
    gone = append(store, "c", "1")
    store.revert(gone.id)
    for edit, status in ((old, "superseded"), (failed, "failed"), (gone, "reverted")):
        with pytest.raises(NotActive, match=status):
            adjust(store, edit, exclude=["x"])
    with pytest.raises(UnknownEdit):
        store.adjust("ffff", exclude=["x"])


def test_an_altered_adjustment_is_found(tmp_path: Path, store: Store) -> None:
    edit = append(store, "a", "1")
    adjust(store, edit, "b")
    head = store.verify().head
    store._db.execute("UPDATE operations SET detail = replace(detail, '\"b\"', '\"c\"')")
    found = store.verify(head=head)
    assert not found.ok
    assert any("'adjust') was altered" in one.message for one in found.problems)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is X?", "what is x"),
        ("  What   is\nX ", "WHAT IS X!!!"),
        ("cafe\u0301", "café"),
        ("ＡＢＣ", "abc"),
        ("it\u200bs", "its"),
        ("Don't you?", "dont you"),
        ("“Dune”: who wrote it", "Dune who wrote it?"),
        ("STRASSE", "straße"),
        ("what is it -- really", "What is it, really?"),
    ],
)
def test_wordings_that_differ_in_nothing_that_matters_are_one(one: str, other: str) -> None:
    assert wording(one) == wording(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is C#?", "What is C?"),
        ("3.5 of it", "35 of it"),
        ("3.5 of it", "3 5 of it"),
        ("is it -5", "is it 5"),
        ("C++", "C"),
        ("who is it", "what is it"),
        ("?", "!"),
        ("cafe", "café"),
    ],
)
def test_wordings_that_differ_in_more_are_two(one: str, other: str) -> None:
    assert wording(one) != wording(other)
