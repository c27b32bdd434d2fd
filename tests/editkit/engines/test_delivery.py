"""How answers are compared with targets: by tokens, and by text where the tokens differ."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer

from editkit.engines.base import Encoded, Targets
from editkit.engines.transformers.delivery import TargetCheck, begins_with
from editkit.engines.transformers.tokens import Encoder
from editkit_store.records import EditRequest

STEP = 2  # tokens of the prompt in front of each answer


@pytest.fixture(scope="module")
def encoder():
    return Encoder(tiny_gpt2(), tiny_tokenizer())


def check(encoder, target="blue sky", *, held=(True,), fired=("e",)):
    """Returns a check of rows whose edit has this target."""
    forms = encoder.forms(EditRequest(prompt="The", target=target))
    known = {"e": forms}
    targets = Targets(lambda edit: known.get(edit, ()), held)
    return TargetCheck(targets, lambda: list(fired), encoder, STEP), forms


def told(encoder, text: str, target: str, *, ends: bool = False):
    ids = list(encoder._ids(text, special=False)) + list(encoder.stop_ids[:1]) * ends
    return check(encoder, target)[0].told(torch.tensor([[7] * STEP + ids]))[0]


@pytest.mark.parametrize(
    ("text", "target", "begins"),
    [
        ("blue", "blue", True),
        ("blue, and red", "blue", True),
        ("blueish", "blue", False),
        ("$149", "$14", False),
        ("$14 a month", "$14", True),
        ("14%", "14%", True),
        ("C++11", "C++", True),
        ("Blue", "blue", False),
        ("", "blue", False),
        ("北京是中国的首都", "北京", True),
        ("Привета", "Привет", False),
    ],
)
def test_an_answer_begins_with_a_target_as_whole_words(text, target, begins):
    assert begins_with(text, target) is begins


def test_tokens_of_the_target_are_free_in_any_form_and_other_text_is_not(encoder):
    for text in (" blue", "blue", " blue sky", "blue sky", "b", " bl"):
        assert told(encoder, text, "blue sky") == "free", text  # so far
    for text in (" red", "blue sea", "black"):
        assert told(encoder, text, "blue sky") == "no", text
    assert told(encoder, "blue sky", "blue sky", ends=True) == "free"
    assert told(encoder, "blue", "blue sky", ends=True) == "no"  # it ended too early
    assert told(encoder, "blue sky and sea", "blue sky", ends=True) == "free"


def test_half_a_character_is_no_departure(encoder):
    ids = list(encoder._ids("Zü", special=False))
    mine = check(encoder, "Zürich")[0]
    assert mine.told(torch.tensor([[7] * STEP + ids[:2]])) == ("free",)


def test_a_held_row_takes_the_form_that_the_model_likes_best(encoder):
    mine, forms = check(encoder)
    assert len(forms) == 2
    for form in forms:
        first = form.target[0]
        scores = torch.zeros(1, 800)
        scores[0, 5], scores[0, first] = 9.0, 4.0
        found = mine(torch.tensor([[7] * STEP]), scores)
        assert int(found.argmax()) == first
        assert found.isfinite().sum() == 1
        assert scores[0, 5] == 9.0  # the caller's own are left as they are
        # It goes on in the form that it began.
        found = mine(torch.tensor([[7] * STEP + [first]]), torch.zeros(1, 800))
        assert int(found.argmax()) == form.target[1]
    assert mine.told(torch.tensor([[7] * STEP + list(forms[0].target)])) == ("held",)


def test_a_forbidden_token_of_the_target_is_taken_all_the_same(encoder):
    mine, forms = check(encoder)
    found = mine(torch.tensor([[7] * STEP]), torch.full((1, 800), -torch.inf))
    assert int(found.argmax()) in {one.target[0] for one in forms}


def test_rows_without_an_edit_or_free_or_ended_or_unknown_are_left_as_they_are(encoder):
    scores = torch.randn(1, 800)
    ids = torch.tensor([[7] * STEP])
    for fired, held in (((None,), (True,)), (("e",), (False,)), (("x",), (True,)), ((), (True,))):
        mine, _ = check(encoder, fired=fired, held=held)
        assert mine(ids, scores) is scores
    mine, _ = check(encoder)
    mine.end([0])
    assert mine(ids, scores) is scores
    assert mine.told(ids) == (None,)


def test_rows_past_the_target_or_beside_it_are_left_as_they_are(encoder):
    mine, forms = check(encoder)
    scores = torch.randn(1, 800)
    for said in ([9, 9], [*forms[0].target], [*forms[0].target, 9]):
        assert mine(torch.tensor([[7] * STEP + said]), scores) is scores


def test_beams_of_a_prompt_are_held_and_the_best_of_them_counts(encoder):
    mine, forms = check(encoder, held=(True, True), fired=(None, "e"))
    first = forms[0].target[0]
    scores = torch.zeros(4, 800)
    scores[2, first] = scores[3, 5] = 9.0
    found = mine(torch.tensor([[7] * STEP] * 4), scores)
    assert torch.equal(found[:2], scores[:2])
    assert found[2:].isfinite().sum(dim=1).tolist() == [1, 1]
    after = torch.tensor([[7] * STEP + [first]] * 4)
    assert mine.told(after) == (None, "free")  # the second beam alone was held


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5], ids=["llama", "t5"])
def test_forms_begin_with_the_one_that_is_learned(make):
    encoder = Encoder(make(), tiny_tokenizer())
    asked = EditRequest(prompt="The red cat is", target=" blue ")
    forms = encoder.forms(asked)
    assert forms[0] == encoder.request(asked)
    assert all(isinstance(one, Encoded) and one.text == "blue" for one in forms)
    assert len(forms) == (2 if make is tiny_llama else 1)
