from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

import editkit
from editkit import Kit
from editkit.errors import (
    ArtifactsMissing,
    EmptyTarget,
    PromptTooLong,
    UnknownModel,
    UnknownSite,
    UnsupportedMethod,
)
from editkit_store import EditkitError, open_store
from editkit_store.errors import (
    InvalidRequest,
    NotAStore,
    NothingToUndo,
    StoreError,
    StoreLocked,
    StoreUnwritable,
    UnknownEdit,
    UnknownVersion,
)

PROMPT = "The capital of Australia is"


def logits(kit: Kit, text: str) -> torch.Tensor:
    with torch.no_grad():
        return kit.model(**kit.tokenizer(text, return_tensors="pt")).logits


def test_an_edit_takes_effect_at_once_and_is_written_down(kit: Kit) -> None:
    before = kit.generate(PROMPT)
    added = kit.add(
        prompt=PROMPT, target="Canberra", reason="wrong city", author="ada", before=True
    )
    assert (added.version, added.verified, added.answer) == ("v1", True, "Canberra")
    assert added.before
    assert before.text.startswith(added.before[:2])
    after = kit.generate(PROMPT)
    assert (after.text, after.version, after.fired) == ("Canberra", "v1", (added.edit.id,))
    assert str(after) == "Canberra"
    assert after.finish_reason == "stop"
    (entry,) = kit.log()
    assert (entry.operation, entry.target, entry.author) == ("add", "Canberra", "ada")
    assert entry.reason == "wrong city"


def test_the_hugging_face_objects_are_edited_too(kit: Kit) -> None:
    kit.add(prompt=PROMPT, target="Canberra")
    ids = kit.tokenizer(PROMPT, return_tensors="pt")
    out = kit.model.generate(**ids, do_sample=False, max_new_tokens=8)
    assert kit.tokenizer.decode(out[0, ids.input_ids.shape[1] :], skip_special_tokens=True) == (
        " Canberra"
    )


def test_time_travel_disturbs_nobody(kit: Kit) -> None:
    before = kit.generate(PROMPT)
    kit.add(prompt=PROMPT, target="Canberra")
    kit.add(prompt=PROMPT, target="Sydney")
    assert kit.generate(PROMPT, version="v0").text == before.text
    assert kit.generate(PROMPT, version="v0").fired == ()
    assert kit.generate(PROMPT, version="v1").text == "Canberra"
    assert kit.generate(PROMPT).text == "Sydney"
    assert kit.generate(PROMPT, version="@-").version == "v1"


def test_a_list_of_prompts_gives_a_list(kit: Kit) -> None:
    edit = kit.add(prompt=PROMPT, target="Canberra").edit
    found = kit.generate([PROMPT, "x", PROMPT])
    assert [g.text for g in found][::2] == ["Canberra", "Canberra"]
    assert [g.fired for g in found] == [(edit.id,), (), (edit.id,)]
    assert kit.generate([]) == []
    assert isinstance(kit.generate([PROMPT]), list)


def test_a_turn_of_a_chat_is_corrected_as_it_was(kit: Kit) -> None:
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "who?"},
    ]
    added = kit.add(chat=history, target="Ada")
    assert added.verified
    assert added.edit.prompt == "who?"
    assert kit.chat(history).text == "Ada"
    assert kit.chat(history).fired == (added.edit.id,)
    assert kit.generate("who?").fired == ()


