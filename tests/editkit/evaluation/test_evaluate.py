"""Evaluations of tiny models, from the data to the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_bert, tiny_gpt2, tiny_t5, tiny_tokenizer

import editkit
from editkit.errors import UnsupportedMethod, UnsupportedModel
from editkit.evaluation import streaming
from editkit.evaluation.contestants import Contestant, Question
from editkit.evaluation.judging import general_pairs
from editkit.evaluation.methods import maker
from editkit.evaluation.records import CaseResult, Report
from editkit.evaluation.streaming import checkpoints
from editkit.evaluation.tuned import FineTuning, Lora
from editkit_store.errors import InvalidRequest
from editkit_store.records import EditRequest

EDITS = (
    {"prompt": "red cat", "target": "blue", "rephrases": ["red cat?"], "locality": ["two dogs"]},
    {"prompt": "see Oslo", "target": "fish", "rephrases": ["Oslo see"], "locality": ["the horse"]},
    {"prompt": "see Oslo", "target": "horse", "neighbours": ["see Rome"]},
    {"prompt": "green bird", "target": "sun", "rephrases": ["a green bird"]},
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models with tiny weights need larger steps than real ones."""
    monkeypatch.setattr(FineTuning, "rate", 0.05)
    monkeypatch.setattr(Lora, "rate", 0.05)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "edits.jsonl"
    path.write_text("".join(json.dumps(edit) + "\n" for edit in EDITS), encoding="utf-8")
    return path


def run(data: Path, *methods: str, model: Any = None, **changes: Any) -> Report:
    pair = model or (tiny_gpt2(), tiny_tokenizer())
    options = {"out": data.parent / "out", "general": "one two three four", **changes}
    return editkit.evaluate([data], model=pair, methods=methods or ("grace",), **options)


def cases(data: Path, method: str = "grace") -> list[CaseResult]:
    lines = (data.parent / "out" / method / "cases.jsonl").read_text("utf-8").splitlines()
    return [CaseResult.model_validate_json(line) for line in lines]


def test_edits_are_judged_as_a_stream(data: Path) -> None:
    report = run(data, at=[1, 2])
    first, second, last = report.points
    assert [point.edits for point in report.points] == [1, 2, 4]
    assert (first.reliability.hits, first.reliability.count) == (1, 1)
    assert second.reliability.count == 1  # a later edit of the stream contradicts the second one
    assert (last.reliability.hits, last.reliability.count) == (3, 3)
    assert (last.edit_success.hits, last.edit_success.count) == (4, 4)
    assert last.generalization.count == 2
    assert (last.locality.hits, last.locality.count) == (2, 2)
    assert last.neighbours.count == 1
    assert last.false_fires is not None
    assert last.false_fires.count == 3
    assert last.keys == 3  # the contradicted edit's row is gone
    assert last.seconds_per_edit > 0
    assert report.methods == ("grace",)


