"""Why an edit fired or not, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.kit import Kit


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with editkit.open(tmp_path / "h.db", model=(tiny_gpt2(), tiny_tokenizer())) as opened:
        opened.add("see Oslo", "fish")
        yield opened


def test_what_both_name_is_told_where_an_edit_fires(kit: Kit) -> None:
    found = kit.explain("we see Oslo")
    assert found.fired is not None
    assert "fires" in found.summary
    assert "Both name 'Oslo'." in found.summary
    assert "Only the" not in found.summary


def test_what_one_alone_names_is_told_where_none_fires(kit: Kit) -> None:
    found = kit.explain("see Rome 52")
    assert found.fired is None
    assert "No edit fires" in found.summary
    assert "Only the prompt names 'Rome', '52'." in found.summary
    assert "Only the edit names 'Oslo'." in found.summary


def test_words_are_taken_from_the_turn_that_asks(kit: Kit) -> None:
    turns = ["Rome is red", "yes", "Oslo then"]
    chat = [{"role": ("user", "assistant")[at % 2], "content": t} for at, t in enumerate(turns)]
    found = kit.explain(chat=chat)
    assert "Both name 'Oslo'." in found.summary
    assert "Rome" not in found.summary


def test_keys_that_are_states_are_not_put_into_words(tmp_path: Path) -> None:
    pair = tiny_gpt2(), tiny_tokenizer()
    with editkit.open(tmp_path / "s.db", model=pair, grace={"key": "state"}) as kit:
        kit.add("see Oslo", "fish")
        assert "name" not in kit.explain("see Oslo").summary


def test_what_many_edits_share_is_told_where_it_keeps_one_from_firing(kit: Kit) -> None:
    targets = ["fish", "cat", "red"]
    for place, word in enumerate("fish cat red sun dog blue tree bird".split()):
        kit.add(f"in Oslo see {word}", targets[place % 3])
    found = kit.explain("in Oslo go yes")
    nearest = found.candidates[0]
    assert found.fired is None
    assert nearest.distance < nearest.radius
    assert not nearest.in_scope
    assert "other edits share the words that it has in common with the prompt" in found.summary
    assert kit.explain("in Oslo sun").fired is not None
