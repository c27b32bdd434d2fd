"""What a change would do, told before it is made: it comes true, and asking changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from editkit import Kit
from editkit.errors import EmptyTarget
from editkit_store.errors import (
    InvalidRequest,
    NotActive,
    NothingToUndo,
    UnknownEdit,
    UnknownVersion,
)

CAT = "The red cat is"
SEA = "see Oslo"


def asked(kit: Kit) -> tuple[Any, ...]:
    return kit.version, kit.store.history.count(), str(kit.generate(CAT, max_new_tokens=3))


def test_an_edit_that_meets_nothing_is_planned_with_what_the_model_says_now(kit: Kit) -> None:
    before = asked(kit)
    plan = kit.plan_add({"prompt": CAT, "target": "blue", "idempotency_key": "k"})
    assert (plan.version, plan.prompt, plan.target) == ("v0", CAT, "blue")
    assert (plan.conflicts, plan.supersedes, plan.nearest, plan.known) == ((), (), (), None)
    assert (plan.is_answered, plan.fired) == (False, None)
    assert plan.answer.startswith(before[2])
    assert asked(kit) == before


def test_a_plan_names_what_the_edit_then_contradicts_and_replaces(kit: Kit) -> None:
    old = kit.add(CAT, "blue", idempotency_key="k").edit
    before = asked(kit)
    plan = kit.plan_add({"prompt": CAT, "target": "gold", "idempotency_key": "k"})
    assert asked(kit) == before
    assert (plan.answer, plan.fired, plan.known) == ("blue", old.id, old.id)
    new = kit.add(CAT, "gold")
    assert plan.conflicts == new.conflicts != ()
    assert plan.supersedes == new.supersedes == (old.id,)


def test_a_plan_says_how_near_the_nearest_edits_are_and_that_the_target_is_given(kit: Kit) -> None:
    old = kit.add(CAT, "blue").edit
    kit.add(SEA, "gold")
    plan = kit.plan_add({"prompt": CAT, "target": "blue"}, near=1)
    assert plan.is_answered
    assert plan.conflicts == ()
    (nearest,) = plan.nearest
    assert (nearest.edit_id, nearest.in_scope) == (old.id, True)
    assert plan.nearest == kit.explain(CAT, k=1).candidates
    assert kit.plan_add({"prompt": CAT, "target": "blue"}, near=0).nearest == ()


def test_an_edit_of_a_turn_of_a_conversation_is_planned_through_the_template(kit: Kit) -> None:
    turns = [{"role": "user", "content": CAT}]
    edit = kit.add(target="blue", chat=turns).edit
    plan = kit.plan_add({"chat": turns, "target": "gold"})
    assert (plan.prompt, plan.answer, plan.fired) == (CAT, "blue", edit.id)


def test_a_request_that_cannot_be_learned_cannot_be_planned(kit: Kit) -> None:
    with pytest.raises(EmptyTarget):
        kit.plan_add({"prompt": CAT, "target": "<e>"})
    with pytest.raises(InvalidRequest):
        kit.plan_add({"prompt": "", "target": "blue"})


@pytest.mark.parametrize("act", ["rollback", "revert", "undo"])
def test_what_a_plan_says_of_the_edits_that_come_and_go_comes_true(kit: Kit, act: str) -> None:
    old = kit.add(CAT, "blue").edit
    kit.add(SEA, "gold")
    new = kit.add(CAT, "red").edit  # supersedes the first
    before = asked(kit)
    plan = {
        "rollback": lambda: kit.plan_rollback("v1"),
        "revert": lambda: kit.plan_revert(new.id[:8]),
        "undo": kit.plan_undo,
    }[act]()
    assert asked(kit) == before
    assert (plan.version, plan.operation) == ("v3", act)
    assert plan.like == {"rollback": "v1", "revert": None, "undo": "v2"}[act]
    assert [one.id for one in plan.added] == [old.id]
    done = {
        "rollback": lambda: kit.rollback("v1"),
        "revert": lambda: kit.revert(new.id),
        "undo": kit.undo,
    }[act]()
    diff = kit.diff("v3", "@")
    assert done.view == plan.view
    assert {one.id for one in plan.added} == {one.id for one in diff.added}
    assert {one.id for one in plan.removed} == {one.id for one in diff.removed}


def test_taking_back_a_superseded_edit_changes_nothing_that_applies(kit: Kit) -> None:
    old = kit.add(CAT, "blue").edit
    kit.add(CAT, "red")
    plan = kit.plan_revert(old.id)
    assert (plan.added, plan.removed) == ((), ())
    assert plan.view == kit.revert(old.id).view == 1


def test_what_cannot_be_done_cannot_be_planned(kit: Kit) -> None:
    with pytest.raises(NothingToUndo):
        kit.plan_undo()
    with pytest.raises(UnknownVersion):
        kit.plan_rollback("v9")
    with pytest.raises(UnknownEdit):
        kit.plan_revert("abcd")
    back = kit.add(SEA, "gold").edit
    kit.revert(back.id)
    with pytest.raises(NotActive, match="it is reverted"):
        kit.plan_revert(back.id)
