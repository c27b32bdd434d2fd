"""ELDER as a PEFT method, against the literal forward pass of the same model without PEFT."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from reference import literal_elder
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer
from transformers import DynamicCache

import editkit
from editkit.errors import ModelUnavailable
from editkit.methods.elder import routing
from editkit.methods.elder.state import ElderView
from editkit.methods.elder.tuner import ElderLinear, ElderModel

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT = [40, 41, 42, 43]
SECOND = [50, 51, 52]
OTHER = [60, 61]

Make = Callable[[], Any]


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes the same model again and again."""

    def made() -> Any:
        model = request.param()
        model.generation_config.eos_token_id = None
        return model

    return made


def config(**changes: Any) -> editkit.ElderConfig:
    return editkit.ElderConfig(
        **{
            "r": 2,
            "lora_alpha": 3.0,
            "threshold": 2,
            "layers_to_transform": [1, 2],
            "num_experts": 6,
            **changes,
        }
    )


def randomize(peft: Any, adapter: str = "default", seed: int = 1) -> None:
    """Gives an adapter random routers and experts, large enough to be seen."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in peft.named_parameters():
            if "elder_" in name and name.endswith(f".{adapter}"):
                tensor.normal_(std=0.5, generator=noise)


def queries_of(peft: Any, prompts: Sequence[list[int]]) -> torch.Tensor:
    found = []
    for prompt in prompts:
        with torch.no_grad(), peft.base_model.watching() as seen:
            peft(torch.tensor([prompt]))
        found.append(seen[0][0, -1])
    return torch.stack(found)


def learned(make: Make, prompts: Sequence[list[int]] = (PROMPT, SECOND), **changes: Any) -> Any:
    """An adapted model that remembers prompts."""
    peft = get_peft_model(make(), config(**changes)).eval()
    randomize(peft)
    names = [f"edit-{index}" for index in range(len(prompts))]
    peft.base_model.remember(queries_of(peft, prompts), names)
    return peft


def literal(peft: Any, model: Any, adapter: str = "default") -> literal_elder.Elder:
    """The same adapter on an untouched model."""
    settings = peft.peft_config[adapter]
    blocks = model.model.layers if hasattr(model, "model") else model.transformer.h
    layers = [m for m in peft.modules() if isinstance(m, ElderLinear)]
    bits = len(layers) * settings.num_experts
    stored = peft.base_model.elder_codes[adapter].numpy()
    first = model.get_submodule(settings.target_modules[0])
    return literal_elder.Elder(
        model=model,
        entry=next(block for block in blocks if first in list(block.modules())),
        layers=[model.get_submodule(path) for path in settings.target_modules],
        lora_a=[layer.elder_A[adapter].detach() for layer in layers],
        lora_b=[layer.elder_B[adapter].detach() for layer in layers],
        routers=torch.stack([layer.elder_router[adapter].detach() for layer in layers]),
        codes=np.unpackbits(stored, axis=1, count=bits).tolist(),
        k=settings.top_k,
        scaling=settings.lora_alpha / settings.r,
        threshold=settings.threshold,
        weighting=settings.weighting,
        experts=settings.experts,
        span=settings.span,
    )


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Rows as a batch, padded on the left."""
    width = max(map(len, rows))
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}


@torch.no_grad()
def logits(model: Any, *rows: list[int]) -> torch.Tensor:
    found: torch.Tensor = model(**padded(list(rows))).logits
    return found


def generate(model: Any, *rows: list[int], **options: Any) -> list[list[int]]:
    batch = padded(list(rows))
    batch.pop("position_ids")
    width = batch["input_ids"].shape[1]
    options = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0, **options}
    out = model.generate(**batch, **options)
    return [row[width:] for row in out.tolist()]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


