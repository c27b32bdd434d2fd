"""Values are learned in other contexts of their prompts too."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_bert, tiny_llama, tiny_tokenizer

import editkit
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.grace.contexts import contexts
from editkit_store import Store
from editkit_store.records import EditRequest, Message

PROMPT, TARGET = "The capital of Australia is", "Canberra"


def test_the_other_form_comes_first_in_small_letters(store: Store) -> None:
    encoder = Encoder(tiny_llama(), tiny_tokenizer())
    plain = store.prepare(EditRequest(prompt=PROMPT, target=TARGET))
    turn = (Message(role="user", content=PROMPT),)
    chat = store.prepare(EditRequest(prompt=PROMPT, target=TARGET, chat=turn))
    found, owners = contexts([plain, chat], encoder, 1)
    lower = PROMPT.lower()
    assert owners == [0, 1, 0, 1]
    assert found[0].prompt == encoder.chat([Message(role="user", content=lower)])
    assert found[1].prompt == encoder.prompt(lower)
    assert {one.text for one in found} == {TARGET}
    assert contexts([plain], encoder, 0) == ([], [0])


def test_what_a_model_cannot_take_is_left_out(store: Store) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    edit = store.prepare(EditRequest(prompt=PROMPT, target=TARGET))
    assert contexts([edit], Encoder(tiny_llama(), tokenizer), 1) == ([], [0])
    label = store.prepare(EditRequest(prompt=PROMPT, target="good", kind="label"))
    assert contexts([label], Encoder(tiny_bert(), tiny_tokenizer()), 2) == ([], [0])
    passage = store.prepare(EditRequest(prompt=PROMPT, target=TARGET, kind="passage"))
    assert contexts([passage], Encoder(tiny_llama(), tiny_tokenizer()), 2) == ([], [0])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_edit_says_in_how_many_contexts_it_holds(tmp_path: Path, count: int) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, grace={"contexts": count}) as kit:
        added = kit.add_many(
            [{"prompt": PROMPT, "target": TARGET}, {"prompt": "sea", "target": "blue"}]
        )
        for one in added:
            assert one.verified, "its own prompt goes first"
            assert one.carries is not None
            assert one.carries.of == 1 + count
            assert 1 <= one.carries.right <= one.carries.of
        assert kit.generate(PROMPT, delivery="free").text == TARGET


def test_the_paper_has_none(tmp_path: Path) -> None:
    model = (tiny_llama(), tiny_tokenizer())
    with editkit.open(tmp_path / "h.db", model=model, preset="paper") as kit:
        carries = kit.add(PROMPT, TARGET).carries
        assert carries is not None
        assert carries.of == 1
