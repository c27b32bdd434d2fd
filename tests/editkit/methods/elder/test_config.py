"""What an ELDER adapter refuses: settings, places, other models' adapters, damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import tiny_gpt2, tiny_llama

import editkit
from editkit.errors import UnknownSite
from editkit.methods.elder.peft.tuner import ElderLinear

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.tensor([[40, 41, 42, 43], [60, 61, 62, 63]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


def config(**changes: Any) -> editkit.ElderConfig:
    return editkit.ElderConfig(**{"r": 2, "threshold": 2, "layers_to_transform": [1, 2], **changes})


# Settings


def test_the_defaults_are_the_papers_constants() -> None:
    found = editkit.ElderConfig()
    assert (found.r, found.num_experts, found.top_k, found.threshold) == (8, 4, 2, 12)
    assert (found.weighting, found.experts, found.span) == ("scores", "own", "sequence")
    assert found.query == "state"
    assert editkit.ElderConfig(r=4, lora_alpha=6).scaling == 1.5


@pytest.mark.parametrize("field", ["r", "num_experts", "top_k", "threshold"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_a_count_that_is_no_whole_number_from_1_on_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a positive integer, not {value!r}"):
        editkit.ElderConfig(**{field: value})


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_an_alpha_that_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="lora_alpha must be positive, not"):
        editkit.ElderConfig(lora_alpha=value)


def test_more_experts_in_use_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k must be at most num_experts, 4, not 5"):
        editkit.ElderConfig(top_k=5)
    assert editkit.ElderConfig(top_k=4).top_k == 4


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("weighting", "scores or equal"),
        ("experts", "own or nearest"),
        ("span", "sequence or query"),
        ("query", "state or pooled"),
    ],
)
def test_an_unknown_choice_is_refused_and_the_known_ones_are_named(field: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be {known}, not 'other'"):
        editkit.ElderConfig(**{field: "other"})


# Places


def adapted(model: Any) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, ElderLinear)]


@pytest.mark.parametrize(
    ("make", "changes", "paths"),
    [
        (tiny_llama, {}, ["model.layers.1.mlp.down_proj", "model.layers.2.mlp.down_proj"]),
        (tiny_gpt2, {"layers_to_transform": 3}, ["transformer.h.3.mlp.c_proj"]),
        (
            tiny_llama,
            {"target_modules": ["up_proj", "model.layers.3.mlp.gate_proj"]},
            [f"model.layers.{i}" for i in ("1.mlp.up_proj", "2.mlp.up_proj", "3.mlp.gate_proj")],
        ),
        (
            tiny_gpt2,
            {"target_modules": r".*\.[02]\.mlp\.c_fc", "layers_to_transform": None},
            ["transformer.h.0.mlp.c_fc", "transformer.h.2.mlp.c_fc"],
        ),
        (
            tiny_llama,
            {"target_modules": ["down_proj"], "exclude_modules": ["model.layers.2.mlp.down_proj"]},
            ["model.layers.1.mlp.down_proj"],
        ),
    ],
    ids=["default", "default-of-one", "names", "pattern", "excluded"],
)
def test_the_layers_that_a_config_names_are_adapted(
    make: Callable[[], Any], changes: dict[str, Any], paths: list[str]
) -> None:
    base = make()
    get_peft_model(base, config(**changes))
    assert adapted(base) == paths


def test_by_default_the_last_six_blocks_from_two_thirds_on_are_adapted() -> None:
    for depth, blocks in ((4, range(4)), (7, range(1, 7)), (30, range(20, 26))):
        base = tiny_llama(num_hidden_layers=depth)
        get_peft_model(base, config(layers_to_transform=None))
        assert adapted(base) == [f"model.layers.{index}.mlp.down_proj" for index in blocks]


def refused(error: type[Exception], message: str, **changes: Any) -> Any:
    """Asserts that a config is refused, and that the model is as it was; returns the error."""
    base = tiny_llama()
    modules, hooks = list(base.modules()), [len(m._forward_hooks) for m in base.modules()]
    with pytest.raises(error, match=message) as caught:
        get_peft_model(base, config(**changes))
    assert list(base.modules()) == modules
    assert [len(module._forward_hooks) for module in base.modules()] == hooks
    assert all(not module._forward_pre_hooks for module in base.modules())
    assert "generate" not in vars(base)
    assert torch.equal(logits(base), logits(tiny_llama()))
    return caught.value


def test_a_module_that_does_not_exist_is_refused_with_close_matches() -> None:
    error = refused(UnknownSite, "no module of the model is named 'dwn_proj'", target_modules=[
        "dwn_proj"
    ])  # fmt: skip
    assert error.matches[0] == "down_proj"
    assert "did you mean down_proj" in str(error.hint)
    error = refused(UnknownSite, "in those layers", target_modules=["zzz"])
    assert error.matches == ()
    assert error.hint is None


@pytest.mark.parametrize("block", [4, 99, -1])
def test_a_block_that_does_not_exist_is_refused(block: int) -> None:
    refused(
        UnknownSite, f"there is no block {block}: 'model.layers' has 4", layers_to_transform=[block]
    )
    refused(UnknownSite, "in those layers", layers_to_transform=[99], target_modules=["down_proj"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("post_attention_layernorm", "is a LlamaRMSNorm, not a linear map"),
        ("embed_tokens", "is a Embedding, not a linear map"),
        ("mlp", "is a LlamaMLP, not a linear map"),
        ("lm_head", "'lm_head' is not inside one of the blocks"),
    ],
)
def test_what_is_no_linear_map_in_a_block_is_refused(name: str, message: str) -> None:
    refused(UnknownSite, message, target_modules=[name], layers_to_transform=None)


def test_a_threshold_beyond_the_length_of_a_code_is_refused() -> None:
    refused(
        ValueError,
        "8 bits .2 layers of 4 experts., not 9",
        threshold=9,
    )
    get_peft_model(tiny_llama(), config(threshold=8))


# Files


def randomized(model: Any, **changes: Any) -> Any:
    """An adapted model that holds an edit for the first row of ``IDS``."""
    peft = get_peft_model(model, config(**changes)).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in peft.named_parameters():
            if "elder_" in name:
                tensor.normal_(std=0.5, generator=noise)
        with peft.base_model.watching() as seen:
            peft(IDS)
    peft.base_model.remember(seen[0][:1, -1], ["edit-0"])
    assert not torch.equal(logits(peft), logits(tiny_llama()))
    return peft


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a saved adapter of the tiny Llama."""
    randomized(tiny_llama()).save_pretrained(tmp_path)
    return tmp_path


