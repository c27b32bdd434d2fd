"""A history that was begun with the methods' own keys takes up the judge, without learning."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_llama, tiny_tokenizer

import editkit
from editkit.kit.migrating import migrate
from editkit_store.errors import InvalidRequest

PROMPT, OTHER = "The capital of Australia is", "What is the smallest city of Australia?"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_llama(), tiny_tokenizer()), judge="none") as kit:
        assert kit.add(PROMPT, "Canberra").verified
    return path


def test_what_would_change_is_shown_first(history: Path) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    found = migrate(history, judge="encoder", probes=[OTHER], dry_run=True, model=model)
    assert (found.from_, found.to, found.changed) == ("none", "encoder", False)
    assert (found.edits, found.asked) == (1, 2)
    with editkit.open(history, model=model) as kit:
        assert kit.judge == "none"
        before = kit.explain(OTHER).fired
    changed = {one.prompt: (one.before, one.after) for one in found.changes}
    assert changed.get(OTHER, (before, before))[0] == before
    assert PROMPT not in changed, "an edit's own prompt fires it in any case"


def test_edits_hold_as_they_are_and_another_question_is_left_alone(history: Path) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    with editkit.open(history, model=model) as kit:
        edit = kit.explain(PROMPT).fired
        artifact = kit.store.artifacts.on_model([edit], kit.fingerprint)[edit].digest
    assert migrate(history, judge="encoder", model=model).changed
    with editkit.open(history, model=model) as kit:
        assert kit.judge == "encoder"
        assert kit.version == "v1", "nothing was learned"
        assert kit.store.artifacts.on_model([edit], kit.fingerprint)[edit].digest == artifact
        assert kit.explain(PROMPT.lower()).fired == edit
        assert kit.explain(OTHER).fired is None
        assert kit.generate(PROMPT, delivery="free").text == "Canberra"
    assert not migrate(history, judge="encoder", model=model).changed


def test_an_unknown_judge_is_refused_and_nothing_is_changed(history: Path) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    with pytest.raises(InvalidRequest, match="no judge 'oracle'"):
        migrate(history, judge="oracle", model=model)
    with editkit.open(history, model=model) as kit:
        assert kit.judge == "none"
