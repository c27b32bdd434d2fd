"""ELDER as a PEFT method, against the literal forward pass of the same model without PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from elders import (
    OTHER,
    PROMPT,
    SECOND,
    Make,
    close,
    config,
    generate,
    learned,
    literal,
    logits,
    queries_of,
)
from peft import get_peft_model
from reference import literal_elder
from transformers import DynamicCache

from editkit.methods.elder.peft.tuner import ElderModel

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


# What is computed


def test_a_fresh_adapter_changes_nothing(make: Make) -> None:
    peft = get_peft_model(make(), config())
    plain = logits(make(), PROMPT, OTHER)
    assert torch.equal(logits(peft.eval(), PROMPT, OTHER), plain)
    peft.base_model.remember(queries_of(peft, [PROMPT]), ["edit-0"])
    assert torch.equal(logits(peft, PROMPT, OTHER), plain)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 3, "weighting": "equal"},
        {"span": "query"},
        {"experts": "nearest", "threshold": 5},
        {"layers_to_transform": [0, 1, 3], "num_experts": 4, "top_k": 1},
        {"r": 1, "num_experts": 2, "top_k": 2, "threshold": 1},
    ],
    ids=["paper", "equal", "query", "nearest", "layers", "all-experts"],
)
def test_rows_in_scope_equal_the_literal_forward_pass(make: Make, changes: dict[str, Any]) -> None:
    peft, plain = learned(make, **changes), make()
    expected = literal(peft, plain)
    found = logits(peft, PROMPT, SECOND)
    for row, prompt in enumerate((PROMPT, SECOND)):
        wanted = expected.logits(prompt)
        assert (wanted - logits(plain, prompt)[0]).abs().max() > 0.1
        close(found[row, -len(prompt) :], wanted)


def test_deferred_rows_of_a_mixed_padded_batch_are_bit_identical_to_the_untouched_model(
    make: Make,
) -> None:
    peft, plain = learned(make), make()
    rows = (OTHER, PROMPT, [*OTHER, *PROMPT, 9], SECOND)
    expected = literal(peft, plain)
    edits = [expected.decide(expected.query(row))[0] for row in rows]
    assert edits == [-1, 0, -1, 1]
    found, before = logits(peft, *rows), logits(plain, *rows)
    for row, edit in enumerate(edits):
        if edit < 0:
            assert torch.equal(found[row], before[row])
        else:
            close(found[row, -len(rows[row]) :], expected.logits(rows[row]))


def test_with_nearest_experts_a_neighbour_takes_those_that_the_edit_was_learned_with(
    make: Make,
) -> None:
    peft, plain = learned(make, experts="nearest", threshold=9), make()
    expected = literal(peft, plain)
    neighbours = [[other, *PROMPT[1:]] for other in range(100, 140)]
    decided = [(row, *expected.decide(expected.query(row))[:2]) for row in neighbours]
    own = [literal_elder.scores(expected.routers, expected.query(row)) for row in neighbours]
    borrowed = [
        row
        for (row, edit, taken), found in zip(decided, own, strict=True)
        if edit >= 0 and taken != [literal_elder.top(layer, 2) for layer in found]
    ][:3]
    assert borrowed
    for row in borrowed:
        close(logits(peft, row)[0], expected.logits(row))


def test_span_query_leaves_the_prompt_before_its_last_token_as_it_was(make: Make) -> None:
    plain = logits(make(), OTHER, PROMPT)
    found = logits(learned(make, span="query"), OTHER, PROMPT)
    assert torch.equal(found[1, :-1], plain[1, :-1])
    assert not torch.equal(found[1, -1], plain[1, -1])
    everywhere = logits(learned(make, span="sequence"), OTHER, PROMPT)
    assert not torch.equal(everywhere[1, -len(PROMPT)], plain[1, -len(PROMPT)])


def test_right_padding_takes_the_query_from_the_mask(make: Make) -> None:
    peft, plain = learned(make), make()
    expected, longer = literal(peft, plain), [*PROMPT, 9, 9]
    assert expected.decide(expected.query(longer))[0] == -1
    ids = torch.tensor([[*PROMPT, 0, 0], longer])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    with torch.no_grad():
        found, before = (m(ids, attention_mask=mask).logits for m in (peft, plain))
    close(found[0, :4], expected.logits(PROMPT))
    assert torch.equal(found[1], before[1])


def test_span_query_begins_at_each_rows_own_last_token_under_right_padding(make: Make) -> None:
    peft, plain = learned(make, span="query"), make()
    expected, rows = literal(peft, plain), (PROMPT, SECOND)
    ids = torch.tensor([PROMPT, [*SECOND, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        found, before = (m(ids, attention_mask=mask).logits for m in (peft, plain))
    for row, prompt in enumerate(rows):
        end = len(prompt)
        close(found[row, :end], expected.logits(prompt))
        assert torch.equal(found[row, : end - 1], before[row, : end - 1])
        assert not torch.equal(found[row, end - 1], before[row, end - 1])


def test_rows_may_be_decided_in_different_parts_of_a_prefill(make: Make) -> None:
    peft, plain = learned(make, span="query"), make()
    expected, parts = literal(peft, plain), []
    ids = torch.tensor([PROMPT, [*SECOND, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    cache = DynamicCache(config=peft.config)
    with torch.no_grad(), peft.base_model._attachment.running() as run:
        run.restart(mask, None)
        for part in (ids[:, :3], ids[:, 3:]):
            parts.append(peft(part, past_key_values=cache, use_cache=True).logits)
    assert run.edits == ["edit-0", "edit-1"]
    found = torch.cat(parts, dim=1)
    close(found[0], expected.logits(PROMPT))
    close(found[1, :3], expected.logits(SECOND))


def test_embeddings_and_positional_inputs_are_routed_like_ids(make: Make) -> None:
    peft = learned(make)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = peft(input_ids=ids).logits
        embedded = peft(inputs_embeds=peft.get_input_embeddings()(ids)).logits
        assert torch.equal(peft(ids).logits, expected)
    assert torch.equal(embedded, expected)


# Generation


@pytest.mark.parametrize("span", ["sequence", "query"])
def test_a_generation_equals_the_literal_one_and_is_decided_once(
    make: Make, span: str, routings: list[int]
) -> None:
    peft, plain = learned(make, span=span), make()
    expected = literal(peft, plain)
    rows = (OTHER, PROMPT, SECOND)
    wanted = [expected.greedy(row, tokens=6) for row in rows]
    assert wanted[1] != generate(plain, PROMPT)[0]
    assert wanted[0] == generate(plain, OTHER)[0]
    assert routings == []
    assert generate(peft, *rows) == wanted
    assert routings == [3]
    assert generate(peft, *rows, use_cache=False) == wanted
    assert routings == [3, 3]


def test_a_prefill_in_parts_gives_the_same_tokens_where_the_prompt_stays_as_it_was(
    make: Make, routings: list[int]
) -> None:
    # With span "sequence" the parts before the last token are over when it is known.
    peft = learned(make, span="query")
    wanted = generate(peft, PROMPT)
    assert generate(peft, PROMPT, prefill_chunk_size=3) == wanted
    assert routings == [1, 1]


def test_beams_share_their_prompts_decision(make: Make, routings: list[int]) -> None:
    peft, plain = learned(make), make()
    wide = {"num_beams": 3, "num_return_sequences": 2}
    deferred = generate(plain, OTHER, **wide)
    alone = generate(peft, PROMPT, **wide)
    assert alone != generate(plain, PROMPT, **wide)
    both = generate(peft, PROMPT, OTHER, **wide)
    assert both == alone + deferred
    assert routings == [3, 6]


def test_a_hand_written_decode_loop_goes_on_with_what_was_decided(
    make: Make, routings: list[int]
) -> None:
    peft, plain = learned(make), make()
    wanted = [literal(peft, plain).greedy(row, tokens=5) for row in (PROMPT, [*OTHER, 9, 9])]
    cache = DynamicCache(config=peft.config)
    ids, found = torch.tensor([PROMPT, [*OTHER, 9, 9]]), []
    with torch.no_grad():
        for _ in range(5):
            ids = peft(ids, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
            found.append(ids[:, 0].tolist())
    assert [list(row) for row in zip(*found, strict=True)] == wanted
    assert routings == [2]


def test_two_caches_in_turns_keep_their_decisions_apart(make: Make) -> None:
    peft, plain = learned(make), make()
    rows = (PROMPT, OTHER)
    wanted = [literal(peft, plain).greedy(row, tokens=4) for row in rows]
    caches = [DynamicCache(config=peft.config) for _ in rows]
    asked, found = [torch.tensor([row]) for row in rows], [[], []]
    with torch.no_grad():
        for _ in range(4):
            for index, cache in enumerate(caches):
                out = peft(asked[index], past_key_values=cache, use_cache=True).logits
                asked[index] = out[:, -1:].argmax(-1)
                found[index].append(int(asked[index]))
    assert found == wanted


def test_a_model_in_use_does_not_gather_its_parameters_anew_at_every_token(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft, gathered = learned(make), []
    state = ElderModel.state
    monkeypatch.setattr(
        ElderModel, "state", lambda self, *args: gathered.append(1) or state(self, *args)
    )
    generate(peft, PROMPT, OTHER)
    assert len(gathered) == 1