@pytest.fixture
def routings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the routers decided on."""
    counts: list[int] = []
    route = ElderView.route

    def counted(view: ElderView, queries: torch.Tensor) -> Any:
        counts.append(len(queries))
        return route(view, queries)

    monkeypatch.setattr(ElderView, "route", counted)
    return counts


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


# Saving and loading


def adapter_tensors(peft: Any, adapter: str = "default") -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in peft.state_dict().items()
        if "elder_" in name and name.endswith(f".{adapter}")
    }


def test_a_saved_adapter_comes_back_bit_by_bit(make: Make, tmp_path: Path) -> None:
    peft = learned(make, span="query", experts="nearest", weighting="equal", top_k=3, threshold=4)
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path)
    before, after = adapter_tensors(peft), adapter_tensors(again)
    assert list(before) == list(after)
    assert len(before) == 3 * 2 + 3  # experts and routers of two layers; codes, queries, owners
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor)
        assert after[name].dtype == tensor.dtype
    first, second = (dict(vars(p.peft_config["default"])) for p in (peft, again))
    assert second["inference_mode"] is True
    own = {"inference_mode", "auto_mapping"}  # PEFT's, of how a model came to be
    assert first.keys() == second.keys()
    assert [n for n in first if n not in own and first[n] != second[n]] == []
    rows = (OTHER, PROMPT, SECOND)
    assert torch.equal(logits(again, *rows), logits(peft, *rows))
    assert generate(again, *rows) == generate(peft, *rows)


def test_an_adapter_without_edits_can_be_saved_and_loaded(make: Make, tmp_path: Path) -> None:
    peft = get_peft_model(make(), config())
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path)
    assert len(again.base_model.elder_codes["default"]) == 0
    assert torch.equal(logits(again, PROMPT), logits(make(), PROMPT))


def test_an_adapter_loaded_without_memory_of_its_own_is_the_same(
    make: Make, tmp_path: Path
) -> None:
    peft = learned(make)
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(again, PROMPT, OTHER), logits(peft, PROMPT, OTHER))


def test_a_loaded_adapter_can_be_trained_on(make: Make, tmp_path: Path) -> None:
    learned(make).save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path, is_trainable=True)
    names = {name for name, parameter in again.named_parameters() if parameter.requires_grad}
    assert names == {name for name, _ in again.named_parameters() if "elder_" in name}


_LOADING = """
import importlib.util, sys, torch
{first}
from transformers import AutoModelForCausalLM
from peft import PeftModel
base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
model = PeftModel.from_pretrained(base, sys.argv[2])
with torch.no_grad():
    torch.save(model(torch.tensor([{prompt}])).logits, sys.argv[3])
