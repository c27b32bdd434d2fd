"""Scope by meaning: recall proposes edits, and the judge decides which of them fires."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

import editkit
from editkit.kit import Kit
from editkit.scope.judge import Judge

# The tiny tokenizer knows these words, and no others.
PROMPT, REWORDED, OTHER = "The capital of Australia is", "capital Australia", "tall tree"


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    model = (tiny_llama(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, judge="encoder") as opened:
        yield opened


def nearest(judge: Judge, text: str, prompts: list[str]) -> int:
    keys = np.stack([judge.key(one) for one in prompts])
    return int((keys @ judge.key(text)).argmax())


def test_recall_does_not_care_about_spelling(judge: Judge) -> None:
    said = "What does the Zoë plan cost per month?"
    full = "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in said)
    for other in (
        said.lower(),
        said.upper(),
        unicodedata.normalize("NFD", said),
        full,
        f" {said}!",
    ):
        assert judge.key(other).tolist() == pytest.approx(judge.key(said).tolist(), abs=1e-6)


def test_recall_finds_another_wording_among_other_subjects(judge: Judge) -> None:
    prompts = [
        "How much is the Basic plan?",
        "Who wrote Dracula?",
        "When does the pool open on Sundays?",
        "Which port does the service listen on?",
    ]
    assert nearest(judge, "hi, quick question - what would basic plan cost me?", prompts) == 0
    assert nearest(judge, "dracula author", prompts) == 1
    assert nearest(judge, "opening hours of the swimming pool, sunday", prompts) == 2


def test_a_text_without_words_has_no_key(judge: Judge) -> None:
    assert not judge.key("?!").any()
    assert not judge.key("").any()


def test_an_edit_fires_for_its_prompt_however_it_is_written(kit: Kit) -> None:
    added = kit.add(PROMPT, "Canberra")
    assert added.verified
    for prompt in (PROMPT, PROMPT.lower(), f"  {PROMPT} "):
        assert kit.explain(prompt).fired == added.edit.id
    assert kit.explain(OTHER).fired is None


def test_what_explains_is_what_answers(kit: Kit) -> None:
    kit.add_many([{"prompt": PROMPT, "target": "Canberra"}, {"prompt": OTHER, "target": "blue"}])
    prompts = [PROMPT, OTHER, "milk and bread", REWORDED]
    answers = kit.generate(prompts, max_new_tokens=2)
    for prompt, answer in zip(prompts, answers, strict=True):
        fired = kit.explain(prompt).fired
        assert answer.fired == (() if fired is None else (fired,))


def test_candidates_say_how_unlike_they_are_and_how_far_their_edit_reaches(kit: Kit) -> None:
    kit.add(PROMPT, "Canberra")
    (candidate,) = kit.explain(PROMPT).candidates
    assert (candidate.distance, candidate.in_scope) == (0, True)
    assert 0 < candidate.radius < 1  # what is left of a probability


def test_a_scope_of_its_own_goes_before_the_histories(kit: Kit) -> None:
    for scope in ("strict", "balanced", "broad"):
        kit.add(PROMPT, "Canberra", scope=scope)
        (candidate,) = kit.explain(PROMPT).candidates
        thresholds = Judge.load().thresholds
        assert candidate.radius == pytest.approx(1 - thresholds[scope])


def test_a_prompt_that_an_edit_must_leave_alone_does_not_fire_it(kit: Kit) -> None:
    first = kit.add(PROMPT, "Canberra", scope="broad").edit
    near = "What is the capital of Australia?"
    assert kit.explain(near).fired == first.id
    second = kit.add(PROMPT, "blue", scope="broad", locality=[near]).edit
    assert kit.explain(near).fired is None
    assert kit.explain(PROMPT).fired == second.id


def test_it_is_the_same_after_opening_again_and_after_going_back(tmp_path: Path) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, judge="encoder") as kit:
        edit = kit.add(PROMPT, "Canberra").edit
        said = kit.explain(PROMPT).candidates
    with editkit.open(tmp_path / "h.db", model=model) as kit:  # the history says which keys
        assert kit.explain(PROMPT).candidates == said
        kit.rollback("v0")
        assert kit.explain(PROMPT).fired is None
        kit.undo()
        assert kit.explain(PROMPT).fired == edit.id


def test_models_agree_about_what_fires(tmp_path: Path) -> None:
    found = []
    for name, make in (("llama", tiny_llama), ("gpt2", tiny_gpt2)):
        model = (make(), tiny_tokenizer())
        with editkit.open(tmp_path / name, model=model, judge="encoder") as kit:
            kit.add_many(
                [{"prompt": PROMPT, "target": "Canberra"}, {"prompt": OTHER, "target": "blue"}],
                on_failure="keep",
            )
            explained = [kit.explain(one) for one in (PROMPT, REWORDED, OTHER, "tree")]
            found.append([[c.distance for c in one.candidates] for one in explained])
    assert found[0] == found[1]


def test_what_was_said_of_a_reach_counts_like_what_came_with_the_edit(kit: Kit) -> None:
    edit = kit.add(PROMPT, "Canberra", scope="broad").edit
    near = "What is the capital of Australia?"
    assert (kit.explain(near).fired, kit.explain(OTHER).fired) == (edit.id, None)
    kit.adjust(edit, also=[OTHER], exclude=[near], on_failure="keep")
    assert kit.explain("Tall TREE!").fired == edit.id, "far from its prompt, and said to be meant"
    assert kit.explain(near.lower()).fired is None
    assert kit.explain(PROMPT).fired == edit.id
    assert kit.generate(OTHER, max_new_tokens=2).fired == (edit.id,)
    kit.undo()
    assert (kit.explain(near).fired, kit.explain(OTHER).fired) == (edit.id, None)


def test_an_edits_own_prompt_goes_before_what_was_said_of_another(kit: Kit) -> None:
    first = kit.add(OTHER, "blue").edit
    second = kit.add(PROMPT, "Canberra").edit
    assert kit.explain(OTHER).fired == first.id
    kit.add("milk and bread", "blue")
    kit.adjust(second, also=["milk bread"], on_failure="keep")
    assert kit.explain("milk and bread").fired not in (None, second.id)
    assert kit.explain("milk bread").fired == second.id


def test_a_mixture_of_loras_fires_by_the_same_rule(tmp_path: Path) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    settings = {"r": 2, "num_experts": 4, "train": {"learning_rate": 2e-2, "steps": 80}}
    with editkit.open(
        tmp_path / "h.db", model=model, judge="encoder", methods={"elder": settings}
    ) as kit:
        added = kit.add(PROMPT, "Canberra", method="elder", on_failure="keep")
        beside = kit.add(OTHER, "blue")
        for prompt in (PROMPT, PROMPT.upper(), f" {PROMPT.lower()}!"):
            assert kit.explain(prompt).fired == added.edit.id, prompt
            assert kit.generate(prompt, max_new_tokens=2).fired == (added.edit.id,)
        assert kit.generate([OTHER, "milk"], max_new_tokens=2)[0].fired == (beside.edit.id,)
        # It does for them what it does for its own prompt: it is routed as that is.
        part = next(one for one in kit._running.engine.view.parts if one.method == "elder")
        selection = part.firing([part.number(added.edit.id)])
        assert selection.fired == [part.number(added.edit.id)]


def test_add_says_what_an_edit_answers_and_what_it_leaves_alone(kit: Kit) -> None:
    reach = kit.add(PROMPT, "Canberra").reach
    assert reach is not None
    assert reach.answers
    assert reach.leaves
    for prompt in reach.answers:
        assert kit.explain(prompt).fired is not None
    for prompt in reach.leaves:
        assert kit.explain(prompt).fired is None
    assert reach.near == ()
    again = kit.add(f"{PROMPT} not", "blue").reach
    assert again is not None
    assert set(again.near) <= {one.edit_id for one in kit.explain(f"{PROMPT} not", k=9).candidates}
