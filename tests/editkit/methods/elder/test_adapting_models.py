"""ELDER on models in half precision, quantised, and spread over several places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import int8, save_tiny, tiny_gpt2, tiny_llama, tiny_tokenizer
from torch import nn
from transformers import AutoModelForCausalLM

import editkit
from editkit.kit import Kit

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CAT, TREE = "The red cat is", "tall tree"


def opened(path: Path, model: Any) -> Kit:
    return editkit.open(
        path,
        model=(model, tiny_tokenizer()),
        elder={"r": 4},
        train={"learning_rate": 2e-2, "steps": 80},
    )


def logits(kit: Kit, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return kit.model(torch.tensor([kit.encoder.prompt(prompt)])).logits[0]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_learn_in_single_and_keep_their_own(
    make: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    with opened(tmp_path / "h.db", make().to(dtype)) as kit:
        plain = logits(kit, TREE)
        edit = kit.add(CAT, "blue", method="elder").edit
        assert kit.generate(CAT).fired == (edit.id,)
        assert str(kit.generate(CAT, delivery="free")) == "blue"
        assert logits(kit, CAT).dtype == dtype
        assert torch.equal(logits(kit, TREE), plain)
        state = kit.methods.of("elder")._adaptors.base(1)
        assert state is not None
        assert state.lora_A[0].dtype == torch.float32


def test_a_model_of_quantised_layers_learns(tmp_path: Path) -> None:
    with opened(tmp_path / "h.db", int8(tiny_llama())) as kit:
        plain = logits(kit, CAT)
        assert kit.add(CAT, "blue", method="elder").verified
        kit.rollback("v0")
        assert torch.equal(logits(kit, CAT), plain)


def test_a_model_quantised_by_torchao_learns(tmp_path: Path) -> None:
    torchao = pytest.importorskip(
        "torchao.quantization", reason="torchao is optional; pip install torchao to run this"
    )
    from transformers import TorchAoConfig

    model = AutoModelForCausalLM.from_pretrained(
        save_tiny(tmp_path / "model"),
        quantization_config=TorchAoConfig(torchao.Int8WeightOnlyConfig()),
        device_map="cpu",
    )
    assert type(model.model.layers[2].mlp.down_proj.weight) is not nn.Parameter
    with opened(tmp_path / "h.db", model) as kit:
        plain = logits(kit, CAT)
        assert kit.add(CAT, "blue", method="elder").verified
        kit.rollback("v0")
        assert torch.equal(logits(kit, CAT), plain)


def test_a_model_that_device_map_spread_over_the_disk_follows_and_learns(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    on_disk = {f"model.layers.{index}": "disk" for index in (1, 2, 3)}
    rest = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head")
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={**on_disk, **dict.fromkeys(rest, "cpu")},
        offload_folder=tmp_path / "off",
    )
    assert model.model.layers[2].mlp.down_proj.weight.is_meta
    with opened(tmp_path / "h.db", tiny_llama()) as kit:
        edit = kit.add(CAT, "blue", method="elder").edit
    with opened(tmp_path / "h.db", model) as kit:
        said = kit.generate(CAT, delivery="free")
        assert (said.text, said.fired) == ("blue", (edit.id,))
        assert kit.add(TREE, "two", method="elder").verified
        assert [str(one) for one in kit.generate([CAT, TREE], delivery="free")] == ["blue", "two"]
