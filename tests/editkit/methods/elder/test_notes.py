"""Notes: what is kept of a wording, put together again, is what the whole model computes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from editkit.engines.base import Encoded
from editkit.engines.transformers.batches import lay_out
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.elder import notes as module
from editkit.methods.elder.notes import Notebook
from editkit.models.layout import layout_of
from editkit_store.records import EditRequest

WORDINGS = [
    ("What is 1+1?", "two"),
    ("x", "yes"),
    ("The colour of grass is", "green and blue"),
]


def tiny_gemma() -> Any:
    """A model whose cache forgets: it can only be noted whole."""
    config = Gemma3TextConfig(
        vocab_size=800, hidden_size=64, intermediate_size=128, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=4,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, max_position_embeddings=256,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def encoded(model: Any, prompt: str, target: str) -> Encoded:
    return Encoder(model, tiny_tokenizer()).request(EditRequest(prompt=prompt, target=target))


def notebook(model: Any, *, first: int = 2, span: Any = "query") -> Notebook:
    layout = layout_of(model)
    return Notebook(model, layout, first=first, span=span, paused=contextlib.nullcontext)


def unchanged(_: int, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return output


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("span", ["query", "sequence"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_gemma])
def test_a_problem_gives_the_logits_of_a_plain_pass(make: Any, span: str, first: int) -> None:
    model = make()
    wordings = [encoded(model, *one) for one in WORDINGS]
    book = notebook(model, first=first, span=span)
    notes = book.of(wordings)
    # Rows of several lengths, in another order than they were noted in, one of them twice.
    order = [2, 0, 1, 2]
    problem = book.problem([notes[index] for index in order])
    with torch.no_grad():
        found = book.logits(problem, [], unchanged)
        for row, index in enumerate(order):
            one = wordings[index]
            ids = torch.tensor([[*one.prompt, *one.target]])
            wanted = model(ids).logits[0, len(one.prompt) - 1 : -1]
            torch.testing.assert_close(found[row, : len(one.target)], wanted, atol=2e-5, rtol=1e-4)


def test_only_the_query_and_the_target_are_run_again() -> None:
    model = tiny_llama()
    book = notebook(model)
    wordings = [encoded(model, *one) for one in WORDINGS]
    problem = book.problem(book.of(wordings))
    columns: list[int] = []
    block = layout_of(model).blocks[2]
    block.register_forward_pre_hook(lambda _, args: columns.append(args[0].shape[1]))
    book.logits(problem, [], unchanged)
    assert columns == [max(len(one.target) for one in wordings)]


def test_a_wording_is_noted_once_and_the_oldest_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_llama()
    laid_out: list[int] = []

    def counted(model: Any, layout: Any, requests: Any, **options: Any) -> Any:
        laid_out.append(len(requests))
        return lay_out(model, layout, requests, **options)

    monkeypatch.setattr(module, "lay_out", counted)
    monkeypatch.setattr(module, "_KEPT", 2)
    book = notebook(model)
    one, two, three = (encoded(model, *case) for case in WORDINGS)
    first = book.of([one, two, one])
    assert laid_out == [2]
    assert first[0] is first[2] is book.of([one])[0]
    book.of([three])
    assert laid_out == [2, 1]
    assert book.of([one])[0] is first[0]  # used last
    assert book.of([two])[0] is not first[1]


def test_the_query_is_the_state_that_enters_the_first_adapted_block() -> None:
    model = tiny_llama()
    one = encoded(model, *WORDINGS[2])
    (note,) = notebook(model).of([one])
    with torch.no_grad():
        states = model(torch.tensor([one.prompt]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(note.query, states[2][0, -1], atol=1e-5, rtol=1e-4)
