"""Answers are held to the target of the edit that fired, or left to the model, and say which.

The tiny models learn words of one token. A target that has to be spelled is kept unverified here:
its edit fires, and the model by itself says something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer
from transformers import TextIteratorStreamer

import editkit
from editkit.engines.base import Sampling, Step
from editkit_store.errors import InvalidRequest

CAT, TREE, SEA = "The red cat is", "tall tree", "see Oslo"
SPELLED = "Linda Yaccarino"


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with editkit.open(tmp_path / "h.db", model=(request.param(), tiny_tokenizer())) as opened:
        yield opened


def spelled(kit: Any, prompt: str | None = CAT, target: str = SPELLED, **fields: Any) -> str:
    """Adds an edit whose target the model does not give by itself; returns its id."""
    added = kit.add(prompt, target, on_failure="keep", **fields)
    assert not added.verified
    assert added.answer != target
    return str(added.edit.id)


def test_an_answer_is_held_to_the_target_and_says_so(kit: Any) -> None:
    edit = spelled(kit)
    free = kit.generate(CAT, delivery="free")
    held = kit.generate(CAT)
    assert (held.text, held.fired, held.delivered) == (SPELLED, (edit,), "held")
    assert held.finish_reason == "stop"
    assert not free.text.startswith(SPELLED)
    assert (free.fired, free.delivered) == ((edit,), "no")
    plain = kit.tokenizer(CAT, return_tensors="pt")
    out = kit.model.generate(**plain, do_sample=False, max_new_tokens=64)
    width = plain["input_ids"].shape[1]
    assert kit.tokenizer.decode(out[0, width:], skip_special_tokens=True).strip() == free.text


def test_what_the_model_says_by_itself_stays_its_own(kit: Any) -> None:
    kit.add(CAT, "blue")
    for delivery in ("exact", "free"):
        said = kit.generate(CAT, delivery=delivery)
        assert (said.text, said.delivered, said.finish_reason) == ("blue", "free", "stop")
    assert kit.generate(CAT, version="v0").delivered is None
    assert kit.generate(TREE).delivered is None


def test_rows_of_a_batch_are_held_each_to_its_own_target_and_the_others_stay_the_same(
    kit: Any,
) -> None:
    prompts = [TREE, CAT, "milk and bread", SEA, CAT, "gold"]
    before = kit.generate(prompts, max_new_tokens=12)
    spelled(kit)
    kit.add(SEA, "yes")
    versions = ["@", "@", "@", "@", "v0", "@"]
    found = kit.generate(prompts, version=versions, max_new_tokens=12)
    assert [one.delivered for one in found] == [None, "held", None, "free", None, None]
    assert [found[1].text, found[3].text] == [SPELLED, "yes"]
    for index in (0, 2, 4, 5):
        assert (found[index].text, found[index].tokens) == (
            before[index].text, before[index].tokens,
        )  # fmt: skip


def test_logits_of_rows_without_an_edit_are_the_same_to_the_last_bit(kit: Any) -> None:
    spelled(kit)
    seen: list[torch.Tensor] = []

    head = kit.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, args, output: seen.append(output[0, -1].clone()))
    runs = []
    for delivery in ("exact", "free"):
        seen.clear()
        kit.generate([TREE, CAT], delivery=delivery, max_new_tokens=5)
        runs.append(list(seen))
    hook.remove()
    assert all(runs)  # of different length: the answers end at different steps
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=False))


def test_each_row_has_its_own_delivery(kit: Any) -> None:
    spelled(kit)
    found = kit.generate([CAT, CAT, TREE], delivery=["free", "exact", "exact"], max_new_tokens=20)
    assert [one.delivered for one in found] == ["no", "held", None]


def test_each_version_has_its_own_edit(kit: Any) -> None:
    spelled(kit)
    spelled(kit, target="Satya Nadella")
    found = kit.generate([CAT] * 3, version=["v1", "v2", "v0"])
    assert [one.text for one in found[:2]] == [SPELLED, "Satya Nadella"]
    assert [one.delivered for one in found] == ["held", "held", None]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 2, "early_stopping": True, "length_penalty": 0.5},
        {"do_sample": True, "temperature": 1.5},
        {"do_sample": True, "top_k": 5, "top_p": 0.5},
        {"do_sample": True, "typical_p": 0.5},
        {"num_beams": 2, "do_sample": True},
        {"use_cache": False},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 2},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "min_new_tokens": 23},
        {"bad_words_ids": [[3], [4]]},
    ],
    ids=str,
)
def test_the_target_is_held_under_every_way_of_generating(
    kit: Any, options: dict[str, Any]
) -> None:
    spelled(kit)
    torch.manual_seed(0)
    found = kit.generate(CAT, max_new_tokens=24, **options)
    assert (found.text, found.delivered) == (SPELLED, "held")
    if "prompt_lookup_num_tokens" not in options:  # made for a single prompt
        several = kit.generate([TREE, CAT], max_new_tokens=24, **options)
        assert [one.delivered for one in several] == [None, "held"]
        assert several[1].text == SPELLED


def test_sampled_rows_are_held_and_the_others_drawn_as_before(kit: Any) -> None:
    spelled(kit)
    ids = [kit.encoder.prompt(one) for one in (CAT, TREE)]
    hot = [Sampling(1.5, 0.95, seed=7)] * 2
    held = kit.generate_tokens(ids, sampling=hot, max_new_tokens=24)
    free = kit.generate_tokens(ids, sampling=hot, max_new_tokens=24, delivery="free")
    assert (held[0].text, held[0].delivered) == (SPELLED, "held")
    assert free[0].delivered == "no"
    assert held[1] == free[1]


def test_an_edit_that_sampling_would_leave_is_held(kit: Any) -> None:
    kit.add(CAT, "blue")
    ids = [kit.encoder.prompt(CAT)] * 16
    hot = [Sampling(50.0, seed=seed) for seed in range(16)]
    found = kit.generate_tokens(ids, sampling=hot, max_new_tokens=4)
    assert {one.text for one in found} == {"blue"}
    assert "held" in {one.delivered for one in found}


def test_a_limit_below_the_target_cuts_it(kit: Any) -> None:
    spelled(kit)
    cut = kit.generate(CAT, max_new_tokens=3)
    assert SPELLED.startswith(cut.text)
    assert (cut.tokens, cut.finish_reason, cut.delivered) == (3, "length", "held")


def test_a_stream_brings_the_target_only(kit: Any) -> None:
    spelled(kit)
    streamer = TextIteratorStreamer(kit.tokenizer, skip_prompt=True, skip_special_tokens=True)
    kit.generate(CAT, streamer=streamer)
    assert "".join(streamer).strip() == SPELLED


def test_a_watch_hears_at_every_step_how_the_target_came(kit: Any) -> None:
    spelled(kit)
    ids = [kit.encoder.prompt(one) for one in (CAT, TREE, CAT)]
    steps: list[Step] = []

    def watch(step: Step) -> list[bool]:
        steps.append(step)
        return [len(steps) >= 2, False, False]

    delivery: Any = ["exact", "exact", "free"]
    found = kit.generate_tokens(ids, watch=watch, delivery=delivery, max_new_tokens=24)
    # The first row was ended before its target was: what follows in its row is padding.
    assert found[0].delivered == steps[1].delivered[0]
    assert steps[-1].delivered == tuple(one.delivered for one in found)
    assert found[1].delivered is None
    assert found[2].delivered == "no"


def test_a_conversation_is_held_too_and_edits_cross_between_chats_and_prompts(kit: Any) -> None:
    chat = [{"role": "user", "content": CAT}]
    edit = spelled(kit, None, chat=chat)
    held = kit.chat(chat)
    assert (held.text, held.fired, held.delivered) == (SPELLED, (edit,), "held")
    assert kit.chat(chat, delivery="free").delivered == "no"
    assert kit.generate(CAT, chat=True).text == SPELLED
    plain = kit.generate(CAT)
    assert (plain.text, plain.delivered) == (SPELLED, "held") if plain.fired else plain.text


@pytest.mark.parametrize("kind", ["fact", "passage"])
def test_a_target_in_other_tokens_is_the_same_target(kit: Any, kind: str) -> None:
    """A word of one token and its letters are the same text, and so no reason to hold a row."""
    edit = kit.add(CAT, "blue", kind=kind).edit
    forms = kit._inference._targets.forms(edit.id)
    assert {one.text for one in forms} == {"blue"}
    assert len({one.target for one in forms}) == len(forms) == 2  # with and without a space


def test_a_label_is_replaced(tmp_path: Path) -> None:
    grace = {"max_steps": 1, "initial_value": "random"}
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), tiny_tokenizer()), grace=grace) as kit:
        free = kit.generate(CAT).text
        for target in {"negative", "neutral", "positive"} - {free}:
            added = kit.add(CAT, target, on_failure="keep")
            by_itself = kit.generate(CAT, delivery="free")
            held = kit.generate(CAT)
            assert held.fired == by_itself.fired == (added.edit.id,)
            assert held.text == target
            assert held.delivered == ("free" if added.verified else "held")
            assert by_itself.text == added.answer
            assert by_itself.delivered == ("free" if added.verified else "no")
        assert kit.generate([CAT, TREE])[1].delivered is None


def test_an_encoder_decoder_is_held(tmp_path: Path) -> None:
    with editkit.open(tmp_path / "h.db", model=(tiny_t5(), tiny_tokenizer())) as kit:
        before = kit.generate([CAT, TREE], max_new_tokens=12)
        edit = spelled(kit)
        for options in ({}, {"num_beams": 2}):
            found = kit.generate([CAT, TREE], max_new_tokens=24, **options)
            assert (found[0].text, found[0].fired) == (SPELLED, (edit,))
            assert [one.delivered for one in found] == ["held", None]
        assert kit.generate([CAT, TREE], max_new_tokens=12)[1] == before[1].model_copy(
            update={"version": "v1"}
        )


def test_verification_and_comparisons_leave_the_model_alone(kit: Any) -> None:
    added = kit.add(CAT, SPELLED)
    assert not added.verified
    assert kit.version == "v0"
    kept = kit.add(CAT, SPELLED, on_failure="keep")
    free = kit.generate(CAT, delivery="free", max_new_tokens=64).text
    assert free.startswith(kept.answer)
    (change,) = kit.diff("v0", "v1", behavior=True).behavior
    assert change.after != SPELLED


@pytest.mark.parametrize("bad", ["loose", "", "EXACT", ["exact", "half"], None])
def test_an_unknown_delivery_is_refused(kit: Any, bad: Any) -> None:
    with pytest.raises(InvalidRequest, match="'exact' or 'free'") as raised:
        kit.generate([CAT, TREE], delivery=bad)
    assert raised.value.field == "delivery"
    with pytest.raises(InvalidRequest, match="'exact' or 'free'"):
        kit.chat([{"role": "user", "content": CAT}], delivery="loose")
    with pytest.raises(InvalidRequest, match="1 deliveries for 2 prompts"):
        kit.generate([CAT, TREE], delivery=["exact"])
