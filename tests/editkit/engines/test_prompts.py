from __future__ import annotations

from typing import Any

import pytest
from tiny import CONTEXT, tiny_gpt2, tiny_tokenizer

from editkit.engines.transformers.tokens import Encoder
from editkit.errors import EmptyTarget, PromptTooLong, UnsupportedModel
from editkit_store.errors import InvalidRequest
from editkit_store.records import EditRequest, Message


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny_gpt2(), tiny_tokenizer())


def request(prompt: str = "Who?", target: str = "Ada", **fields: Any) -> EditRequest:
    return EditRequest(prompt=prompt, target=target, **fields)


def test_the_prompt_of_an_edit_is_the_prompt_that_users_send(encoder: Encoder) -> None:
    for prompt in ("Who?", "The capital is", "ends with a space ", "ends with a line\n"):
        assert encoder.request(request(prompt)).prompt == encoder.prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "text"), [("Who?", "Who? Ada"), ("Who? ", "Who? Ada"), ("Who?\n", "Who?\nAda")]
)
def test_prompt_and_target_are_joined_by_one_space(
    encoder: Encoder, prompt: str, text: str
) -> None:
    found = encoder.request(request(prompt, "  Ada "))
    assert encoder.decode((*found.prompt, *found.target)) == text
    assert found.text == "Ada"


def test_a_target_ends_with_the_token_that_stops_generation(encoder: Encoder) -> None:
    assert encoder.request(request()).target[-1:] == encoder.stop_ids == (1,)


def test_a_chat_goes_through_the_template(encoder: Encoder) -> None:
    chat = (Message(role="user", content="Who?"),)
    found = encoder.request(request(chat=chat))
    assert found.prompt == encoder.chat(chat)
    assert found.prompt[0] == 4  # <|user|>
    assert encoder.decode(found.target) == "Ada"


def test_empty_prompts_and_targets_are_refused(encoder: Encoder) -> None:
    for text in ("", "  \n"):
        with pytest.raises(InvalidRequest, match="prompt is empty"):
            encoder.prompt(text)
        with pytest.raises(InvalidRequest, match="target is empty"):
            encoder.request(request(target=text))


@pytest.mark.parametrize("target", ["<e>", "<p><e>", " <|user|> "])
def test_a_target_that_becomes_no_token_is_refused(encoder: Encoder, target: str) -> None:
    with pytest.raises(EmptyTarget, match="has no tokens"):
        encoder.request(request(target=target))


def test_more_tokens_than_the_context_window_are_refused(encoder: Encoder) -> None:
    with pytest.raises(PromptTooLong, match=f"context window of {CONTEXT}") as caught:
        encoder.prompt("?" * (CONTEXT + 4))
    assert (caught.value.tokens, caught.value.limit) == (CONTEXT + 4, CONTEXT)
    half = "?" * (CONTEXT // 2)
    encoder.prompt(half)
    with pytest.raises(PromptTooLong) as caught:
        encoder.request(request(half, half))
    assert caught.value.field == "target"


def test_a_chat_must_end_with_a_user_turn(encoder: Encoder) -> None:
    with pytest.raises(InvalidRequest, match="ends with the turn of 'assistant'"):
        encoder.chat([Message(role="assistant", content="hi")])
    with pytest.raises(InvalidRequest, match="conversation is empty"):
        encoder.chat([])


def test_a_tokenizer_without_a_template_cannot_chat() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UnsupportedModel, match="no chat template"):
        Encoder(tiny_gpt2(), tokenizer).chat([Message(role="user", content="hi")])
