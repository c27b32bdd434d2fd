from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_gpt2, tiny_llama, tiny_t5
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from editkit.engines.transformers.site import default_site, find_site
from editkit.errors import UnknownSite, UnsupportedModel

SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "inner"),
    [
        (MistralConfig, "mlp.down_proj"),
        (Qwen2Config, "mlp.down_proj"),
        # A norm after the FFN would undo the length of a value put before it.
        (Gemma3TextConfig, "post_feedforward_layernorm"),
    ],
)
def test_the_ffn_output_is_found_by_structure(config: Any, inner: str) -> None:
    model = AutoModelForCausalLM.from_config(config(**SMALL))
    site = default_site(model)
    assert site.path == f"model.layers.4.{inner}"
    assert (site.block, site.width) == (4, 32)


def test_conv1d_layers_count_as_linear() -> None:
    assert default_site(tiny_gpt2()).path == "transformer.h.2.mlp.c_proj"
    paper = default_site(tiny_gpt2(), preset="paper")
    assert (paper.path, paper.width) == ("transformer.h.2.mlp.c_fc", 256)


def test_the_common_setting_of_llama_2_is_the_papers_preset() -> None:
    with torch.device("meta"):  # the shapes of the real models, without their weights
        llama = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=32, num_attention_heads=4,
                vocab_size=50,
            )
        )  # fmt: skip
    assert default_site(llama, preset="paper").path == "model.layers.27.mlp.down_proj"
    assert default_site(llama).path == "model.layers.21.mlp.down_proj"


def test_a_site_can_be_written_with_brackets() -> None:
    assert (
        find_site(tiny_llama(), "model.layers[1].mlp.up_proj").path == "model.layers.1.mlp.up_proj"
    )


def test_an_unknown_path_names_close_matches() -> None:
    with pytest.raises(UnknownSite, match="there is no module") as caught:
        find_site(tiny_llama(), "model.layers.2.mlp.down_prj")
    assert caught.value.matches[0] == "model.layers.2.mlp.down_proj"
    assert "did you mean" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.norm", "is not inside one of the blocks"),
        ("model.layers.2.mlp", "not a lin"),
    ],
)
def test_a_module_that_cannot_be_a_site_is_refused(path: str, message: str) -> None:
    with pytest.raises(UnknownSite, match=message):
        find_site(tiny_llama(), path)


def test_the_papers_preset_has_the_authors_sites() -> None:
    with torch.device("meta"):
        t5 = T5ForConditionalGeneration(
            T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=6, num_heads=4)
        )
        bert = BertForSequenceClassification(
            BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=12, num_attention_heads=4,
                       intermediate_size=64)
        )  # fmt: skip
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=48, n_head=4))
    assert default_site(t5, preset="paper").path == "encoder.block.4.layer.1.DenseReluDense.wo"
    assert default_site(bert, preset="paper").path == "bert.encoder.layer.10.output.dense"
    assert default_site(gpt2, preset="paper").path == "transformer.h.35.mlp.c_fc"


def test_a_site_in_the_decoder_of_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(UnknownSite, match=r"not inside one of the blocks 'encoder.block.0'") as e:
        find_site(tiny_t5(), "decoder.block.1.layer.2.DenseReluDense.wo")
    assert "encoder" in str(e.value.hint)


def test_a_model_that_neither_generates_nor_classifies_is_refused_by_name() -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=64)  # fmt: skip
    with pytest.raises(UnsupportedModel, match="BertModel neither generates text nor classifies"):
        default_site(BertModel(config))
    with pytest.raises(UnsupportedModel, match="Linear neither"):
        default_site(torch.nn.Linear(2, 2))
