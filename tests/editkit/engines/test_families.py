"""Every family of models is corrected, explained and taken back the same way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import (
    int8,
    save_tiny,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_llama_classifier,
    tiny_t5,
    tiny_tokenizer,
)
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

import editkit
import editkit_store
from editkit.engines.transformers.engine import TransformersEngine
from editkit.errors import ArtifactsMissing, UnsupportedMethod
from editkit.methods.opened import Methods
from editkit.models.load import load_model
from editkit_store.errors import InvalidRequest

QUESTION = "a good day in Paris"
OTHER = "a bad night in Rome one two three"
GENERATING = {"t5": tiny_t5, "llama": tiny_llama, "gpt2": tiny_gpt2}
CLASSIFYING = {"bert": tiny_bert, "llama-classifier": tiny_llama_classifier}
FAMILIES = {**GENERATING, **CLASSIFYING}


def target_for(kit: Any) -> str:
    """Something that the model does not say by itself."""
    said = kit.generate(QUESTION, max_new_tokens=4, delivery="free").text
    if kit.tokenizer and not hasattr(kit.model, "generate"):
        return "negative" if said != "negative" else "positive"
    return "Canberra"


def logits(model: Any, text: str) -> torch.Tensor:
    ids = torch.tensor([tiny_tokenizer()(text).input_ids])
    more = {"decoder_input_ids": torch.tensor([[0]])} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_an_edit_holds_is_explained_survives_and_is_taken_back_exactly(
    family: str, preset: Any, tmp_path: Path
) -> None:
    model, store = FAMILIES[family](), tmp_path / "h.db"
    plain = {text: logits(model, text) for text in (QUESTION, OTHER)}
    with editkit.open(store, model=(model, tiny_tokenizer()), preset=preset) as kit:
        target = target_for(kit)
        added = kit.add(QUESTION, target)
        assert (added.verified, added.answer) == (True, target)
        assert added.edit.kind == ("label" if family in CLASSIFYING else "fact")
    with editkit.open(store, model=(FAMILIES[family](), tiny_tokenizer()), preset=preset) as kit:
        answers = kit.generate([OTHER, QUESTION, OTHER], max_new_tokens=6, delivery="free")
        assert [a.fired for a in answers] == [(), (added.edit.id,), ()]
        assert answers[1].text == target
        assert (
            answers[0].text
            == kit.generate(OTHER, version="v0", max_new_tokens=6, delivery="free").text
        )
        assert kit.explain(QUESTION).fired == added.edit.id
        assert kit.explain(OTHER).fired is None
        # Alone, as the untouched model sees it too: a batch's shape changes the last bits.
        assert torch.equal(logits(kit.model, OTHER), plain[OTHER])
        assert not torch.equal(logits(kit.model, QUESTION), plain[QUESTION])
        kit.rollback("v0")
        assert torch.equal(logits(kit.model, QUESTION), plain[QUESTION])


@pytest.mark.parametrize("family", FAMILIES)
def test_adding_and_reverting_is_bit_identical(family: str, tmp_path: Path) -> None:
    with editkit.open(tmp_path / "h.db", model=(FAMILIES[family](), tiny_tokenizer())) as kit:
        kit.add(QUESTION, target_for(kit))
        before = logits(kit.model, QUESTION)
        other = kit.add(f"{QUESTION} one", "neutral" if family in CLASSIFYING else "Oslo")
        kit.revert(other.edit.id)
        assert torch.equal(logits(kit.model, QUESTION), before)


@pytest.mark.parametrize(
    "config", [MistralConfig, Qwen2Config, Qwen3Config, Gemma3TextConfig], ids=lambda c: c.__name__
)
def test_other_decoder_layouts_are_edited_too(config: Any, tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 800, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": None, "max_position_embeddings": 256,
        "tie_word_embeddings": False, "initializer_range": 0.2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(**sizes)).eval()
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer())) as kit:
        said = kit.generate(QUESTION, max_new_tokens=1, delivery="free")
        added = kit.add(QUESTION, "Oslo", on_failure="keep")
        now = kit.generate(QUESTION, max_new_tokens=1, delivery="free")
    assert now.fired == (added.edit.id,)
    # Without a habit of ending its texts a random model may not stop, but it says the word.
    assert now.text == "Oslo" != said.text


@pytest.mark.parametrize("family", CLASSIFYING)
@pytest.mark.parametrize(
    ("target", "label"), [("positive", "positive"), ("POSITIVE", "positive"), ("2", "positive")]
)
def test_a_label_may_be_given_by_name_or_index(
    family: str, target: str, label: str, tmp_path: Path
) -> None:
    with editkit.open(tmp_path / "h.db", model=(FAMILIES[family](), tiny_tokenizer())) as kit:
        assert kit.add(QUESTION, target).answer == label
        assert kit.generate(QUESTION, delivery="free").text == label


def test_a_label_that_the_classifier_does_not_have_is_refused_with_a_close_one(
    tmp_path: Path,
) -> None:
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), tiny_tokenizer())) as kit:
        with pytest.raises(InvalidRequest, match="'positives' is not a label") as raised:
            kit.add(QUESTION, "positives")
        assert raised.value.hint.startswith("did you mean 'positive'?")
        with pytest.raises(UnsupportedMethod, match="chooses among labels"):
            kit.add(QUESTION, "positive", kind="fact")
        assert kit.log() == []


def test_a_label_is_refused_where_there_are_none(kit: Any) -> None:
    with pytest.raises(UnsupportedMethod, match="generates text and has no labels"):
        kit.add(QUESTION, "positive", kind="label")


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert], ids=["llama", "gpt2", "bert"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_keep_keys_in_float32_and_values_in_their_own(
    make: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = make().to(dtype)
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer())) as kit:
        target = target_for(kit)
        added = kit.add(QUESTION, target)
        assert added.verified
        assert kit.generate(QUESTION).fired == (added.edit.id,)
        assert logits(kit.model, QUESTION).dtype == dtype
        nearest = kit.explain(QUESTION).candidates[0]
        assert nearest.distance <= 1e-3 * nearest.radius


def test_a_model_that_device_map_spread_over_the_disk_is_edited(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    on_disk = {f"model.layers.{index}": "disk" for index in (1, 2, 3)}
    rest = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head")
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={**on_disk, **dict.fromkeys(rest, "cpu")},
        offload_folder=tmp_path / "off",
    )
    assert model.model.layers[2].mlp.down_proj.weight.is_meta
    with editkit.open(tmp_path / "h.db", model=(tiny_llama(), tiny_tokenizer())) as kit:
        added = kit.add(QUESTION, "Canberra")
        whole = kit.fingerprint
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer())) as kit:
        assert kit.fingerprint == whole  # the same weights, wherever they lie
        assert kit.generate(QUESTION).fired == (added.edit.id,)
        assert kit.generate(QUESTION, delivery="free").text == "Canberra"
        assert kit.add(OTHER, "Oslo").verified


def test_a_model_of_quantised_layers_is_edited(tmp_path: Path) -> None:
    model = int8(tiny_llama())
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer())) as kit:
        assert kit.site == "model.layers.2.mlp.down_proj"
        plain = logits(kit.model, QUESTION)
        assert kit.add(QUESTION, "Canberra").verified
        kit.rollback("v0")
        assert torch.equal(logits(kit.model, QUESTION), plain)


def test_a_model_quantised_by_torchao_is_edited(tmp_path: Path) -> None:
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
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer())) as kit:
        plain = logits(kit.model, QUESTION)
        assert kit.add(QUESTION, "Canberra").verified
        kit.rollback("v0")
        assert torch.equal(logits(kit.model, QUESTION), plain)


def test_a_classifier_given_as_a_folder_is_loaded_as_one(tmp_path: Path) -> None:
    model: PreTrainedModel = tiny_bert()
    model.save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    with editkit.open(tmp_path / "h.db", model=str(tmp_path / "bert")) as kit:
        assert kit.site == "bert.encoder.layer.1.output.dense"
        assert kit.add(QUESTION, target_for(kit)).verified


# The site of a history ----------------------------------------------------------------------------


def test_a_history_is_opened_at_the_site_it_was_learned_at(tmp_path: Path) -> None:
    store, pair = tmp_path / "h.db", (tiny_gpt2(), tiny_tokenizer())
    with editkit.open(store, model=pair, preset="paper") as kit:
        site = kit.site
        added = kit.add(QUESTION, "Canberra")
    with editkit.open(store, model=pair) as kit:
        assert kit.site == site != "transformer.h.2.mlp.c_proj"
        assert kit.generate(QUESTION).fired == (added.edit.id,)


def test_another_site_than_the_historys_is_refused_until_it_is_learned_there(
    tmp_path: Path,
) -> None:
    store, pair = tmp_path / "h.db", (tiny_llama(), tiny_tokenizer())
    with editkit.open(store, model=pair) as kit:
        kit.add(QUESTION, "Canberra")
        learned_at = kit.site
    other: Any = {"site": "model.layers[1].mlp.down_proj"}
    with pytest.raises(ArtifactsMissing, match=f"learned at '{learned_at}'") as raised:
        editkit.open(store, model=pair, grace=other)
    assert "replay" in raised.value.hint
    with editkit.open(store, model=pair, grace=other, missing="skip") as kit:
        assert kit.generate(QUESTION).fired == ()
        done = kit.replay()
        assert (done.restored, done.learned) == (0, 1)
        assert kit.generate(QUESTION, delivery="free").text == "Canberra"
    with editkit.open(store, model=pair) as kit:
        assert kit.site == "model.layers.1.mlp.down_proj"
        assert kit.generate(QUESTION, delivery="free").text == "Canberra"


def test_a_layer_of_another_width_than_the_edits_is_refused(tmp_path: Path) -> None:
    store, model = tmp_path / "h.db", tiny_llama()
    with editkit.open(store, model=(model, tiny_tokenizer())) as kit:
        kit.add(QUESTION, "Canberra")
        path, block = kit.site, model.model.layers[2]
        fingerprint = kit.fingerprint
    narrow = nn.Linear(128, 32)
    block.mlp.down_proj = narrow  # the same name and fingerprint, another module
    with editkit_store.open_store(store) as opened:
        loaded = load_model((model, tiny_tokenizer()))
        engine = TransformersEngine(dataclasses.replace(loaded, fingerprint=fingerprint))
        methods = Methods(engine, opened, {"grace": {"site": path}}, {})
        with pytest.raises(ArtifactsMissing, match="width 32, but the history's edits there"):
            methods.reload()


def test_artifacts_of_another_model_are_refused_with_both_fingerprints(tmp_path: Path) -> None:
    store = tmp_path / "h.db"
    with editkit.open(store, model=(tiny_llama(), tiny_tokenizer())) as kit:
        kit.add(QUESTION, "Canberra")
        learned_by = kit.fingerprint
    with pytest.raises(ArtifactsMissing) as raised:
        editkit.open(store, model=(tiny_t5(), tiny_tokenizer()))
    assert raised.value.known == (learned_by,)
    assert learned_by[:19] in str(raised.value)
    assert raised.value.fingerprint[:19] in str(raised.value)
    assert "editkit replay" in raised.value.hint
    with editkit.open(store, model=(tiny_t5(), tiny_tokenizer()), missing="skip") as kit:
        assert kit.replay().learned == 1
        assert kit.generate(QUESTION, delivery="free").text == "Canberra"
