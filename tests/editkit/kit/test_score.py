"""How likely an answer is: against the model's own probabilities, with and without edits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer

import editkit
from editkit.errors import EmptyTarget
from editkit.kit import Kit
from editkit_store.errors import InvalidRequest, StoreError, UnknownVersion

PAIRS = [("red cat", "blue"), ("see Oslo and Rome", "two fish"), ("the", "horse has 52 eyes")]


@pytest.fixture(params=[tiny_gpt2, tiny_llama])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    with editkit.open(tmp_path / "h.db", model=(request.param(), tiny_tokenizer())) as opened:
        yield opened


def literal(kit: Kit, prompt: str, target: str) -> tuple[float, int, int]:
    """One pair at a time, without a batch."""
    before = kit.tokenizer(prompt)["input_ids"]
    whole = kit.tokenizer(f"{prompt} {target}")["input_ids"]
    with torch.no_grad():
        logits = kit.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    places = range(len(before), len(whole))
    nats = sum(float(logits[at - 1, whole[at]]) for at in places)
    return nats, len(places), sum(int(logits[at - 1].argmax()) == whole[at] for at in places)


def test_scores_are_the_models_own_probabilities(kit: Kit) -> None:
    found = kit.scores([prompt for prompt, _ in PAIRS], [target for _, target in PAIRS])
    for (prompt, target), score in zip(PAIRS, found, strict=True):
        nats, tokens, right = literal(kit, prompt, target)
        assert score.log_likelihood == pytest.approx(nats, abs=1e-3)
        assert (score.tokens, score.right) == (tokens, right)
        assert (score.prompt, score.target, score.version) == (prompt, target, "v0")
        assert kit.score(prompt, target).log_likelihood == pytest.approx(nats, abs=1e-3)


def test_an_edit_makes_its_target_likely_and_nothing_else(kit: Kit) -> None:
    before = kit.scores(["red cat", "see Oslo"], ["blue", "fish"])
    edit = kit.add("red cat", "blue")
    assert edit.verified
    now = kit.scores(["red cat", "see Oslo"], ["blue", "fish"])
    assert now[0].log_likelihood > -0.1 > before[0].log_likelihood
    assert (now[0].right, now[0].tokens) == (now[0].tokens, before[0].tokens)
    assert (now[0].fired, now[1].fired) == ((edit.edit.id,), ())
    assert now[1].log_likelihood == pytest.approx(before[1].log_likelihood, abs=1e-5)
    past = kit.scores(["red cat", "red cat"], ["blue", "blue"], version=["v0", None])
    assert past[0].log_likelihood == pytest.approx(before[0].log_likelihood, abs=1e-3)
    assert past[1].log_likelihood == pytest.approx(now[0].log_likelihood, abs=1e-3)
    assert [score.version for score in past] == ["v0", "v1"]


@pytest.mark.parametrize("replacement", ["last", "prompt", "all"])
def test_it_is_the_edited_model_whatever_positions_are_replaced(
    tmp_path: Path, replacement: str
) -> None:
    pair = tiny_gpt2(), tiny_tokenizer()
    grace = {"replacement": replacement, "margin": 0.5}
    with editkit.open(tmp_path / "h.db", model=pair, grace=grace) as kit:
        kit.add("red cat", "blue", on_failure="keep")  # with `all` it does not learn to end
        score = kit.score("red cat", "blue")
        assert score.right == score.tokens
        assert score.fired


@pytest.mark.parametrize(("make", "target"), [(tiny_t5, "blue"), (tiny_bert, "positive")])
def test_other_families_are_scored(tmp_path: Path, make: Any, target: str) -> None:
    with editkit.open(tmp_path / "h.db", model=(make(), tiny_tokenizer())) as kit:
        before = kit.score("red cat", target)
        assert kit.add("red cat", target).verified
        after = kit.score("red cat", target)
        assert after.log_likelihood > before.log_likelihood
        assert after.right == after.tokens


def test_what_cannot_be_scored_is_refused(kit: Kit) -> None:
    with pytest.raises(InvalidRequest, match="2 prompts and 1 targets"):
        kit.scores(["a", "b"], ["c"])
    with pytest.raises(InvalidRequest):
        kit.score("red", " ")
    with pytest.raises((EmptyTarget, InvalidRequest)):
        kit.score("", "red")
    with pytest.raises(UnknownVersion):
        kit.score("red", "cat", version="v9")
    assert kit.scores([], []) == []
    kit.close()
    with pytest.raises(StoreError, match="closed"):
        kit.score("red", "cat")
