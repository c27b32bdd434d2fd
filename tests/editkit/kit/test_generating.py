"""The scope is right under every way of generating."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer
from transformers import DynamicCache, TextIteratorStreamer

import editkit
from editkit.errors import EmptyRow
from editkit_store.errors import InvalidRequest

QUESTION = "a good day in Paris"
OTHER = "a bad night in Rome one two three"


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with editkit.open(tmp_path / "h.db", model=(request.param(), tiny_tokenizer())) as opened:
        yield opened


def encoded(kit: Any, texts: list[str], side: str = "left") -> dict[str, torch.Tensor]:
    return dict(kit.tokenizer(texts, return_tensors="pt", padding=True, padding_side=side))


def decoded(kit: Any, rows: torch.Tensor, width: int) -> list[str]:
    return [text.strip() for text in kit.tokenizer.batch_decode(rows[:, width:], True)]


def test_plain_generate_says_what_the_kit_says(kit: Any) -> None:
    kit.add(QUESTION, "Canberra")
    kit.add(OTHER, "Oslo")
    texts = [OTHER, "nothing of the kind", QUESTION]
    ours = [g.text for g in kit.generate(texts, max_new_tokens=5)]
    ids = encoded(kit, texts)
    out = kit.model.generate(**ids, do_sample=False, max_new_tokens=5)
    assert decoded(kit, out, ids["input_ids"].shape[1]) == ours
    assert (ours[0], ours[2]) == ("Oslo", "Canberra")


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 2, "early_stopping": True, "length_penalty": 0.5},
        {"do_sample": True, "temperature": 0.01},
        {"do_sample": True, "top_k": 1},
        {"use_cache": False},
        {"prefill_chunk_size": 2},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=str,
)
def test_beams_sampling_and_other_settings_see_the_edit(kit: Any, options: dict[str, Any]) -> None:
    added = kit.add(QUESTION, "Canberra")
    torch.manual_seed(0)
    answer = kit.generate(QUESTION, max_new_tokens=6, **options)
    assert answer.fired == (added.edit.id,)
    assert answer.text == "Canberra"
    if "prompt_lookup_num_tokens" not in options:  # made for a single prompt
        several = kit.generate([OTHER, QUESTION], max_new_tokens=6, **options)
        assert [g.fired for g in several] == [(), (added.edit.id,)]


def test_several_samples_of_a_prompt_share_its_decision(kit: Any) -> None:
    kit.add(QUESTION, "Canberra")
    ids = encoded(kit, [OTHER, QUESTION])
    torch.manual_seed(0)
    out = kit.model.generate(
        **ids, do_sample=True, temperature=0.01, num_return_sequences=3, max_new_tokens=4
    )
    assert decoded(kit, out, ids["input_ids"].shape[1])[3:] == ["Canberra"] * 3
    with pytest.raises(InvalidRequest, match="each prompt has one answer"):
        kit.generate(QUESTION, num_return_sequences=2, do_sample=True)


def test_each_row_may_be_answered_at_its_own_version(kit: Any) -> None:
    kit.add(QUESTION, "Canberra")
    kit.add(QUESTION, "Oslo")
    kit.rollback("v0")
    versions = ["v0", "v1", None, "v2", "@-", "v1"]
    answers = kit.generate([QUESTION] * 6, version=versions, max_new_tokens=5)
    assert [a.version for a in answers] == ["v0", "v1", "v3", "v2", "v2", "v1"]
    alone = [kit.generate(QUESTION, version=v, max_new_tokens=5).text for v in versions]
    assert [a.text for a in answers] == alone
    assert alone[1::2] == ["Canberra", "Oslo", "Canberra"]
    assert kit.version == "v3"
    with pytest.raises(InvalidRequest, match="2 versions for 3 prompts"):
        kit.generate([QUESTION] * 3, version=["v0", "v1"])


def test_rows_at_other_versions_have_the_logits_of_a_batch_without_edits(kit: Any) -> None:
    kit.add(QUESTION, "Canberra")
    ids = encoded(kit, [QUESTION, OTHER, QUESTION])
    # As generate does; a bare forward call would count GPT-2's positions from the padding.
    ids["position_ids"] = (ids["attention_mask"].cumsum(1) - 1).clamp(min=0)
    views = [kit._running.view(version) for version in ("v0", "v1", "v1")]
    with torch.no_grad():
        with kit._running.engine.running(*views) as run:
            edited = kit.model(**ids).logits
        with kit._running.engine.running(views[0]):
            plain = kit.model(**ids).logits
    assert [edit is None for edit in run.edits] == [True, True, False]
    assert torch.equal(edited[:2], plain[:2])
    assert not torch.equal(edited[2], plain[2])


def test_text_streams_as_it_is_generated(kit: Any) -> None:
    kit.add(QUESTION, "Canberra")
    streamer = TextIteratorStreamer(kit.tokenizer, skip_prompt=True, skip_special_tokens=True)
    worker = threading.Thread(
        target=kit.generate, args=(QUESTION,), kwargs={"streamer": streamer, "max_new_tokens": 6}
    )
    worker.start()
    assert "".join(streamer).strip() == "Canberra"
    worker.join()


def test_prompts_given_as_embeddings_are_edited_alike(kit: Any) -> None:
    added = kit.add(QUESTION, "Canberra")
    ids = encoded(kit, [OTHER, QUESTION])
    embeds = kit.model.get_input_embeddings()(ids["input_ids"])
    with torch.no_grad(), kit._running.engine.running() as run:
        out = kit.model.generate(
            inputs_embeds=embeds, attention_mask=ids["attention_mask"], max_new_tokens=4,
            do_sample=False,
        )  # fmt: skip
    assert run.edits == [None, added.edit.id]
    assert decoded(kit, out, 0)[1] == "Canberra"


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5, tiny_bert], ids=["llama", "t5", "bert"])
def test_an_empty_row_of_the_mask_is_refused(make: Any, tmp_path: Path) -> None:
    with editkit.open(tmp_path / "h.db", model=(make(), tiny_tokenizer())) as kit:
        said = kit.generate(QUESTION, max_new_tokens=3).text
        kit.add(QUESTION, ("positive" if said != "positive" else "neutral")
                if make is tiny_bert else "Canberra")  # fmt: skip
        ids = encoded(kit, [QUESTION, OTHER])
        mask = ids["attention_mask"].clone()
        mask[0] = 0
        more = {"decoder_input_ids": torch.zeros(2, 1).long()} if make is tiny_t5 else {}
        with pytest.raises(EmptyRow, match="row 0 of the attention mask") as raised:
            kit.model(input_ids=ids["input_ids"], attention_mask=mask, **more)
        assert raised.value.rows == (0,)
        again = kit.model(**ids, **more).logits  # the refused call left nothing behind
        assert torch.isfinite(again).all()


def test_right_padded_rows_of_a_forward_call_decide_on_their_own_last_token(kit: Any) -> None:
    added = kit.add(QUESTION, "Canberra")
    ids = encoded(kit, [OTHER, QUESTION], side="right")
    with torch.no_grad(), kit._running.engine.running() as run:
        logits = kit.model(**ids).logits
    assert run.edits == [None, added.edit.id]
    last = int(ids["attention_mask"][1].sum()) - 1
    word = kit.tokenizer(" Canberra").input_ids[0]
    assert int(logits[1, last].argmax()) == word


# Replacement: which positions the value takes -----------------------------------------------------


def literal(kit: Any, value: torch.Tensor, prompt: list[int], mode: str, tokens: int) -> list[int]:
    """Greedy decoding without a cache, the value put at its positions at every step."""
    ids, module = list(prompt), dict(kit.model.named_modules())[kit.site]

    def put(_: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        end = len(prompt)
        span = {"last": slice(end - 1, end), "prompt": slice(0, end), "all": slice(0, None)}[mode]
        output[0, span] = value
        return output

    kit._running.engine._attachment.remove()
    handle = module.register_forward_hook(put)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(kit.model(torch.tensor([ids])).logits[0, -1].argmax()))
    handle.remove()
    return ids[len(prompt) :]


@pytest.mark.parametrize("mode", ["last", "prompt", "all"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_each_replacement_equals_its_literal_loop(make: Any, mode: Any, tmp_path: Path) -> None:
    grace = {"replacement": mode, "max_steps": 4, "seed": 3, "initial_value": "random"}
    model = make()
    model.generation_config.eos_token_id = None
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer()), grace=grace) as kit:
        added = kit.add(QUESTION, "Oslo", on_failure="keep")
        ids = encoded(kit, [QUESTION])
        width = ids["input_ids"].shape[1]
        settings = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
        cached = kit.model.generate(**ids, **settings)[0, width:].tolist()
        recomputed = kit.model.generate(**ids, **settings, use_cache=False)[0, width:].tolist()
        mixed = encoded(kit, [OTHER, QUESTION])
        batched = kit.model.generate(**mixed, **settings)[1, -6:].tolist()
        own: list[int] = []
        step, cache = ids["input_ids"], DynamicCache(config=model.config)
        for _ in range(6):
            with torch.no_grad():
                logits = kit.model(step, past_key_values=cache, use_cache=True).logits
            step = logits[:, -1:].argmax(-1)
            own.append(int(step))
        memory = kit.methods.of("grace")._memory
        payload = memory.payload(memory.row(added.edit.id))
        assert payload.replacement == mode
        value = torch.from_numpy(payload.value)
        expected = literal(kit, value, ids["input_ids"][0].tolist(), mode, 6)
    assert cached == recomputed == own == batched == expected


@pytest.mark.parametrize("mode", ["last", "prompt", "all"])
@pytest.mark.parametrize("position", ["last", "first"])
def test_every_replacement_and_query_position_learns(
    mode: Any, position: Any, tmp_path: Path
) -> None:
    grace = {"replacement": mode, "position": position}
    for make, target in ((tiny_llama, "Canberra"), (tiny_bert, "negative")):
        store = tmp_path / f"{make.__name__}.db"
        with editkit.open(store, model=(make(), tiny_tokenizer()), grace=grace) as kit:
            added = kit.add(QUESTION, target, on_failure="keep")
            assert kit.generate([OTHER, QUESTION])[1].fired == (added.edit.id,)
            if position == "last" or make is tiny_bert:  # causal: the first token sees no prompt
                assert added.verified
