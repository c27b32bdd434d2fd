"""Watching a generation step by step, ending rows, and sampling each row by itself."""

from __future__ import annotations

import pytest
import torch

from editkit.engines.base import Sampling, Step
from editkit.engines.transformers.generator import ROWS
from editkit.engines.transformers.sampler import Sampler
from editkit_store.errors import InvalidRequest

CAT, TREE = "The red cat is", "tall tree"


def test_a_watch_sees_every_token_with_the_edit_that_fired_and_the_version(kit):
    edit = kit.add(CAT, "blue").edit
    ids = [kit.encoder.prompt(CAT), kit.encoder.prompt(TREE)]
    steps: list[Step] = []

    def watch(step: Step) -> list[bool]:
        steps.append(step)
        return [False, False]

    made = kit.generate_tokens(ids, version=["v1", "v0"], max_new_tokens=4, watch=watch)
    plain = kit.generate([CAT, TREE], version=["v1", "v0"], max_new_tokens=4)
    assert [one.text for one in made] == [one.text for one in plain]
    assert {(step.fired, step.versions) for step in steps} == {((edit.id, None), ("v1", "v0"))}
    for row, one in enumerate(made):
        seen = [step.tokens[row] for step in steps][: one.tokens]
        assert kit.encoder.decode(seen) == one.text


def test_a_row_that_a_watch_ends_is_short_and_the_others_are_as_they_were(kit):
    ids = [kit.encoder.prompt(TREE), kit.encoder.prompt("one two")]
    plain = kit.generate_tokens(ids, max_new_tokens=6)
    count = 0

    def watch(step: Step) -> list[bool]:
        nonlocal count
        count += 1
        return [True, False]

    made = kit.generate_tokens(ids, max_new_tokens=6, watch=watch)
    assert made[1] == plain[1]
    assert count == max(1, made[1].tokens)
    assert kit.generate_tokens([ids[0]], max_new_tokens=1)[0].text == made[0].text


def test_a_watch_is_for_one_batch(kit):
    ids = [kit.encoder.prompt(TREE)] * (ROWS + 1)
    with pytest.raises(ValueError, match="16 prompts at most"):
        kit.generate_tokens(ids, watch=lambda step: [])


def test_rows_are_drawn_in_proportion_to_their_probability():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4000, 1)
    rows = [Sampling(0.7, seed=seed) for seed in range(len(logits))]
    drawn = Sampler(rows)(None, logits).argmax(dim=1)
    found = torch.bincount(drawn, minlength=4) / len(logits)
    assert torch.allclose(found, (logits[0] / 0.7).softmax(dim=0), atol=0.03)


def test_a_nucleus_leaves_the_unlikely_out_and_always_keeps_the_likeliest():
    logits = torch.tensor([[5.0, 4.0, 1.0, 0.0]]).repeat(500, 1)
    for top_p, wanted in ((0.9, {0, 1}), (0.01, {0})):
        rows = [Sampling(1.0, top_p, seed) for seed in range(len(logits))]
        assert set(Sampler(rows)(None, logits).argmax(dim=1).tolist()) == wanted


def test_a_seed_gives_the_same_in_any_batch_and_greedy_rows_stay_greedy():
    torch.manual_seed(0)
    logits = torch.randn(3, 50)
    alone = Sampler([Sampling(1.0, seed=7)])(None, logits[1:2]).argmax(dim=1)
    among = Sampler([None, Sampling(1.0, seed=7), Sampling(1.0, seed=8)])(None, logits)
    assert torch.equal(among[0], logits[0])
    assert among[1].argmax() == alone[0]


@pytest.mark.parametrize("bad", [[], [10**6], [-1], [1] * 300])
def test_tokens_that_are_no_prompt_are_refused(kit, bad):
    with pytest.raises(InvalidRequest):
        kit.generate_tokens([[1, 2], bad], max_new_tokens=2)


def test_a_temperature_next_to_nothing_takes_the_likeliest_token():
    scores = torch.tensor([[1.0, 30.0, 2.0, -5.0], [-9.0, -1.0, -3.0, -4.0]])
    for temperature in (1e-320, 1e-40, 1e-6):
        found = Sampler([Sampling(temperature, 0.9, 1), Sampling(temperature)])(None, scores)
        assert found.argmax(-1).tolist() == [1, 1]