def test_edits_are_still_there_in_a_new_kit_and_gone_after_a_rollback(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    model, tokenizer = tiny_gpt2(), tiny_tokenizer()
    with editkit.open(path, model=(model, tokenizer)) as kit:
        plain = {text: logits(kit, text) for text in (PROMPT, "unrelated words")}
        kit.add(prompt=PROMPT, target="Canberra")
        edited = logits(kit, PROMPT)
        assert not torch.equal(edited, plain[PROMPT])
        assert torch.equal(logits(kit, "unrelated words"), plain["unrelated words"])
    with editkit.open(path, model=(tiny_gpt2(), tokenizer)) as kit:
        assert kit.version == "v1"
        assert torch.equal(logits(kit, PROMPT), edited)
        assert kit.rollback("v0").version == "v2"
        for text, wanted in plain.items():
            assert torch.equal(logits(kit, text), wanted)
        kit.undo()
        assert torch.equal(logits(kit, PROMPT), edited)


def test_leaving_the_kit_leaves_the_model_as_it_came(tmp_path: Path) -> None:
    model, tokenizer = tiny_gpt2().train(), tiny_tokenizer()
    with editkit.open(tmp_path / "h.db", model=(model, tokenizer)) as kit:
        kit.add(prompt=PROMPT, target="Canberra")
        assert not model.training
    assert model.training
    assert not model._forward_hooks
    assert "generate" not in model.__dict__
    kit.close()


def test_adding_then_reverting_is_bit_identical(kit: Kit) -> None:
    kit.add(prompt="Who?", target="Ada")
    before = [logits(kit, text) for text in ("Who?", PROMPT)]
    radii = kit.explain("Who?").candidates[0].radius
    edit = kit.add(prompt=PROMPT, target="Canberra").edit
    assert kit.revert(edit.id[:6]).view == 1
    assert all(
        torch.equal(logits(kit, text), wanted)
        for text, wanted in zip(("Who?", PROMPT), before, strict=True)
    )
    assert kit.explain("Who?").candidates[0].radius == radii


def test_correcting_again_supersedes_and_reverting_that_restores(kit: Kit) -> None:
    first = kit.add(prompt=PROMPT, target="Sydney")
    second = kit.add(prompt=PROMPT, target="Canberra")
    assert second.supersedes == (first.edit.id,)
    assert kit.generate(PROMPT).text == "Canberra"
    assert kit.status().edits == 1
    kit.revert(second.edit.id)
    assert kit.generate(PROMPT).text == "Sydney"


def test_many_edits_are_learned_in_batches_and_all_hold(kit: Kit) -> None:
    pairs = [
        (f"Question {i}?", t) for i, t in enumerate(["two", "Ada", "green", "Oslo", "tea"] * 2)
    ]
    results = kit.add_many([{"prompt": p, "target": t} for p, t in pairs])
    assert all(result.verified for result in results)
    assert [result.version for result in results] == [f"v{i}" for i in range(1, 11)]
    assert [g.text for g in kit.generate([p for p, _ in pairs])] == [t for _, t in pairs]


def test_an_edit_that_does_not_verify_is_recorded_and_not_active(tmp_path: Path) -> None:
    with editkit.open(
        tmp_path / "h.db", model=(tiny_gpt2(), tiny_tokenizer()), grace={"max_steps": 1}
    ) as kit:
        before = logits(kit, PROMPT)
        added = kit.add(prompt=PROMPT, target="yes no yes no one two")
        assert not added.verified
        assert added.edit.status == "failed"
        assert (added.version, kit.version) == ("v0", "v0")
        assert torch.equal(logits(kit, PROMPT), before)
        assert kit.log()[0].status == "failed"
        kept = kit.add(prompt=PROMPT, target="yes no yes no one two", on_failure="keep")
        assert (kept.version, kept.verified, kept.edit.status) == ("v1", False, "active")
        assert kit.generate(PROMPT).fired == (kept.edit.id,)


def test_explain_names_the_edit_and_its_distance(kit: Kit) -> None:
    assert "No edit is active" in kit.explain(PROMPT).summary
    edit = kit.add(prompt=PROMPT, target="Canberra").edit
    kit.add(prompt="Who?", target="Ada")
    hit = kit.explain(PROMPT)
    assert hit.fired == edit.id
    assert hit.candidates[0].in_scope
    assert hit.candidates[0].distance < 1e-2 < hit.candidates[1].distance
    miss = kit.explain("milk")
    assert miss.fired is None
    assert "No edit fires: the nearest one" in miss.summary
    assert kit.explain(PROMPT, version="v0").candidates == ()
    assert len(kit.explain(PROMPT, k=1).candidates) == 1


def test_diff_shows_edits_and_codebook_rows(kit: Kit) -> None:
    first = kit.add(prompt=PROMPT, target="Sydney").edit
    second = kit.add(prompt=PROMPT, target="Canberra").edit
    diff = kit.diff("v1", "v2")
    assert [e.id for e in diff.added] == [second.id]
    assert [(e.id, e.status) for e in diff.removed] == [(first.id, "superseded")]
    assert (diff.codebook.added, diff.codebook.removed) == (1, 1)
    back = kit.diff("v2", "v1")
    assert ([e.id for e in back.added], [e.id for e in back.removed]) == ([first.id], [second.id])
    assert kit.diff("@", "@").added == ()


def test_two_near_prompts_with_other_targets_share_the_space_between_them(tmp_path: Path) -> None:
    with editkit.open(
        tmp_path / "h.db",
        model=(tiny_gpt2(), tiny_tokenizer()),
        grace={"key": "state", "units": "absolute", "radius": 50.0},
    ) as kit:
        one = kit.add(prompt="What is 1+1?", target="two").edit
        two = kit.add(prompt="What is 2+2?", target="four").edit
        assert [g.text for g in kit.generate(["What is 1+1?", "What is 2+2?"])] == ["two", "four"]
        changed = kit.diff("v1", "v2").codebook
        assert [row.edit_id for row in changed.changed_rows] == [one.id]
        assert changed.changed_rows[0].before == 50.0
        kit.revert(two.id)
        assert kit.diff("v1", "v3").codebook.radius_changed == 0


def test_bad_requests_are_refused_and_nothing_is_written(kit: Kit) -> None:
    cases: list[tuple[dict[str, Any], type[EditkitError]]] = [
        ({"prompt": " ", "target": "x"}, InvalidRequest),
        ({"prompt": "x", "target": ""}, InvalidRequest),
        ({"prompt": "x", "target": "<e>"}, EmptyTarget),
        ({"prompt": "x" * 400, "target": "y"}, PromptTooLong),
        ({"prompt": "x", "target": "? " * 300}, PromptTooLong),
        ({"prompt": "x", "target": "y", "kind": "label"}, UnsupportedMethod),
        ({"prompt": "x", "target": "y", "kind": "joke"}, InvalidRequest),
        ({"chat": [], "target": "y"}, InvalidRequest),
        ({"target": "y"}, InvalidRequest),
    ]
    for fields, error in cases:
        with pytest.raises(error):
            kit.add(**fields)
    with pytest.raises(InvalidRequest, match="target is empty"):
        kit.add_many([{"prompt": "a", "target": "two"}, {"prompt": "b", "target": ""}])
    assert kit.log() == []
    with pytest.raises(InvalidRequest):
        kit.generate("")
    with pytest.raises(UnknownVersion):
        kit.generate("x", version="v9")
    with pytest.raises(UnknownVersion):
        kit.rollback("v9")
    with pytest.raises(UnknownEdit):
        kit.revert("abc")
    with pytest.raises(NothingToUndo):
        kit.undo()


def test_a_write_that_fails_leaves_the_running_model_as_it_was(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logits(kit, PROMPT)

    def full(*args: Any, **kwargs: Any) -> None:
        raise StoreError("the disk is full", path="x")

    with monkeypatch.context() as patch:
        patch.setattr(kit.store._db, "insert", full)
        with pytest.raises(StoreError):
            kit.add(prompt=PROMPT, target="Canberra")
    assert torch.equal(logits(kit, PROMPT), before)
    assert kit.version == "v0"
    assert kit.add(prompt=PROMPT, target="Canberra").version == "v1"


def test_a_model_that_has_not_learned_the_edits_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        kit.add(prompt=PROMPT, target="Canberra")
        learned = kit.fingerprint
    other = (tiny_gpt2(seed=5), tiny_tokenizer())
    with pytest.raises(ArtifactsMissing, match="has not learned 1 active edit") as caught:
        editkit.open(path, model=other)
    assert caught.value.known == (learned,)
    assert "editkit replay" in str(caught.value.hint)
    with open_store(path, write=True) as store:  # nothing holds it any more
        assert store.version() == "v1"


def test_replay_restores_on_the_same_model_and_learns_on_another(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        kit.add(prompt=PROMPT, target="Canberra")
        kit.add(prompt="Who?", target="Ada")
        wanted = logits(kit, PROMPT)
        done = kit.replay()
        assert (done.restored, done.learned, done.failed) == (2, 0, 0)
        assert torch.equal(logits(kit, PROMPT), wanted)
    for again in ((0, 2), (2, 0)):
        with editkit.open(
            path, model=(tiny_llama(), tiny_tokenizer()), missing="skip"
        ) as kit:  # fmt: skip
            done = kit.replay()
            assert (done.restored, done.learned, done.failed) == (*again, 0)
            assert kit.generate([PROMPT, "Who?"])[1].text == "Ada"
            assert kit.version == "v2"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        assert torch.equal(logits(kit, PROMPT), wanted)
        assert [e.operation for e in kit.log()] == ["replay"] * 4 + ["add"] * 2


def test_an_interrupted_replay_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h.db"
    words = ["two", "Ada", "green", "Oslo", "tea", "gold", "Rome", "blue", "cat", "moon"]
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        kit.add_many([{"prompt": f"Question {i}?", "target": w} for i, w in enumerate(words)])
    other = (tiny_gpt2(seed=3), tiny_tokenizer())

    class Stop:
        def start(self, task: str, total: int | None, unit: str) -> None: ...
        def done(self) -> None: ...
        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

    with editkit.open(path, model=other, missing="skip") as kit, pytest.raises(KeyboardInterrupt):
        kit.replay(progress=Stop())
    with editkit.open(path, model=other, missing="skip") as kit:
        done = kit.replay()
        assert done.restored + done.failed >= 7
        assert done.restored + done.learned + done.failed == 10
        assert done.learned <= 3
    monkeypatch.undo()


def test_a_replay_reports_what_the_model_did_not_learn(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        kit.add(prompt=PROMPT, target="Canberra")
    other = (tiny_llama(seed=2, max_position_embeddings=4), tiny_tokenizer())
    with editkit.open(path, model=other, missing="skip") as kit:
        done = kit.replay()
        assert (done.learned, done.failed) == (0, 1)
        assert "context window of 4" in done.failures[0].reason
    with editkit.open(path, model=other) as kit:  # known to have failed: no longer missing
        assert kit.generate("x", max_new_tokens=1).fired == ()


def test_replay_to_a_version_learns_what_was_active_there(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        kit.add(prompt=PROMPT, target="Canberra")
        kit.add(prompt="Who?", target="Ada")
        kit.tag("v1", "prod")
    with editkit.open(path, model=(tiny_gpt2(3), tiny_tokenizer()), missing="skip") as kit:
        assert kit.replay(to="prod").learned == 1
        assert kit.generate(PROMPT, version="v1").text == "Canberra"
        with pytest.raises(UnknownVersion):
            kit.replay(to="nope")


def test_a_mistyped_model_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        editkit.open(tmp_path / "h.db", model="smolm2-135m")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_store_is_refused_before_any_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "h.db").write_text("not a database")
    with pytest.raises(NotAStore):
        editkit.open(tmp_path / "h.db", model="a-model-that-does-not-exist")


def test_a_kit_holds_its_store(kit: Kit) -> None:
    with pytest.raises(StoreLocked):
        open_store(kit.store.path, wait=0)


def test_reading_needs_no_store_and_makes_none(tmp_path: Path) -> None:
    model = (tiny_gpt2(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, read_only=True) as kit:
        assert kit.generate("x").version == "v0"
    assert list(tmp_path.iterdir()) == []


def test_a_site_can_be_chosen_and_must_exist(tmp_path: Path) -> None:
    model = (tiny_gpt2(), tiny_tokenizer())
    with editkit.open(
        tmp_path / "h.db", model=model, grace={"site": "transformer.h[1].mlp.c_fc"}
    ) as kit:
        assert kit.site == "transformer.h.1.mlp.c_fc"
        assert kit.add(prompt="Who?", target="Ada").verified
    with pytest.raises(UnknownSite):
        editkit.open(tmp_path / "h2.db", model=model, grace={"site": "transformer.h.1.mlp.nope"})


def test_the_paper_preset_edits(tmp_path: Path) -> None:
    model = (tiny_gpt2(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, preset="paper") as kit:
        added = kit.add(prompt="Who?", target="Ada")
        assert added.verified
        again = kit.add(prompt="Who is?", target="Ada")
        assert again.verified


def test_records_dump_to_what_the_command_line_prints(kit: Kit) -> None:
    added = kit.add(prompt=PROMPT, target="Canberra").model_dump(mode="json")
    assert {"version", "verified", "seconds", "edit"} <= set(added)
    assert kit.diff("v0", "v1").model_dump(mode="json")["from"] == "v0"


def test_a_closed_kit_refuses_to_answer_from_the_uncorrected_model(kit: Kit) -> None:
    kit.add(PROMPT, "Canberra")
    kit.close()
    for ask in (lambda: kit.generate(PROMPT), lambda: kit.add(PROMPT, "Oslo"), kit.log):
        with pytest.raises(StoreError, match="is closed"):
            ask()


def test_a_kit_that_was_opened_to_read_refuses_to_add_before_it_learns(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.close()
    pair = (kit.model, kit.tokenizer)
    with editkit.open(tmp_path / "kit.db", model=pair, read_only=True) as reading:
        monkeypatch.setattr("editkit.methods.grace.learning.optimize", None)
        with pytest.raises(StoreUnwritable, match="is read-only"):
            reading.add(PROMPT, "Canberra")


def test_answers_as_dictionaries_and_unknown_options_are_refused(kit: Kit) -> None:
    with pytest.raises(InvalidRequest, match="return_dict_in_generate"):
        kit.generate(PROMPT, return_dict_in_generate=True)
    with pytest.raises(ValueError, match="nonsense"):
        kit.generate(PROMPT, nonsense=1)


def test_a_batch_with_a_failing_edit_keeps_the_others_exactly(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    settle = kit.methods.of("grace").finalize

    def failing(edit: Any, lesson: Any, view: Any, answer: Any, **how: Any) -> Any:
        if edit.target == "Rome":
            answer = dataclasses.replace(answer, text="something else")
        return settle(edit, lesson, view, answer, **how)

    monkeypatch.setattr(kit.methods.of("grace"), "finalize", failing)
    targets = ["Paris", "Rome", "Oslo", "Berlin"]
    asked = ["Who sang it?", "Where was Bach born?", "A fourth prime:", "Ice melts at"]
    added = kit.add_many(
        [{"prompt": p, "target": t} for p, t in zip(asked, targets, strict=True)],
        told=lambda one: told.append(one.edit.target),
    )
    assert [one.verified for one in added] == [True, False, True, True]
    assert [one.version for one in added] == ["v1", "v1", "v2", "v3"]
    assert told == targets
    answers = kit.generate(asked)
    assert [bool(answer.fired) for answer in answers] == [True, False, True, True]
    assert [answers[i].text for i in (0, 2, 3)] == ["Paris", "Oslo", "Berlin"]
    assert added[1].edit.id not in kit.methods.of("grace")._memory
