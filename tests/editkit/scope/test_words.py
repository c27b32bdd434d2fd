"""From ids to words: spaces, marks, names of the template, turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer

from editkit.scope.words import Words, refers_back

TOKENIZER = tiny_tokenizer()


def split(text: str, **how: Any) -> list[str]:
    return [word.text for word in Words(TOKENIZER).split(TOKENIZER(text)["input_ids"], **how)]


def chat(*contents: str) -> list[int]:
    roles = ("user", "assistant")
    turns = [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]
    text = TOKENIZER.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Paris is red", ["Paris", "is", "red"]),
        ("  two   spaces ", ["two", "spaces"]),
        ("O'Neill's M-52, (1999)!", ["O", "Neill", "s", "M", "52", "1999"]),
        ("one\ntwo", ["one", "two"]),
        ("don_t", ["don_t"]),
        ("?!", []),
        ("", []),
    ],
)
def test_words_end_at_spaces_and_marks(text: str, words: list[str]) -> None:
    assert split(text) == words


def test_sentences_end_with_their_marks() -> None:
    ids = TOKENIZER("Ada sings. Who? she\nyes")["input_ids"]
    words = Words(TOKENIZER).split(ids)
    assert [(word.text, word.sentence, word.is_first) for word in words] == [
        ("Ada", 1, True), ("sings", 1, False), ("Who", 2, True), ("she", 3, True),
        ("yes", 4, True),
    ]  # fmt: skip


def test_of_a_conversation_the_last_turn_of_the_user_is_taken() -> None:
    words = Words(TOKENIZER)
    ids = chat("Where is Oslo?", "north", "Where is Rome?")
    assert [word.text for word in words.split(ids)] == ["Where", "is", "Rome"]
    everything = [word.text for word in words.split(ids, turns="all")]
    assert everything == ["Where", "is", "Oslo", "north", "Where", "is", "Rome"]


def test_a_system_prompt_is_no_part_of_the_question() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who sang?"}]
    text = TOKENIZER.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert [word.text for word in Words(TOKENIZER).split(ids)] == ["Who", "sang"]


@pytest.mark.parametrize(
    ("text", "refers"),
    [
        ("Which planet is closest to the sun?", False),
        ("What is your name?", False),
        ("What is its capital?", True),
        ("And the capital?", True),
        ("Bread and milk?", False),
        ("What's the other one?", True),
        ("Are you sure?", True),
        ("", True),
    ],
)
def test_a_turn_refers_back_by_its_words(text: str, refers: bool) -> None:
    assert refers_back(Words(TOKENIZER).split(TOKENIZER(text)["input_ids"])) is refers


def test_a_tokenizer_without_a_template_has_plain_prompts_only() -> None:
    bare = tiny_tokenizer()
    bare.chat_template = None
    ids = chat("Who?", "Ada", "Where?")
    assert [word.text for word in Words(bare).split(ids)] == ["Who", "Ada", "Where"]


@pytest.mark.parametrize("template", ["{{ ().__class__ }}", "{% if %}", "{{ nothing.at.all }}"])
def test_so_has_one_whose_template_cannot_be_used(template: str) -> None:
    broken = tiny_tokenizer()
    broken.chat_template = template
    ids = chat("Who?", "Ada", "Where?")
    assert [word.text for word in Words(broken).split(ids)] == ["Who", "Ada", "Where"]


@given(st.lists(st.integers(0, 799), max_size=40))
def test_any_ids_are_split(ids: list[int]) -> None:
    words = Words(TOKENIZER).split(ids, turns="all")
    taken = [token for word in words for token in word.ids]
    left = iter(ids)
    assert all(token in left for token in taken)  # some of them, in their order
    assert [word.sentence for word in words] == sorted(word.sentence for word in words)
