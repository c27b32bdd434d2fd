"""ELDER adapters saved, loaded, switched off, taken off, and beside each other."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from elders import (
    OTHER,
    PROMPT,
    SECOND,
    Make,
    adapter_tensors,
    close,
    config,
    generate,
    learned,
    literal,
    logits,
    queries_of,
    randomize,
)
from peft import PeftModel, get_peft_model
from tiny import tiny_gpt2, tiny_llama

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


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
assert not any("editkit" in type(finder).__module__ for finder in sys.meta_path)
"""


@pytest.mark.parametrize(
    "first",
    [
        # transformers asks whether PEFT could be found, long before anybody imports it.
        "import editkit.methods.elder.peft; assert importlib.util.find_spec('peft')",
        "import peft; import editkit.methods.elder.peft",
    ],
    ids=["ours-first", "peft-first"],
)
def test_a_fresh_process_loads_an_adapter_after_importing_its_registration(
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
    with pytest.raises(ValueError, match="only one ELDER adapter can be active"):
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
        ({"query": "pooled"}, "the same kind of query, 'state'"),
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
    with pytest.raises(ValueError, match="does not match"):
        two.base_model.put(one.base_model.state())
    for name, tensor in adapter_tensors(two).items():
        assert torch.equal(tensor, before[name])
