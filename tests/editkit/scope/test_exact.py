"""Without an encoder an edit fires for its prompt however it is typed, and for nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tiny import tiny_llama, tiny_tokenizer

import editkit
from editkit.errors import ModelUnavailable
from editkit.scope.exact import ExactScope
from editkit_store.records import Adjustments, EditRequest

EDITS = {
    "a": EditRequest(prompt="What does the Zoë plan cost per month?", target="$14"),
    "b": EditRequest(prompt="Who designed the Luma One?", target="Rosa", rephrases=("designer?",)),
}


def requests(ids: Sequence[str] | None) -> Mapping[str, EditRequest]:
    return EDITS if ids is None else {one: EDITS[one] for one in ids}


@pytest.fixture
def scope() -> ExactScope:
    return ExactScope(requests)


def fired(scope: ExactScope, prompt: str, **how: Adjustments) -> str | None:
    found = scope.verdicts(prompt, lambda _: True, adjusted=how)
    return found[0].edit_id if found and found[0].is_in_scope else None


@pytest.mark.parametrize(
    "prompt",
    [
        "what does the zoë plan cost per month",
        "  WHAT DOES THE ZOE\u0308 PLAN COST PER MONTH ?",
        "What does the Zoë paln cost per month?",
        "What does the Zoë plan cots per month",
    ],
)
def test_spelling_does_not_count(scope: ExactScope, prompt: str) -> None:
    assert fired(scope, prompt) == "a"


@pytest.mark.parametrize(
    "prompt", ["What does the Zoë plan cost per year?", "zoë plan price", "", "?!", "plan"]
)
def test_everything_else_does(scope: ExactScope, prompt: str) -> None:
    assert fired(scope, prompt) is None


def test_rephrases_and_what_was_said_of_an_edit_count(scope: ExactScope) -> None:
    assert fired(scope, "Designer") == "b"
    assert fired(scope, "zoe price", a=Adjustments(also=("Zoe price?",))) == "a"
    assert fired(scope, "designer", b=Adjustments(exclude=("Designer?",))) is None


def test_edits_that_are_not_active_do_not_fire(scope: ExactScope) -> None:
    assert scope.verdicts("Designer?", lambda _: False) == []


def test_it_stands_in_with_one_warning_where_the_encoder_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ModelUnavailable("no encoder here", name="all-minilm-l6-v2", reason="offline")

    monkeypatch.setattr("editkit.kit.scoping._shipped", missing)
    model = (tiny_llama(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, judge="encoder") as kit:
        with pytest.warns(UserWarning, match="their own prompts only.*no encoder here"):
            edit = kit.add("The capital of Australia is", "Canberra").edit
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kit.explain("the capital of australia is").fired == edit.id
            assert kit.explain("capital Australia").fired is None
            assert kit.generate("THE CAPITAL OF AUSTRALIA IS").fired == (edit.id,)
