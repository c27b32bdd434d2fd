"""How ELDER learns a batch: the paper's loss by a literal loop, and what is done to keep edits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from pupils import EAGER, FACTS, SHAPE, Pupil, noisy, tensors
from reference import literal_elder
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer
from torch.nn import functional

from editkit.engines.transformers import training
from editkit.errors import UnsupportedModel
from editkit.methods.elder import routing
from editkit.methods.elder.peft import PeftElderConfig
from editkit.methods.elder.trial import Trial, rows_of

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("span", ["query", "sequence"])
def test_what_was_learned_is_said_and_stays_when_more_is_learned(make: Any, span: str) -> None:
    pupil = Pupil(make(), shape={"span": span}, **EAGER)
    before = pupil.says("far away")
    first, second, third = pupil.lessons(*FACTS)
    assert min(pupil.learn([first, second], []).leads.values()) > 0
    found = pupil.learn([third], [first, second])
    assert found.state.edit_ids == ("a", "b", "c")
    assert set(found.leads) == {"a", "b", "c"}
    assert min(found.leads.values()) > 0
    for _, wordings, target in FACTS:
        assert [pupil.says(one) for one in wordings] == [target] * len(wordings)
    assert pupil.says("far away") == before


def test_a_state_that_was_learned_on_stays_as_it_is_and_the_next_one_is_the_same_every_time() -> (
    None
):
    pupil = Pupil(tiny_llama(), **EAGER)
    first, second, third = pupil.lessons(*FACTS)
    state = pupil.learn([first, second], []).state
    kept = [one.clone() for one in tensors(state)]
    one = pupil.learner.learn(state, [third], [first, second]).state
    assert all(map(torch.equal, tensors(state), kept))
    fresh = Pupil(tiny_llama(), **EAGER)
    first, second, third = fresh.lessons(*FACTS)
    again = fresh.learner.learn(
        fresh.learn([first, second], []).state, [third], [first, second]
    ).state
    assert all(map(torch.equal, tensors(one), tensors(again)))
    assert np.array_equal(one.codes, again.codes)


def test_nothing_in_the_model_changes_and_no_gradient_is_left() -> None:
    model = tiny_llama()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    pupil = Pupil(model, **EAGER)
    pupil.learn(pupil.lessons(*FACTS), [])
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_step_of_the_paper_has_the_gradients_of_the_equations(make: Any) -> None:
    pupil = Pupil(make(), preset="paper", steps=1)
    lessons = pupil.lessons(*FACTS)
    state = noisy(pupil.learner.blank())
    allocations = routing.allocate(
        len(lessons), layers=state.layers, experts=state.num_experts, k=2, seed=1
    )
    state = dataclasses.replace(state, edit_ids=tuple("abc"))
    course = pupil.learner._course
    tried = Trial(course.notebook, course.modules, state, allocations, course.config)
    rows = rows_of(lessons)
    tried.begin()
    tried.step(rows, 0.0, 0.0)

    down = [one.clone().requires_grad_(True) for one in state.lora_A]
    up = [one.clone().requires_grad_(True) for one in state.lora_B]
    routers = state.routers.clone().requires_grad_(True)
    total = torch.zeros(())
    for row in rows:
        query = row.query / row.query.square().mean().sqrt()
        scores = torch.stack([(layer @ query).softmax(dim=0) for layer in routers])
        wanted = allocations[row.index]
        for layer in range(state.layers):
            for expert in wanted[layer]:
                total = total - 1e-2 * scores[layer, expert].log() / len(rows)

        def change(layer: int, inputs: torch.Tensor, output: torch.Tensor, s: Any = scores) -> Any:
            for expert in literal_elder.top(s[layer].tolist(), 2):
                part = inputs @ down[layer][expert].T @ up[layer][expert].T
                output = output + s[layer, expert] * state.scaling * part
            return output

        one = row.wording
        ids = torch.tensor([[*one.prompt, *one.target]])
        with training.adjust(course.modules, change), pupil.attachment.paused():
            logits = pupil.model(ids).logits[0, len(one.prompt) - 1 : -1]
        total = total + functional.cross_entropy(logits, torch.tensor(one.target)) / len(rows)
    total.backward()
    for mine, theirs in (
        *zip(tried._down, down, strict=True),
        *zip(tried._up, up, strict=True),
        (tried._routers, routers),
    ):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-6, rtol=2e-4)


def test_routers_send_every_wording_to_its_edit_and_unrelated_text_nowhere() -> None:
    pupil = Pupil(tiny_llama(), **EAGER)
    lessons = pupil.lessons(*FACTS)
    state = pupil.learn(lessons, []).state
    for index, lesson in enumerate(lessons):
        _, _, codes = state.encoded(lesson.queries)
        assert np.array_equal(codes, state.codes[[index] * len(codes)])
    _, _, codes = state.encoded(pupil.learner._text[0])
    # Not all: the tiny tokenizer takes most words of the page for the same token.
    assert (routing.distances(codes, state.codes).min(axis=1) > 0).mean() > 0.8


def test_without_rehearsal_and_rounds_earlier_edits_are_neither_learned_again_nor_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pupil = Pupil(tiny_llama(), rehearsed=0, rounds=0, **EAGER)
    first, second, third = pupil.lessons(*FACTS)
    pupil.learn([first], [])
    seen: list[int] = []
    step = Trial.step
    monkeypatch.setattr(
        Trial,
        "step",
        lambda self, rows, *rest: (seen.extend(r.index for r in rows), step(self, rows, *rest))[1],
    )
    pupil.learn([second], [first])
    assert set(seen) == {1}
    seen.clear()
    both = Pupil(tiny_llama(), **EAGER)
    first, second, third = both.lessons(*FACTS)
    both.learn([first], [])
    both.learn([second], [first])
    assert set(seen) == {0, 1}


def test_an_edit_that_was_not_learned_is_told_by_its_lead() -> None:
    pupil = Pupil(tiny_llama(), steps=1, rounds=1, learning_rate=1e-9)
    found = pupil.learn(pupil.lessons(FACTS[0]), [])
    assert found.leads["a"] < 0
    assert found.steps == 2


def test_codes_are_made_anew_by_the_routers_as_they_are() -> None:
    own = {"shape": {"experts": "own"}, "routers": "joint", "margin": None, "rounds": 0}
    fresh = Pupil(tiny_llama(), **own, recode=True, steps=3)
    stale = Pupil(tiny_llama(), **own, recode=False, steps=3)
    for pupil in (fresh, stale):
        lessons = pupil.lessons(*FACTS)
        pupil.learn(lessons, [])
        _, _, now = pupil.state.encoded(torch.stack([one.queries[0] for one in lessons]))
        assert np.array_equal(pupil.state.codes, now) == (pupil is fresh)


@pytest.mark.parametrize("query", ["state", "pooled"])
def test_what_was_learned_is_a_peft_adapter_too(query: str, tmp_path: Path) -> None:
    shape = {"query": query, "radius": 0.5 if query == "pooled" else None}
    pupil = Pupil(tiny_llama(), shape=shape, **EAGER)
    pupil.learn(pupil.lessons(*FACTS), [])
    prompts = [*(one for _, wordings, _ in FACTS for one in wordings), "far away", "tall cat"]
    said = [pupil.says(prompt) for prompt in prompts]
    config = PeftElderConfig.of("default", **{**SHAPE, **shape})
    adapter = get_peft_model(tiny_llama(), config)
    adapter.base_model.put(pupil.state)
    adapter.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    for model in (adapter.eval(), again):
        if query == "pooled":
            model.base_model.read_words_with(tiny_tokenizer())
        for prompt, text in zip(prompts, said, strict=True):
            ids = torch.tensor([pupil.encoder.prompt(prompt)])
            stops = list(pupil.encoder.stop_ids)
            found = model.generate(input_ids=ids, max_new_tokens=8, eos_token_id=stops)
            tokens = [token for token in found[0, ids.shape[1] :].tolist() if token not in stops]
            assert pupil.encoder.decode(tokens) == text


def test_a_model_that_does_not_continue_a_prompt_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="use the method grace|only supports"):
        Pupil(tiny_bert())