assert not any("elder" in type(finder).__module__ for finder in sys.meta_path)
"""


@pytest.mark.parametrize(
    "first",
    [
        # transformers asks whether PEFT could be found, long before anybody imports it.
        "import editkit; assert importlib.util.find_spec('peft')",
        "import peft; import editkit",
    ],
    ids=["editkit-first", "peft-first"],
)
def test_a_fresh_process_loads_an_adapter_after_importing_editkit(
    first: str, tmp_path: Path
) -> None:
    peft = learned(tiny_llama)
    peft.save_pretrained(tmp_path / "adapter")
    tiny_llama().save_pretrained(tmp_path / "base")
    script = _LOADING.format(first=first, prompt=PROMPT)
    places = [str(tmp_path / name) for name in ("base", "adapter", "logits")]
    done = subprocess.run(
        [sys.executable, "-c", script, *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "logits"), logits(peft, PROMPT))


def test_importing_editkit_loads_neither_peft_nor_torch() -> None:
    script = "import editkit, sys; print(sorted({'peft', 'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# On and off


def test_disable_adapter_gives_the_untouched_model_for_its_body(make: Make) -> None:
    peft, plain = learned(make), make()
    on = logits(peft, PROMPT)
    with peft.disable_adapter():
        assert torch.equal(logits(peft, PROMPT), logits(plain, PROMPT))
        assert generate(peft, PROMPT) == generate(plain, PROMPT)
    assert torch.equal(logits(peft, PROMPT), on)


def hooks_of(model: Any) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_unload_gives_back_the_model_with_no_trace(make: Make) -> None:
    base = make()
    keys, before = list(base.state_dict()), logits(base, PROMPT, OTHER)
    types = [type(module) for module in base.modules()]
    peft = learned(lambda: base)
    assert hooks_of(base) > 0
    assert "generate" in vars(base)
    assert not torch.equal(logits(peft, PROMPT, OTHER), before)
    back = peft.unload()
    assert back is base
    assert hooks_of(base) == 0
    assert "generate" not in vars(base)
    assert [type(module) for module in base.modules()] == types
    assert list(base.state_dict()) == keys
    assert torch.equal(logits(base, PROMPT, OTHER), before)


def test_unload_leaves_the_hooks_of_others(make: Make) -> None:
    base = make()
    base.register_forward_hook(lambda *_: None)
    learned(lambda: base).unload()
    assert hooks_of(base) == 1


def test_an_unloaded_model_can_be_adapted_again(make: Make, tmp_path: Path) -> None:
    peft = learned(make)
    peft.save_pretrained(tmp_path)
    on = logits(peft, PROMPT)
    again = PeftModel.from_pretrained(peft.unload(), tmp_path)
    assert torch.equal(logits(again, PROMPT), on)


def test_merging_is_refused_and_leaves_the_adapter_working(make: Make) -> None:
    peft = learned(make)
    on = logits(peft, PROMPT, OTHER)
    for merge in (peft.merge_and_unload, peft.merge_adapter):
        with pytest.raises(ValueError, match="cannot be merged"):
            merge()
        assert torch.equal(logits(peft, PROMPT, OTHER), on)
    assert generate(peft, PROMPT) != generate(make(), PROMPT)


def test_a_model_that_nobody_holds_any_more_is_freed() -> None:
    peft = learned(tiny_gpt2)
    reference = weakref.ref(peft.base_model.model)
    del peft
    gc.collect()
    assert reference() is None


# Several adapters, several threads


def with_second(make: Make, **changes: Any) -> Any:
    """An adapted model whose second adapter, of another shape, remembers another prompt."""
    peft = learned(make, prompts=[PROMPT])
    peft.add_adapter("second", config(r=3, num_experts=4, **changes))
    randomize(peft, "second", seed=7)
    peft.set_adapter("second")
    peft.base_model.remember(queries_of(peft, [OTHER]), ["other"])
    peft.set_adapter("default")
    return peft


@pytest.mark.parametrize("changes", [{}, {"target_modules": None}], ids=["plain", "again"])
def test_the_active_one_of_two_adapters_applies(make: Make, changes: dict[str, Any]) -> None:
    peft, plain = with_second(make, **changes), make()
    before = logits(plain, PROMPT, OTHER)
    for name, row, prompt in (("default", 0, PROMPT), ("second", 1, OTHER), ("default", 0, PROMPT)):
        peft.set_adapter(name)
        found = logits(peft, PROMPT, OTHER)
        close(found[row, -len(prompt) :], literal(peft, plain, name).logits(prompt))
        assert not torch.equal(found[row], before[row])
        assert torch.equal(found[1 - row], before[1 - row])
        names = {name for name, parameter in peft.named_parameters() if parameter.requires_grad}
        assert names == set(dict(peft.named_parameters())) & {
            key for key in peft.state_dict() if "elder_" in key and key.endswith(f".{name}")
        }


def test_adding_an_adapter_leaves_the_first_as_it_was(make: Make) -> None:
    peft = learned(make)
    on = logits(peft, PROMPT, OTHER)
    peft.add_adapter("second", config())
    assert torch.equal(logits(peft, PROMPT, OTHER), on)


def test_two_adapters_at_once_are_refused(make: Make) -> None:
    peft = with_second(make)
    peft.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="one ELDER adapter is active at a time"):
        logits(peft, PROMPT)
    peft.set_adapter("default")
    assert not torch.equal(logits(peft, PROMPT), logits(make(), PROMPT))


def test_a_deleted_adapter_is_gone_and_the_other_one_stays(make: Make) -> None:
    peft = with_second(make)
    on = logits(peft, PROMPT)
    peft.delete_adapter("second")
    assert adapter_tensors(peft, "second") == {}
    assert torch.equal(logits(peft, PROMPT), on)


def test_two_adapters_are_saved_and_loaded_each_by_itself(make: Make, tmp_path: Path) -> None:
    peft = with_second(make)
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path)
    again.load_adapter(tmp_path / "second", "second")
    for name in ("default", "second", "default"):
        peft.set_adapter(name)
        again.set_adapter(name)
        assert torch.equal(logits(again, PROMPT, OTHER), logits(peft, PROMPT, OTHER))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_to_transform": [2, 3]}, "adapt the same layers"),
        ({"layers_to_transform": [1]}, "adapt the same layers"),
        ({"query": "pooled"}, "by the same query, 'state'"),
    ],
    ids=["others", "fewer", "query"],
)
def test_a_second_adapter_that_does_not_go_with_the_first_is_refused(
    make: Make, changes: dict[str, Any], message: str
) -> None:
    peft = learned(make)
    on = logits(peft, PROMPT, OTHER)
    with pytest.raises(ValueError, match=message):
        peft.add_adapter("second", config(**changes))
    assert list(peft.peft_config) == ["default"]
    assert torch.equal(logits(peft, PROMPT, OTHER), on)


def in_threads(*works: tuple[Callable[[], Any], Any]) -> None:
    """Runs each piece of work several times beside the others; its result is always the same."""
    wrong: list[Any] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any], wanted: Any) -> None:
        start.wait()
        for _ in range(4):
            found = work()
            if found != wanted:
                wrong.append((found, wanted))

    threads = [threading.Thread(target=run, args=one) for one in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_models_in_two_threads_do_not_disturb_each_other(make: Make) -> None:
    one, two = learned(make, prompts=[PROMPT]), learned(make, prompts=[SECOND], top_k=3)
    rows = (PROMPT, SECOND)
    wanted = [generate(peft, *rows) for peft in (one, two)]
    plain = generate(make(), *rows)
    assert [wanted[0][1], wanted[1][0]] == plain[::-1]
    assert wanted[0][0] != plain[0]
    assert wanted[1][1] != plain[1]
    in_threads((lambda: generate(one, *rows), wanted[0]), (lambda: generate(two, *rows), wanted[1]))


def test_one_model_serves_two_threads_with_different_prompts(make: Make) -> None:
    peft = learned(make)
    # Different numbers of rows and tokens, so that a decision of the other thread would show.
    batches = ((PROMPT,), (OTHER, SECOND), (OTHER,))
    wanted = [generate(peft, *rows) for rows in batches]
    in_threads(
        *[
            (lambda rows=rows: generate(peft, *rows), found)
            for rows, found in zip(batches, wanted, strict=True)
        ],
        (lambda: logits(peft, PROMPT).tolist(), logits(peft, PROMPT).tolist()),
    )


# Training


@pytest.mark.parametrize("target", [None, ["gate_proj"], ["gate_proj", "down_proj"]])
def test_exactly_the_adapters_parameters_are_trainable(target: list[str] | None) -> None:
    peft = get_peft_model(tiny_llama(), config(target_modules=target))
    names = {name for name, parameter in peft.named_parameters() if parameter.requires_grad}
    layers = [m for m in peft.modules() if isinstance(m, ElderLinear)]
    assert len(layers) == 2 * len(target or [None])
    assert len(names) == 3 * len(layers)
    assert names == {
        f"{path}.{kind}.default"
        for path, module in peft.named_modules()
        if isinstance(module, ElderLinear)
        for kind in ("elder_A", "elder_B", "elder_router")
    }


def test_the_guided_loss_trains_the_routers_and_nothing_else(make: Make) -> None:
    peft = learned(make)
    queries = queries_of(peft, [PROMPT, OTHER])
    allocations = torch.from_numpy(routing.allocate(2, layers=2, experts=6, k=2))
    tuner = peft.base_model
    optimizer = torch.optim.Adam(
        [parameter for parameter in peft.parameters() if parameter.requires_grad], lr=0.05
    )
    before = {name: tensor.clone() for name, tensor in adapter_tensors(peft).items()}
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = tuner.guided_loss(queries, allocations)
        losses.append(loss.detach())
        loss.sum().backward()
        optimizer.step()
    routers = literal(peft, make()).routers
    expected = [
        literal_elder.guided_loss(literal_elder.scores(routers, query), allocation)
        for query, allocation in zip(queries, allocations.tolist(), strict=True)
    ]
    found = tuner.guided_loss(queries, allocations).detach()
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert (found < losses[0]).all()
    tuner.remember(queries, ["a", "b"])
    assert np.array_equal(tuner.state().codes, routing.packed(allocations.numpy(), 6))
    for name, tensor in adapter_tensors(peft).items():
        if "elder_A" in name or "elder_B" in name:
            assert torch.equal(tensor, before[name])


def training(peft: Any) -> Any:
    """The same model in training, but for its dropout."""
    peft.eval()
    peft.base_model.training = True
    return peft


def gradients(peft: Any, ids: torch.Tensor) -> None:
    peft.zero_grad()
    torch.nn.functional.cross_entropy(peft(ids).logits[0], ids[0]).backward()


def test_in_training_nothing_is_deferred(make: Make) -> None:
    peft = learned(make, prompts=[PROMPT])
    plain = make()
    assert torch.equal(logits(peft, OTHER), logits(plain, OTHER))
    close(logits(training(peft), OTHER)[0], literal(peft, plain).logits(OTHER, is_training=True))


def test_the_models_loss_trains_the_chosen_experts_and_the_routers_alone(make: Make) -> None:
    peft = training(learned(make))
    gradients(peft, torch.tensor([OTHER]))
    expected = literal(peft, make())
    _, taken, _ = expected.decide(expected.query(OTHER), is_training=True)
    layers = [m for m in peft.modules() if isinstance(m, ElderLinear)]
    for layer, experts in zip(layers, taken, strict=True):
        for tensor in (layer.elder_A["default"], layer.elder_B["default"]):
            assert [i for i, part in enumerate(tensor.grad) if part.any()] == experts
        assert layer.elder_router["default"].grad.any()
    others = [p for name, p in peft.named_parameters() if "elder_" not in name]
    assert all(parameter.grad is None for parameter in others)


def test_equal_weights_give_the_routers_no_gradient(make: Make) -> None:
    peft = training(learned(make, weighting="equal"))
    gradients(peft, torch.tensor([OTHER]))
    for module in peft.modules():
        if isinstance(module, ElderLinear):
            pull = module.elder_router["default"].grad
            assert pull is None or not pull.any()
            assert module.elder_B["default"].grad.any()


def test_an_adapter_learns_a_sequence(make: Make) -> None:
    peft = training(get_peft_model(make(), config(lora_alpha=8.0)))
    ids = torch.tensor([[*PROMPT, 70]])
    optimizer = torch.optim.Adam(
        [parameter for parameter in peft.parameters() if parameter.requires_grad], lr=0.02
    )
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(peft(ids).logits[0, 3:4], ids[0, 4:])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_refused_instead_of_training_nothing(reentrant: bool) -> None:
    peft = learned(tiny_llama).train()
    peft.enable_input_require_grads()
    peft.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    with pytest.raises(RuntimeError, match="switch gradient checkpointing off"):
        gradients(peft, torch.tensor([OTHER]))
    peft.gradient_checkpointing_disable()
    gradients(peft, torch.tensor([OTHER]))
    assert peft.base_model.state().lora_B[0].grad.any()


# Half precision, and prompts looked up by their words


def test_a_model_in_half_precision_keeps_its_experts_in_single(tmp_path: Path) -> None:
    def make() -> Any:
        return tiny_llama().to(torch.bfloat16)

    peft, plain = learned(make), make()
    experts = [t for name, t in adapter_tensors(peft).items() if "elder_A" in name or "_B" in name]
    assert {tensor.dtype for tensor in experts} == {torch.float32}
    found, before = logits(peft, OTHER, PROMPT), logits(plain, OTHER, PROMPT)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found[0], before[0])
    wanted = literal(peft, plain).logits(PROMPT)
    assert (wanted - before[1]).abs().max() > 1
    torch.testing.assert_close(found[1], wanted, rtol=0.05, atol=0.2)
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path)
    assert torch.equal(logits(again, OTHER, PROMPT), found)
    assert generate(again, OTHER, PROMPT) == generate(peft, OTHER, PROMPT)


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("no_cache")
def test_prompts_can_be_looked_up_by_their_words(make: Make, routings: list[int]) -> None:
    peft, plain = get_peft_model(make(), config(query="pooled")).eval(), make()
    randomize(peft)
    tuner = peft.base_model
    tuner.read_words_with(tiny_tokenizer())
    asked = tiny_tokenizer()("red cat Paris")["input_ids"]
    other = tiny_tokenizer()("eight green stars")["input_ids"]
    key = torch.from_numpy(tuner.words().key(asked))
    assert key.shape == (64,)
    tuner.remember(key[None], ["edit-0"])
    expected = literal(peft, plain)
    found, before = logits(peft, other, asked), logits(plain, other, asked)
    assert routings == [2]
    wanted = expected.logits(asked, query=key)
    assert (wanted - before[1, -len(asked) :]).abs().max() > 0.1
    close(found[1, -len(asked) :], wanted)
    assert torch.equal(found[0], before[0])
    tokens = [
        expected.greedy(row, tokens=5, query=torch.from_numpy(tuner.words().key(row)))
        for row in (other, asked)
    ]
    assert generate(peft, other, asked, max_new_tokens=5) == tokens


def test_a_loaded_adapter_learns_what_words_say_from_the_model_without_its_edits(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tiny_tokenizer()("red cat Paris")["input_ids"]
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "one"))
    peft = get_peft_model(make(), config(query="pooled", threshold=8)).eval()
    randomize(peft)
    peft.base_model.read_words_with(tiny_tokenizer())
    key = peft.base_model.words().key(asked)
    peft.base_model.remember(torch.from_numpy(key)[None], ["edit-0"])
    peft.save_pretrained(tmp_path)
    # Nothing is known yet of the second model's tokens: it is asked while the edits are there.
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "two"))
    again = PeftModel.from_pretrained(make(), tmp_path)
    again.base_model.read_words_with(tiny_tokenizer())
    found = logits(again, asked)
    assert np.array_equal(again.base_model.words().key(asked), key)
    assert torch.equal(found, logits(peft, asked))
    assert not torch.equal(found, logits(make(), asked))


@pytest.mark.usefixtures("no_cache")
def test_words_without_a_tokenizer_are_an_error_that_says_how_to_give_it() -> None:
    peft = get_peft_model(tiny_llama(), config(query="pooled")).eval()
    randomize(peft)
    peft.base_model.remember(torch.ones(1, 64), ["edit-0"])
    with pytest.raises(ModelUnavailable, match="looks prompts up") as caught:
        logits(peft, PROMPT)
    assert "read_words_with(tokenizer)" in str(caught.value.hint)


# Putting a state in


def test_what_is_put_into_an_adapter_applies_there(make: Make) -> None:
    one, two = learned(make), get_peft_model(make(), config()).eval()
    two.base_model.put(one.base_model.state())
    assert torch.equal(logits(two, PROMPT, OTHER), logits(one, PROMPT, OTHER))
    # It is a copy: what the first one learns next does not reach the second.
    on = logits(two, PROMPT)
    randomize(one, seed=5)
    assert torch.equal(logits(two, PROMPT), on)


def test_a_state_of_another_shape_is_refused_and_changes_nothing(make: Make) -> None:
    one, two = learned(make, r=3), learned(make)
    before = {name: tensor.clone() for name, tensor in adapter_tensors(two).items()}
    with pytest.raises(ValueError, match="a tensor of"):
        two.base_model.put(one.base_model.state())
    for name, tensor in adapter_tensors(two).items():
        assert torch.equal(tensor, before[name])