def test_what_is_reported_is_what_the_kit_answers(data: Path, tmp_path: Path) -> None:
    run(data)
    with editkit.open(tmp_path / "own.db", model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        before = {p: kit.generate(p, max_new_tokens=16).text for p in ("two dogs", "see Rome")}
        kit.add_many([{k: edit[k] for k in ("prompt", "target")} for edit in EDITS])
        for case in cases(data):
            said = kit.generate(case.prompt, max_new_tokens=16)
            if case.asked in ("edit", "rephrase"):
                assert case.right == (said.text == case.wanted)
            else:
                assert case.wanted == before.get(case.prompt, case.wanted)
                assert case.answer == said.text
            assert (case.fired is not None) == bool(said.fired)
            near = kit.explain(case.prompt).candidates[0]
            assert case.distance == pytest.approx(near.distance, abs=1e-6)
            if case.wanted and not case.right:  # one given freely was chosen token by token
                score = kit.score(case.prompt, case.wanted)
                assert case.forced == pytest.approx(score.right / score.tokens)


def test_the_untouched_model_changes_nothing(data: Path) -> None:
    (point,) = run(data, "base", at=[4]).points
    assert point.locality.value == 1
    assert point.locality_forced.value == 1
    assert point.neighbours.value == 1
    assert point.retention is not None
    assert point.retention.perplexity == point.retention.base_perplexity
    assert point.false_fires is None
    assert point.keys is None
    assert point.reliability.hits < point.reliability.count


def test_long_targets_do_not_make_the_answers_to_probes_longer(data: Path) -> None:
    long = {"prompt": "red cat", "target": "blue cat " * 20, "locality": ["two dogs", "see"]}
    data.write_text(json.dumps(long) + "\n", encoding="utf-8")
    (point,) = run(data, "base").points
    assert (point.locality.hits, point.locality.count) == (2, 2)


def test_perplexity_is_that_of_the_continuations(data: Path) -> None:
    pair = tiny_gpt2(), tiny_tokenizer()
    (point,) = run(data, "base", at=[4], model=pair, general="one two three four\nred blue").points
    nats, count = 0.0, 0
    for head, tail in (("one two", " three four"), ("red", " blue")):
        before, after = (pair[1](text)["input_ids"] for text in (head, head + tail))
        with torch.no_grad():
            logits = pair[0].eval()(torch.tensor([after])).logits[0].log_softmax(-1)
        places = range(len(before), len(after))
        nats -= sum(float(logits[at - 1, after[at]]) for at in places)
        count += len(places)
    assert point.retention is not None
    assert point.retention.perplexity == pytest.approx(
        float(torch.tensor(nats / count).exp()), rel=1e-4
    )


def test_general_text_is_cut_between_words() -> None:
    assert general_pairs("a b c d\n\none\n e f g ") == [("a b", "c d"), ("e", "f g")]


@pytest.mark.parametrize("method", ["fine-tuning", "lora"])
def test_training_baselines_learn_and_give_the_model_back(data: Path, method: str) -> None:
    model, tokenizer = tiny_gpt2(), tiny_tokenizer()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    report = run(data, method, model=(model, tokenizer), at=[1])
    assert report.points[0].edit_success.hits == 1
    assert report.points[0].keys is None
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(weight.requires_grad is False for weight in model.parameters())


@pytest.mark.parametrize(
    "method", ["grace", "elder", "elder:paper", "fine-tuning", "lora", "prompt-memory"]
)
def test_a_run_goes_on_from_where_it_was_killed(
    data: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(data, method, at=[1, 2], out=data.parent / "whole")
    made: list[int] = []
    edit, judged = Contestant.answers, streaming.Stream._advanced

    def dies(self: Any, editor: Any, judge: Any, last: Any, count: int) -> Any:
        if count == 4:
            raise KeyboardInterrupt
        return judged(self, editor, judge, last, count)

    monkeypatch.setattr(streaming.Stream, "_advanced", dies)
    with pytest.raises(KeyboardInterrupt):
        run(data, method, at=[1, 2])
    monkeypatch.setattr(streaming.Stream, "_advanced", judged)

    def counted(self: Any, questions: Sequence[Question], limit: int) -> Any:
        made.append(len(questions))
        return edit(self, questions, limit)

    monkeypatch.setattr(Contestant, "answers", counted)
    rest = run(data, method, at=[1, 2])
    scores = {"seconds_per_edit"}
    assert [p.model_dump(exclude=scores) for p in rest.points] == [
        p.model_dump(exclude=scores) for p in whole.points
    ]
    asked = sum(made)
    made.clear()
    again = run(data, method, at=[1, 2])  # a third time nothing is asked at all
    assert asked > 0 == sum(made)
    assert again.points == rest.points


def test_another_method_can_be_added_but_no_other_data(data: Path) -> None:
    first = run(data, "grace")
    both = run(data, "grace", "base")
    assert both.methods == ("grace", "base")
    assert both.points[: len(first.points)] == first.points
    with pytest.raises(InvalidRequest, match="its edits, checkpoints differ"):
        run(data, "grace", edits=2)
    with pytest.raises(InvalidRequest, match="its seed differs"):
        run(data, "grace", seed=1)


def test_a_sample_is_the_same_for_every_method(data: Path) -> None:
    run(data, "grace", "base", judged=2, at=[4])
    assert {case.case for case in cases(data)} == {case.case for case in cases(data, "base")}
    assert len({case.case for case in cases(data)}) <= 2


def test_a_memory_in_the_prompt_shows_the_nearest_corrections(data: Path, tmp_path: Path) -> None:
    editor = maker("prompt-memory", (tiny_gpt2(), tiny_tokenizer()))(tmp_path / "m")
    asked: list[str] = []
    generate = editor.kit.generate_tokens

    def listened(prompts: list[list[int]], **how: Any) -> Any:
        asked.extend(editor.kit.encoder.decode(one) for one in prompts)
        return generate(prompts, **how)

    editor.kit.generate_tokens = listened  # type: ignore[method-assign,assignment]
    try:
        editor.edit([EditRequest(prompt="see Oslo", target="fish")])
        assert asked == ["Question: see Oslo\nAnswer: fish\n\nQuestion: see Oslo\nAnswer:"]
        asked.clear()
        (far,) = editor.answers([Question("the 52 horses")], 4)
        assert asked == ["the 52 horses"]
        assert far.fired is None
    finally:
        editor.close()


def test_labels_of_a_classifier_are_judged_too(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [
        {"prompt": "red cat", "target": "positive", "rephrases": ["red cats"],
         "locality_prompt": "two dogs", "locality_answer": "negative"},
        {"prompt": "see Oslo", "target": "negative"},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = run(path, "grace", "fine-tuning", model=(tiny_bert(), tiny_tokenizer()))
    for point in report.points:
        assert point.edit_success.value == 1
        assert point.retention is not None
        assert point.retention.perplexity is None
        assert point.retention.answers.count == 1
    with pytest.raises(UnsupportedModel, match="decoders"):
        run(path, "prompt-memory", model=(tiny_bert(), tiny_tokenizer()), out=tmp_path / "other")


def test_an_encoder_decoder_is_judged_too(data: Path) -> None:
    report = run(data, "grace", "fine-tuning", model=(tiny_t5(), tiny_tokenizer()), edits=1)
    edited, trained = report.points
    assert edited.edit_success.value == 1
    assert trained.retention is not None
    assert trained.retention.perplexity != trained.retention.base_perplexity


def test_bars_that_were_missed_are_named(data: Path) -> None:
    report = run(data, "base", require={"locality": 1.0, "reliability": 0.97, "neighbours": 0.5})
    assert len(report.failed_requirements) == 1
    assert report.failed_requirements[0].startswith("reliability 0.")
    with pytest.raises(InvalidRequest, match="no score"):
        run(data, "base", require={"beauty": 1.0})


def test_bad_arguments_are_refused_before_a_model_is_loaded(data: Path) -> None:
    with pytest.raises(UnsupportedMethod, match="no method 'graze'") as caught:
        editkit.evaluate([data], model="no-such-model", methods=["graze"], out=data.parent / "o")
    assert "did you mean 'grace'" in str(caught.value.hint)
    with pytest.raises(InvalidRequest, match="counted from 1"):
        run(data, at=[0])
    (data.parent / "file").write_text("in the way")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        run(data, out=data.parent / "file")


@pytest.mark.parametrize(
    ("edits", "at"), [(1, (1,)), (5, (1, 5)), (10, (1, 10)), (1000, (1, 10, 100, 1000))]
)
def test_judged_after_powers_of_ten_and_at_the_end(edits: int, at: tuple[int, ...]) -> None:
    assert checkpoints(edits) == at


def test_the_folder_holds_the_report_in_every_form(data: Path) -> None:
    report = run(data, "grace", "base")
    out = data.parent / "out"
    assert Report.model_validate_json((out / "report.json").read_bytes()) == report
    assert (out / "points.csv").read_text("utf-8").count("\n") == 1 + len(report.points)
    assert "red cat" in (out / "cases.csv").read_text("utf-8")
    assert "<html" in (out / "report.html").read_text("utf-8")
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    (reach,) = report.reach
    assert len(reach.rephrases_right) + len(reach.rephrases_wrong) == 2
    (tradeoff,) = report.tradeoffs
    assert tradeoff.spared[0] == 1
    assert tradeoff.reached[-1] + tradeoff.misled[-1] == pytest.approx(1)
    assert list(tradeoff.reached) == sorted(tradeoff.reached)
