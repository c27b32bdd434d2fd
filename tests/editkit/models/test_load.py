from __future__ import annotations

import json
import logging
import warnings

import pytest
import torch

from editkit.errors import ModelUnavailable, UnknownModel, UnsupportedModel
from editkit.models import load_model
from editkit.models.identity import fingerprint


def change_config(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def test_a_folder_is_loaded_in_eval_mode_with_its_tokenizer(model_folder, llama, progress):
    loaded = load_model(str(model_folder), device="cpu", progress=progress)
    assert loaded.name == "tiny-llama"
    assert loaded.path == model_folder
    assert not loaded.model.training
    assert loaded.tokenizer("ab").input_ids == [3, 4]
    assert loaded.fingerprint == fingerprint(llama)
    assert [stage[0] for stage in progress.stages] == [
        "Loading tiny-llama",
        "Identifying tiny-llama",
    ]
    prompt = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert torch.equal(loaded.model(prompt).logits, llama(prompt).logits)


def test_loading_is_silent_and_leaves_the_settings_of_others_alone(model_folder, capfd):
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging as theirs

    before = (
        theirs.get_verbosity(),
        theirs.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
        logging.getLogger("huggingface_hub").level,
        list(warnings.filters),
    )
    load_model(model_folder, device="cpu")
    after = (
        theirs.get_verbosity(),
        theirs.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
        logging.getLogger("huggingface_hub").level,
        list(warnings.filters),
    )
    assert after == before
    assert capfd.readouterr() == ("", "")


def test_a_loaded_pair_is_taken_as_it_is(make_llama, make_tokenizer):
    model, tokenizer = make_llama().train(), make_tokenizer()
    loaded = load_model((model, tokenizer))
    assert loaded.model is model
    assert loaded.tokenizer is tokenizer
    assert model.training
    assert (loaded.name, loaded.path) == ("LlamaForCausalLM", None)
    assert loaded.fingerprint == fingerprint(model)


@pytest.mark.parametrize(
    ("origin", "name"),
    [("/a/b/my-model", "my-model"), ("owner/model", "owner/model"), ("gpt2", "gpt2")],
)
def test_a_pair_is_called_after_where_it_came_from(origin, name, llama, make_tokenizer):
    llama.config.name_or_path = llama.name_or_path = origin
    assert load_model((llama, make_tokenizer())).name == name


def test_a_model_without_its_tokenizer_is_a_type_error(llama):
    with pytest.raises(TypeError, match="not LlamaForCausalLM; a model without its tokenizer"):
        load_model(llama)


@pytest.mark.parametrize("arrange", [lambda m, t: (t, m), lambda m, t: (m,), lambda m, t: (m, m)])
def test_a_pair_of_the_wrong_kind_or_order_is_a_type_error(arrange, llama, make_tokenizer):
    with pytest.raises(TypeError, match=r"given as \(model, tokenizer\)"):
        load_model(arrange(llama, make_tokenizer()))


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_the_dtype_may_be_named(dtype, model_folder):
    assert load_model(model_folder, dtype=dtype, device="cpu").model.dtype is torch.bfloat16


@pytest.mark.parametrize("dtype", ["int8", "float", "nonsense", "nn"])
def test_a_dtype_that_weights_cannot_have_is_refused(dtype, model_folder):
    if dtype == "float":
        assert load_model(model_folder, dtype=dtype, device="cpu").model.dtype is torch.float32
        return
    with pytest.raises(ValueError, match=repr(dtype)):
        load_model(model_folder, dtype=dtype)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_runs_in_float32_on_the_cpu(
    half, named, make_llama, make_tokenizer, tmp_path
):
    make_llama().to(half).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    if not named:
        change_config(tmp_path, dtype=None, torch_dtype=None)
    assert load_model(tmp_path, device="cpu").model.dtype is torch.float32


def test_double_precision_is_kept(make_llama, make_tokenizer, tmp_path):
    make_llama().double().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path, device="cpu").model.dtype is torch.float64


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device, model_folder):
    with pytest.raises(ValueError, match=device):
        load_model(model_folder, device=device)


def test_an_encoder_decoder_is_loaded_as_one(tmp_path, make_tokenizer):
    from transformers import T5Config, T5ForConditionalGeneration

    T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=32, d_ff=32, d_kv=8, num_layers=1, num_heads=4)
    ).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    assert type(loaded.model).__name__ == "T5ForConditionalGeneration"


def test_a_sequence_classifier_is_loaded_as_one(tmp_path, make_llama, make_tokenizer):
    from transformers import LlamaForSequenceClassification

    LlamaForSequenceClassification(make_llama().config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    assert type(loaded.model).__name__ == "LlamaForSequenceClassification"


def damaged(folder) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable, match="tiny-llama") as caught:
        load_model(folder, device="cpu")
    assert caught.value.reason == "damaged"
    assert caught.value.__cause__ is not None or "lack" in str(caught.value)
    assert str(folder) in (caught.value.hint or "")
    return caught.value


def test_truncated_weights_are_damaged(model_folder):
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    damaged(model_folder)


def test_weights_cut_within_the_header_are_damaged(model_folder):
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20])
    damaged(model_folder)


def test_a_hostile_header_length_is_damaged_and_asks_for_no_memory(model_folder):
    change_config(model_folder, dtype=None)
    weights = model_folder / "model.safetensors"
    weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])
    damaged(model_folder)


def test_missing_weights_are_damaged(model_folder):
    (model_folder / "model.safetensors").unlink()
    damaged(model_folder)


def test_a_config_that_is_no_json_is_damaged(model_folder):
    (model_folder / "config.json").write_text('{"model_type": "llama",')
    damaged(model_folder)


def test_a_weight_left_out_is_named_instead_of_drawn_at_random(model_folder):
    from safetensors.torch import load_file, save_file

    weights = model_folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "lack 1 weights, e.g. 'model.layers.1.mlp.up_proj.weight'" in str(damaged(model_folder))


def test_weights_of_another_shape_are_damaged(model_folder):
    change_config(model_folder, intermediate_size=50)
    damaged(model_folder)


@pytest.mark.parametrize("text", [None, "{"])
def test_a_missing_or_broken_tokenizer_is_damaged(text, model_folder):
    for path in model_folder.glob("tokenizer*"):
        path.unlink()
    if text:
        (model_folder / "tokenizer.json").write_text(text)
    damaged(model_folder)


def test_code_that_comes_with_a_model_is_not_run_unasked(model_folder, tmp_path):
    ran = tmp_path / "ran"
    (model_folder / "theirs.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    change_config(
        model_folder,
        model_type="theirs",
        auto_map={"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"},
    )
    with pytest.raises(ModelUnavailable, match="its own Python code") as caught:
        load_model(model_folder, device="cpu")
    assert caught.value.reason == "trust_remote_code"
    assert "trust_remote_code=True" in (caught.value.hint or "")
    assert not ran.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no-such-thing"},
        {"model_type": "vit", "architectures": ["ViTModel"]},
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
    ],
)
def test_an_architecture_that_cannot_be_edited_is_unsupported(changes, model_folder):
    change_config(model_folder, **changes)
    with pytest.raises(UnsupportedModel):
        load_model(model_folder, device="cpu")


def test_an_unknown_name_fetches_nothing(tmp_path):
    with pytest.raises(UnknownModel):
        load_model("no-such-model-anywhere")
    assert not (tmp_path / "editkit-home").exists()
