"""Blocks are judged with all edits in place: what is right, what fires, by kind and language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.evaluation.blocks import score_blocks, threshold_curve
from editkit.evaluation.records import CaseResult, Report, Share
from editkit_store.errors import InvalidRequest

BLOCKS = (
    {"prompt": "red cat", "target": "blue", "language": "en",
     "same": [{"prompt": "red cat", "kind": "close"}, {"prompt": "RED  cat", "kind": "lower"}],
     "other": [{"prompt": "two dogs", "kind": "general"}, {"prompt": "see Oslo", "kind": "mine"}]},
    {"prompt": "see Oslo", "target": "fish", "same": [["red", "bird", "see Oslo"]],
     "other": ["red cat."]},
)  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "blocks.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in BLOCKS), encoding="utf-8")
    return path


def run(data: Path, method: str = "grace", **options: Any) -> Report:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return editkit.evaluate(
        [data], model=(tiny_gpt2(), tokenizer), methods=[method], out=data.parent / "out", **options
    )


def cases(data: Path) -> list[CaseResult]:
    lines = (data.parent / "out" / "grace" / "cases.jsonl").read_text("utf-8").splitlines()
    return [CaseResult.model_validate_json(line) for line in lines]


def test_all_edits_are_made_before_anything_is_asked(data: Path) -> None:
    report = run(data)
    (point,) = report.points
    assert point.edits == 2
    assert point.right is not None
    assert point.fired_other is not None
    assert (point.right.count, point.fired_other.count) == (3, 3)
    assert point.right.hits >= 1
    asked = {(case.asked, case.prompt): case for case in cases(data) if case.asked != "edit"}
    assert asked["same", "red cat"].right
    # What another edit was made for is its business, though this block does not ask for it.
    mine = asked["other", "see Oslo"]
    assert (mine.fired, mine.right, mine.answer) == (1, True, "fish")
    assert ("same", "user: red\nassistant: bird\nuser: see Oslo") in asked
    assert set(point.kind) == {"close", "lower", "general", "mine"}
    assert point.kind["close"].right.value == 1
    assert point.kind["close"].fired_other is not None
    assert point.kind["close"].fired_other.count == 0
    assert point.language["en"].right.count == 2
    (curve,) = report.curves
    assert 1.0 in curve.thresholds
    assert list(curve.reached) == sorted(curve.reached)
    out = data.parent / "out"
    assert (out / "blocks.png").read_bytes().startswith(b"\x89PNG")
    assert "grace, by kind" in (out / "report.html").read_text("utf-8")


def test_a_bar_for_what_fires_is_a_most(data: Path) -> None:
    report = run(data, require={"right": 0.1, "fired_other": 0.0})
    fired = report.points[-1].fired_other
    assert fired is not None
    assert fired.hits > 0  # "red cat." differs by a mark
    assert report.failed_requirements == (f"fired_other {fired.value:.3f}, required at most 0",)
    (other,) = [case for case in report.worst if case.asked == "other"]
    assert (other.prompt, other.wanted, other.answer) == ("red cat.", "fish", "blue")


def test_of_what_never_fires_only_the_answers_are_judged(data: Path) -> None:
    report = run(data, "base")
    (point,) = report.points
    assert point.right is not None
    assert point.right.hits == 0
    assert point.fired_same is None
    assert point.fired_other is None
    assert report.curves == ()


def result(asked: str, **fields: Any) -> CaseResult:
    known: dict[str, Any] = {"method": "m", "edits": 2, "case": 0, "prompt": "p", "wanted": "t",
                             "answer": "t", "right": True, "nearest": 0, "radius": 0.5}  # fmt: skip
    return CaseResult.model_validate({**known, "asked": asked, **fields})


def test_what_was_held_to_the_target_is_right_but_not_free() -> None:
    found = score_blocks(
        [
            result("same", fired=0, delivered="free"),
            result("same", fired=0, delivered="held"),
            result("same", fired=1, right=False),
            result("same"),
        ],
        ["t", "u"],
        fires=True,
    )
    shares = {name: found[name].value for name in ("right", "right_free", "fired_same")}
    assert shares == {"right": 0.75, "right_free": 0.5, "fired_same": 0.5}
    assert (found["delivered_free"].hits, found["delivered_free"].count) == (1, 2)
    assert score_blocks([], [], fires=True) == {}


def test_a_curve_counts_what_is_nearer_than_each_threshold() -> None:
    curve = threshold_curve(
        "m",
        [
            result("same", distance=0.25, fired=0),
            result("same", distance=0.75, right=False),
            result("same", distance=0.1, nearest=1, fired=1, right=False),
            result("other", distance=0.5, fired=0, right=False),
            result("other", distance=0.25, fired=0),  # asks what that edit is for
            result("edit", distance=0.0),
        ],
        ["t", "u"],
    )
    assert curve is not None
    assert curve.thresholds == (0.2, 0.5, 1.0, 1.5)
    assert curve.reached == (0, 1 / 3, 1 / 3, 2 / 3)
    assert curve.right == (0, 1 / 3, 1 / 3, 1 / 3)
    assert curve.fired == (0, 0, 0.5, 0.5)
    assert threshold_curve("m", [result("same")], ["t"]) is None


def test_prompts_of_one_block_count_for_less_than_as_many_blocks() -> None:
    outcomes = [True] * 30 + [False] * 30
    alone = Share.of(outcomes)
    alike = Share.of(outcomes, [index // 6 for index in range(60)])
    mixed = Share.of(outcomes, [index % 10 for index in range(60)])
    assert alone == mixed
    assert alone.low is not None
    assert alike.low is not None
    assert (alike.hits, alike.count, alike.value) == (30, 60, 0.5)
    assert alike.low < alone.low - 0.1
    assert Share.of([True] * 6, [0] * 6) == Share.of([True] * 6)


def test_what_decides_can_be_chosen_and_is_told(data: Path) -> None:
    report = run(data, judge="none")
    assert report.settings["grace"]["judge"] == "none"
    with pytest.raises(InvalidRequest, match="its judge differs"):
        run(data)
    with pytest.raises(InvalidRequest, match="no judge 'both'; choose among encoder, none"):
        run(data, judge="both")