def test_an_adapter_of_another_model_is_refused(saved: Path) -> None:
    base = tiny_llama(seed=1)
    before = logits(base)
    with pytest.raises(ValueError, match=r"fingerprint sha256:\w+; this one has sha256:\w+"):
        PeftModel.from_pretrained(base, saved)
    assert adapted(base) == []
    assert torch.equal(logits(base), before)


def test_an_adapter_notes_the_model_that_it_was_made_for() -> None:
    one, same, other = (
        get_peft_model(tiny_llama(seed), config()).peft_config["default"].fingerprint
        for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


def damage(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def without(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[next(name for name in tensors if part in name)]

    return change


def changed(
    part: str, to: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if part in name)
        tensors[name] = to(tensors[name]).contiguous()

    return change


DAMAGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], None], str]] = {
    "no A": (without("1.mlp.down_proj.elder_A"), r"lacks the tensor '.*1\.mlp.*elder_A"),
    "no B": (without("2.mlp.down_proj.elder_B"), r"lacks the tensor '.*2\.mlp.*elder_B"),
    "no router": (without("elder_router"), "lacks the tensor '.*elder_router"),
    "no codes": (without("elder_codes"), "lacks the tensor '.*elder_codes"),
    "another rank": (changed("elder_A", lambda a: a[:, :1]), r"elder_A.*' is \(4, 1, 128\)"),
    "codes of two": (changed("elder_codes", lambda c: c.repeat(2, 1)), r"elder_codes.*\(2, 1\)"),
    "wide codes": (changed("elder_codes", lambda c: c.repeat(1, 2)), r"elder_codes.*\(1, 2\)"),
    "numbers": (changed("elder_codes", lambda c: c.float()), "codes, '.*elder_codes.* damaged"),
    "uneven": (changed("elder_codes", lambda c: c ^ 1), "codes, '.*elder_codes.* are damaged"),
    "another k": (changed("elder_codes", lambda c: c * 0 + 0x11), "codes, .* are damaged"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_adapter_is_named_and_nothing_of_it_is_loaded(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    damage(saved, change)
    base = tiny_llama()
    with pytest.raises(ValueError, match=message + ".*; nothing was loaded"):
        PeftModel.from_pretrained(base, saved)
    assert torch.equal(logits(base), logits(tiny_llama()))
    loaded = load_file(saved / "adapter_model.safetensors")
    for name, tensor in base.named_parameters():
        for kind in ("elder_A", "elder_router"):  # neither random tensor came from the file
            theirs = loaded.get(f"base_model.model.{name.removesuffix('.default')}")
            if kind in name and theirs is not None and theirs.shape == tensor.shape:
                assert not torch.equal(tensor, theirs)


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_adapter_does_not_harm_the_one_that_is_active(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    damage(saved, change)
    peft = randomized(tiny_llama())
    before = logits(peft)
    with pytest.raises(ValueError, match=message):
        peft.load_adapter(saved, "damaged")
    assert torch.equal(logits(peft), before)
    peft.set_adapter("damaged")  # the shell that PEFT leaves behind computes what the model does
    assert torch.equal(logits(peft), logits(tiny_llama()))


def test_bits_behind_the_last_expert_are_damage_too(tmp_path: Path) -> None:
    shape = {"num_experts": 3, "layers_to_transform": [1]}
    randomized(tiny_llama(), **shape).save_pretrained(tmp_path)
    damage(tmp_path, changed("elder_codes", lambda codes: codes | 1))  # 3 bits in use of 8
    with pytest.raises(ValueError, match="are damaged"):
        PeftModel.from_pretrained(tiny_llama(), tmp_path)


def test_codes_and_ids_that_do_not_go_together_are_refused(saved: Path) -> None:
    path = saved / "adapter_config.json"
    settings = json.loads(path.read_text())
    assert settings["edits"] == ["edit-0"]
    path.write_text(json.dumps({**settings, "edits": ["edit-0", "edit-1"]}))
    with pytest.raises(ValueError, match=r"elder_codes.*' is \(1, 1\) and should be \(2, 1\)"):
        PeftModel.from_pretrained(tiny_llama(), saved)


def test_a_saved_config_out_of_its_range_is_refused(saved: Path) -> None:
    path = saved / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "span": "everywhere"}))
    with pytest.raises(ValueError, match="span must be sequence or query, not 'everywhere'"):
        PeftModel.from_pretrained(tiny_llama(), saved)
