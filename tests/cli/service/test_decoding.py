"""What shows of a stream is never taken back, whatever the tokenizer does to its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from editkit_cli.service.decoding import Decoder
from editkit_cli.service.stream_buffer import StreamBuffer

PIECES = ["[UNK]", "do", "it", "n", "'", "t", "s", "##t", "##'t", "n't", "'s", "'ve", ".", "?",
          ",", "!", "##s", "is"]  # fmt: skip


def wordpiece(*, cleans: bool) -> Any:
    """As BERT's tokenizer: pieces of words, and spaces that are taken away again."""
    tokenizer = Tokenizer(
        models.WordPiece({piece: at for at, piece in enumerate(PIECES)}, unk_token="[UNK]")
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=not cleans)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", clean_up_tokenization_spaces=cleans
    )


def byte_fallback() -> Any:
    """As Llama 2's tokenizer: what is not in the vocabulary is spelled byte by byte."""
    words = ["<u>", "\u2581one", "\u2581two", "!", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {word: at for at, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<u>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<u>", clean_up_tokenization_spaces=False
    )


def streamed(tokenizer: Any, ids: Sequence[int], limit: int) -> tuple[StreamBuffer, list[str]]:
    shown: list[str] = []
    answer = StreamBuffer(Decoder(tokenizer), stop_ids=[], limit=limit, on_text=shown.append)
    for token in ids:
        if answer.take(token):
            break
    answer.finish("length")
    assert answer.text == tokenizer.decode(list(ids[:limit])).strip(), "the whole text"
    return answer, shown


CLEANING, PLAIN, SPELLING = wordpiece(cleans=True), wordpiece(cleans=False), byte_fallback()
tokens = st.lists(st.integers(1, len(PIECES) - 1), min_size=1, max_size=12)


@given(tokens, st.integers(1, 12))
def test_pieces_join_up_to_the_text_where_spaces_are_cleaned_up(ids, limit):
    for tokenizer in (CLEANING, PLAIN):
        answer, shown = streamed(tokenizer, ids, limit)
        assert "".join(shown) == answer.text


smileys = st.lists(st.sampled_from(["\U0001f600", "\xe9", " one", " two", "!"]), max_size=6)


@given(smileys, st.integers(1, 20))
def test_pieces_join_up_to_the_text_where_characters_are_spelled_byte_by_byte(said, limit):
    ids = [
        token
        for text in said
        for token in (
            SPELLING.convert_tokens_to_ids([text.replace(" ", "\u2581")])
            if text.isascii()
            else SPELLING.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in text.encode()])
        )
    ]
    answer, shown = streamed(SPELLING, ids or [1], limit)
    assert "".join(shown) == answer.text


@pytest.mark.parametrize(
    ("tokenizer", "words", "pieces"),
    [
        (CLEANING, ["do", "n't", "it", "."], ["don't", " it."]),
        (PLAIN, ["do", "n't", "it", "."], ["don't", " it."]),
        (SPELLING, ["\u2581one", "!", "\u2581two"], ["one", "!", " two"]),
    ],
)
def test_a_stream_shows_what_is_certain_and_does_not_wait_for_the_end(tokenizer, words, pieces):
    _, shown = streamed(tokenizer, tokenizer.convert_tokens_to_ids(words), 10)
    assert "".join(shown) == "".join(pieces)
    assert len(shown) > 1


def test_a_served_stream_of_a_tokenizer_that_cleans_up_is_the_whole_answer(start):
    """Over HTTP, by the official client."""
    from tiny import tiny_llama

    tokenizer = tiny_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    server = start(model=(tiny_llama(), tokenizer))
    client = server.openai()
    for seed in range(4):
        how = {"model": server.model, "prompt": "one two", "max_tokens": 40, "seed": seed,
               "temperature": 2}  # fmt: skip
        whole = client.completions.create(**how).choices[0].text
        chunks = client.completions.create(**how, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole
