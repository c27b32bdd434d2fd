"""Adjusting how far an edit reaches: where else it applies, and where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_bert, tiny_llama, tiny_llama_classifier, tiny_t5, tiny_tokenizer

import editkit
from editkit import Kit
from editkit.errors import ContradictsEdit, PromptTooLong
from editkit_store.errors import InvalidRequest, NotActive, StoreUnwritable, UnknownEdit

CAT = "The red cat is"
NEAR = "The red cat was"
"""In reach of an edit of ``CAT``."""
FAR = "tall tree"
ELDER: dict[str, Any] = {
    "elder": {"r": 2, "num_experts": 4},
    "train": {"learning_rate": 2e-2, "steps": 80},
}


def opened(path: Path, **how: Any) -> Kit:
    return editkit.open(path, model=(tiny_llama(), tiny_tokenizer()), **how)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with opened(tmp_path / "history.db") as kit:
        yield kit


def fired(kit: Kit, prompt: str, **how: Any) -> tuple[str, ...]:
    return kit.generate(prompt, max_new_tokens=3, **how).fired


def test_an_edit_gives_its_target_where_it_also_applies_and_not_where_it_does_not(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    alone = [kit.generate(NEAR, version="v0", max_new_tokens=4).text]
    assert (fired(kit, NEAR), fired(kit, FAR)) == ((edit.id,), ())
    done = kit.adjust(edit, also=[FAR], exclude=[NEAR])
    assert (done.version, done.outcome, done.verified) == ("v2", "adjusted", True)
    assert [(one.prompt, one.carries, one.answer) for one in done.also] == [(FAR, True, "blue")]
    for prompt in (FAR, "TALL  tree!", " tall tree"):
        assert kit.generate(prompt, max_new_tokens=4).text == "blue", prompt
    for prompt in (NEAR, "the red cat WAS?"):
        assert fired(kit, prompt) == (), prompt
    assert [kit.generate(NEAR, max_new_tokens=4).text] == alone
    assert fired(kit, CAT) == (edit.id,)
    several = kit.generate([NEAR, FAR, "sea", CAT], max_new_tokens=4)
    assert [bool(one.fired) for one in several] == [False, True, False, True]
    assert (fired(kit, FAR, version="v1"), fired(kit, NEAR, version="v1")) == ((), (edit.id,))


def test_the_library_s_own_calls_follow_adjustments_too(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    kit.adjust(edit, also=[FAR])
    ids = kit.tokenizer(FAR, return_tensors="pt")
    made = kit.model.generate(**ids, max_new_tokens=2, do_sample=False)
    text = kit.tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == "blue"


def test_undo_redo_and_rollback_move_the_running_model(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    kit.adjust(edit, also=[FAR])
    kit.undo()
    assert fired(kit, FAR) == ()
    kit.redo()
    assert fired(kit, FAR) == (edit.id,)
    kit.rollback("v1")
    assert fired(kit, FAR) == ()
    kit.rollback("v2")
    assert fired(kit, FAR) == (edit.id,)
    kit.revert(edit.id)
    assert fired(kit, FAR) == ()
    kit.undo()
    assert fired(kit, FAR) == (edit.id,)
    assert kit.store.verify().ok


def test_adjustments_are_there_when_the_history_is_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path / "history.db") as kit:
        edit = kit.add(CAT, "blue").edit
        kit.adjust(edit.id[:6], also=[FAR], exclude=[NEAR])
    with opened(tmp_path / "history.db", read_only=True) as kit:
        assert (fired(kit, FAR), fired(kit, NEAR)) == ((edit.id,), ())
        with pytest.raises(StoreUnwritable):
            kit.adjust(edit, exclude=["sea"])


def test_a_later_adjustment_of_a_prompt_counts_instead(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    kit.adjust(edit, exclude=[NEAR])
    done = kit.adjust(edit, also=[NEAR.upper()])
    assert (done.adjustments.also, done.adjustments.exclude) == ((NEAR.upper(),), ())
    assert fired(kit, NEAR) == (edit.id,)
    assert kit.adjust(edit, also=[NEAR]).outcome == "known"
    assert kit.version == "v3"


def test_in_a_conversation_the_user_s_last_turn_counts(kit: Kit) -> None:
    edit = kit.add(target="blue", chat=[{"role": "user", "content": CAT}]).edit
    done = kit.adjust(edit, also=[FAR])
    assert done.verified
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": FAR}]
    assert kit.chat(turns, max_new_tokens=3).fired == (edit.id,)
    said = [*turns, {"role": "assistant", "content": "x"}, {"role": "user", "content": "sea"}]
    assert kit.chat(said, max_new_tokens=3).fired == ()


def test_one_that_does_not_carry_changes_nothing_unless_it_is_kept(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = kit.add(CAT, "blue").edit
    monkeypatch.setattr(type(kit._running.views), "adjusted", lambda _, view, *__: view)
    done = kit.adjust(edit, also=[FAR], exclude=[NEAR])
    assert (done.outcome, done.verified, done.version) == ("failed", False, "v1")
    assert (done.also[0].carries, done.adjustments.also) == (False, ())
    assert (fired(kit, FAR), fired(kit, NEAR)) == ((), (edit.id,))
    assert not kit.log(limit=1)[0].changed
    kept = kit.adjust(edit, also=[FAR], on_failure="keep")
    assert (kept.outcome, kept.verified, kept.version) == ("adjusted", False, "v2")
    assert fired(kit, FAR) == (edit.id,)
    with pytest.raises(ValueError, match="on_failure"):
        kit.adjust(edit, also=["x"], on_failure="drop")  # type: ignore[arg-type]


def test_a_dry_run_verifies_and_records_nothing(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    done = kit.adjust(edit, also=[FAR], dry_run=True)
    assert (done.dry_run, done.verified, done.adjustments.also) == (True, True, (FAR,))
    assert (kit.version, fired(kit, FAR), len(kit.log())) == ("v1", (), 1)


def test_an_edit_s_own_prompt_goes_before_what_was_said_about_another(kit: Kit) -> None:
    first = kit.add(CAT, "blue").edit
    kit.adjust(first, also=[FAR])
    own = kit.add(FAR, "green")
    assert own.verified
    assert kit.generate(FAR, max_new_tokens=3).text == "green"
    with pytest.raises(ContradictsEdit) as caught:
        kit.adjust(first, also=["sea", FAR])
    assert caught.value.edits == (own.edit.id,)
    kit.revert(own.edit.id)
    assert fired(kit, FAR) == (first.id,)


def test_two_edits_with_different_targets_cannot_both_apply_to_a_prompt(kit: Kit) -> None:
    first, second = kit.add(CAT, "blue").edit, kit.add("milk", "green").edit
    same = kit.add("bread and salt", "blue").edit
    kit.adjust(first, also=[FAR])
    with pytest.raises(ContradictsEdit, match="gives 'blue' there"):
        kit.adjust(second, also=["Tall tree"])
    assert kit.adjust(same, also=[FAR], on_failure="keep").outcome == "adjusted"
    kit.adjust(first, exclude=[FAR])
    kit.adjust(same, exclude=[FAR])
    assert kit.adjust(second, also=["Tall tree"]).verified


def test_a_new_edit_of_an_adjusted_prompt_contradicts_what_was_said(kit: Kit) -> None:
    first = kit.add(CAT, "blue").edit
    kit.adjust(first, also=[FAR], exclude=[NEAR])
    with pytest.raises(ContradictsEdit):
        kit.add("Tall tree", "green", on_conflict="error")
    added = kit.add(NEAR, "green", on_conflict="error")
    assert (added.verified, added.conflicts) == (True, ())
    added = kit.add(FAR, "green")
    assert [(one.edit_id, one.distance) for one in added.conflicts] == [(first.id, None)]


def test_explain_says_that_an_adjustment_decided(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    kit.adjust(edit, also=[FAR], exclude=[NEAR])
    found = kit.explain(FAR)
    assert (found.fired, found.candidates[0].adjusted) == (edit.id, "also")
    assert found.candidates[0].in_scope
    assert "was adjusted to apply to this prompt too" in found.summary
    found = kit.explain(NEAR)
    assert (found.fired, found.candidates[0].adjusted) == (None, "not")
    assert not found.candidates[0].in_scope
    assert "it does not apply to this prompt" in found.summary
    assert kit.explain(CAT).candidates[0].adjusted is None


def test_an_edit_that_is_far_is_explained_too(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    for text in ("tall house", "a tall tower", "tree and house"):
        kit.add(text, "green")
    kit.adjust(edit, also=[FAR])
    found = kit.explain(FAR, k=1)
    assert found.fired == edit.id
    assert [one.edit_id for one in found.candidates if one.adjusted] == [edit.id]


def test_diff_shows_what_the_versions_say_and_what_the_model_answers(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    kit.adjust(edit, also=[FAR], exclude=[NEAR])
    kit.adjust(edit, exclude=[FAR])
    found = kit.diff("v1", "v2", behavior=True)
    assert (found.added, found.removed) == ((), ())
    assert [(one.prompt, one.before, one.after) for one in found.adjusted] == [
        (FAR, None, "also"), (NEAR, None, "not"),
    ]  # fmt: skip
    answers = {one.prompt: one for one in found.behavior}
    assert (answers[FAR].after, answers[FAR].kind, answers[FAR].target) == (
        "blue",
        "rephrase",
        "blue",
    )
    assert answers[NEAR].fired_before == (edit.id,)
    assert answers[NEAR].fired_after == ()
    (turned,) = kit.diff("v2", "v3").adjusted
    assert (turned.before, turned.after) == ("also", "not")
    assert len(kit.diff("v0", "v3").adjusted) == 2
    kit.revert(edit.id)
    assert {(one.before, one.after) for one in kit.diff("v3", "v4").adjusted} == {("not", None)}


def test_a_bundle_brings_them_to_another_history(kit: Kit, tmp_path: Path) -> None:
    edit = kit.add(CAT, "blue").edit
    kit.adjust(edit, also=[FAR], exclude=[NEAR])
    kit.export_bundle(tmp_path / "bundle")
    with opened(tmp_path / "other.db") as other:
        assert other.import_bundle(tmp_path / "bundle").adjusted == (edit.id,)
        assert (fired(other, FAR), fired(other, NEAR)) == ((edit.id,), ())
        other.undo()
        assert fired(other, FAR) == ()


def test_a_replay_onto_another_model_follows_them(tmp_path: Path) -> None:
    with opened(tmp_path / "history.db") as kit:
        edit = kit.add(CAT, "blue").edit
        kit.adjust(edit, also=[FAR], exclude=[NEAR])
    model = (tiny_llama(seed=3), tiny_tokenizer())
    with editkit.open(tmp_path / "history.db", model=model, missing="skip") as kit:
        assert kit.replay().learned == 1
        assert (fired(kit, FAR), fired(kit, NEAR)) == ((edit.id,), ())


def test_edits_that_share_weights_are_adjusted_likewise(tmp_path: Path) -> None:
    with opened(tmp_path / "history.db", **ELDER) as kit:
        edit = kit.add(CAT, "blue", method="elder").edit
        assert fired(kit, FAR) == ()
        # A value of a random model need not carry; that the edit fires is what is tested.
        kit.adjust(edit, also=[FAR], exclude=[NEAR], on_failure="keep")
        assert (fired(kit, FAR), fired(kit, NEAR)) == ((edit.id,), ())
        assert kit.explain(FAR).fired == edit.id


def test_edits_that_hidden_states_look_up_are_adjusted_likewise(tmp_path: Path) -> None:
    with opened(tmp_path / "history.db", preset="paper") as kit:
        edit = kit.add(CAT, "blue").edit
        # A value of a random model need not carry; that the edit fires is what is tested.
        kit.adjust(edit, also=[FAR], exclude=[NEAR], on_failure="keep")
        assert (fired(kit, FAR), fired(kit, NEAR)) == ((edit.id,), ())
        assert kit.explain(FAR).fired == edit.id


@pytest.mark.parametrize("make", [tiny_bert, tiny_llama_classifier, tiny_t5])
def test_classifiers_and_encoder_decoders_are_adjusted_likewise(tmp_path: Path, make: Any) -> None:
    with editkit.open(tmp_path / "history.db", model=(make(), tiny_tokenizer())) as kit:
        target = "blue"
        if kit.encoder.family == "classifier":
            now = kit.generate(FAR).text
            target = next(label for label in kit.encoder.labels if label != now)
        edit = kit.add(CAT, target).edit
        kit.adjust(edit, also=[FAR], exclude=["see Oslo"], on_failure="keep")
        several = kit.generate([FAR, "see Oslo", "TALL tree!"], max_new_tokens=4)
        assert [one.fired for one in several] == [(edit.id,), (), (edit.id,)]
        assert kit.explain(FAR).fired == edit.id
        kit.undo()
        assert fired(kit, FAR) == ()


def test_what_cannot_be_meant_is_refused_before_anything_runs(kit: Kit) -> None:
    edit = kit.add(CAT, "blue").edit
    for also, exclude in (((), ()), (("",), ()), (("x",), ("X!",)), ((), (CAT.lower(),))):
        with pytest.raises(InvalidRequest):
            kit.adjust(edit, also=also, exclude=exclude)
    with pytest.raises(PromptTooLong):
        kit.adjust(edit, also=["x " * 400])
    with pytest.raises(UnknownEdit):
        kit.adjust("ffff", also=["x"])
    kit.revert(edit.id)
    with pytest.raises(NotActive, match="reverted"):
        kit.adjust(edit, also=["x"])
    assert len(kit.log()) == 2
