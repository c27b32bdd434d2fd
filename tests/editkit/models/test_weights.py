"""Pickled weights are read only when somebody asked for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import editkit
from editkit.errors import ModelUnavailable
from editkit.models import load_model, pull_model
from editkit.models.sentences import SentenceEncoder
from editkit.models.weights import is_allowed, only_pickled


class Bomb:
    """What runs code when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return Path.touch, (self.ran,)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def index(folder: Path, name: str, file: str) -> None:
    shards = dict.fromkeys(tensors(folder), file)
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": shards}))


@pytest.fixture
def pickled(model_folder: Path) -> Path:
    """A folder as PyTorch alone wrote them."""
    torch.save(tensors(model_folder), model_folder / "pytorch_model.bin")
    (model_folder / "model.safetensors").unlink()
    return model_folder


@pytest.fixture
def nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"unpickled {arguments}")

    monkeypatch.setattr(torch, "load", refuse)


def refused(folder: Path, *words: str) -> None:
    for get in (load_model, pull_model, lambda name: editkit.open(":memory:", model=name)):
        with pytest.raises(ModelUnavailable) as caught:
            get(str(folder))
        assert caught.value.reason == "pickle"
        assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_a_folder_with_pickles_alone_is_refused_and_says_how_to_ask_for_it(pickled):
    refused(pickled, "tiny-llama has no safetensors, only 'pytorch_model.bin'")
    with pytest.raises(ModelUnavailable) as caught:
        load_model(pickled)
    assert "--allow-pickle" in (caught.value.hint or "")
    assert "allow_pickle=True" in (caught.value.hint or "")
    assert "EDITKIT_ALLOW_PICKLE=1" in (caught.value.hint or "")


def test_a_pickle_that_runs_code_does_not_run_it(pickled, tmp_path):
    torch.save({"x": Bomb(tmp_path / "ran")}, pickled / "pytorch_model.bin")
    refused(pickled)
    assert not (tmp_path / "ran").exists()


def test_asked_for_pickles_load_by_argument_and_by_environment(pickled, llama, monkeypatch):
    prompt = torch.tensor([[3, 4, 5]])
    model = load_model(pickled, device="cpu", allow_pickle=True).model
    with torch.no_grad():
        assert torch.equal(model(prompt).logits, llama(prompt).logits)
    with editkit.open(":memory:", model=str(pickled), read_only=True, allow_pickle=True) as kit:
        assert kit.generate("ab", max_new_tokens=1).version == "v0"
    monkeypatch.setenv("EDITKIT_ALLOW_PICKLE", "1")
    assert load_model(pickled, device="cpu").path == pickled
    with pytest.raises(ModelUnavailable):
        load_model(pickled, allow_pickle=False)


@pytest.mark.parametrize(
    ("value", "allowed"), [("1", True), ("true", True), ("0", False), ("", False), ("no", False)]
)
def test_the_environment_asks_with_a_yes_only(value, allowed, monkeypatch):
    monkeypatch.setenv("EDITKIT_ALLOW_PICKLE", value)
    assert is_allowed(None) is allowed
    assert is_allowed(True)
    assert not is_allowed(False)


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_safetensors_are_taken_where_both_are_there(model_folder):
    torch.save(tensors(model_folder), model_folder / "pytorch_model.bin")
    index(model_folder, "pytorch_model.bin.index.json", "pytorch_model.bin")
    for allowed in (False, True):
        assert load_model(model_folder, device="cpu", allow_pickle=allowed).path == model_folder


@pytest.mark.usefixtures("nothing_is_unpickled")
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.txt", "model"])
def test_an_index_of_safetensors_that_names_something_else_is_refused(file, model_folder):
    index(model_folder, "model.safetensors.index.json", file)
    torch.save(tensors(model_folder), model_folder / file)
    refused(model_folder, repr(file), "'model.safetensors.index.json'")


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("file", ["../x.safetensors", "/tmp/x.safetensors", "..\\x.safetensors"])
def test_an_index_that_leads_out_of_the_folder_is_refused_even_if_pickles_are_allowed(
    kind, file, model_folder
):
    index(model_folder, f"{kind}.index.json", file)
    with pytest.raises(ModelUnavailable, match="leads out of its folder") as caught:
        load_model(model_folder, allow_pickle=True)
    assert caught.value.reason == "damaged"


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_a_configuration_that_names_a_pickle_is_refused(model_folder):
    torch.save(tensors(model_folder), model_folder / "adapter_model.bin")
    change_config(model_folder, transformers_weights="adapter_model.bin")
    with pytest.raises(ModelUnavailable, match="'adapter_model.bin'") as caught:
        load_model(model_folder)
    assert caught.value.reason == "pickle"


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_so_is_one_that_only_some_versions_of_transformers_read(model_folder):
    torch.save(tensors(model_folder), model_folder / "adapter_model.bin")
    (model_folder / "config.4.0.0.json").write_bytes((model_folder / "config.json").read_bytes())
    config = json.loads((model_folder / "config.json").read_text())
    config["transformers_weights"] = "adapter_model.bin"
    (model_folder / "config.4.0.0.json").write_text(json.dumps(config))
    change_config(model_folder, configuration_files=["config.4.0.0.json"])
    with pytest.raises(ModelUnavailable, match="'adapter_model.bin'"):
        load_model(model_folder)


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_a_pickled_adapter_beside_a_whole_model_is_refused(model_folder):
    torch.save({}, model_folder / "adapter_model.bin")
    assert load_model(model_folder, device="cpu").path == model_folder
    (model_folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(model_folder, "'adapter_model.bin'")


def test_a_configuration_of_a_billion_layers_is_refused_before_one_is_built(model_folder):
    change_config(model_folder, num_hidden_layers=10**9)
    with pytest.raises(ModelUnavailable, match="says that it has 1000000000 layers") as caught:
        load_model(model_folder)
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 1}', "[" * 100_000])
def test_an_index_that_does_not_parse_is_left_to_the_loader(text, model_folder):
    (model_folder / "model.safetensors.index.json").write_text(text)
    assert load_model(model_folder, device="cpu").path == model_folder


@pytest.mark.usefixtures("nothing_is_unpickled")
def test_a_sentence_encoder_follows_the_same_rule(tmp_path, make_tokenizer, monkeypatch):
    from transformers import BertConfig, BertModel

    encoder = BertModel(
        BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32,
        )
    )  # fmt: skip
    encoder.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    state = tensors(tmp_path)
    assert SentenceEncoder(str(tmp_path)).width == 32
    change_config(tmp_path, transformers_weights="adapter_model.bin")
    with pytest.raises(ModelUnavailable, match="'adapter_model.bin'") as caught:
        SentenceEncoder(str(tmp_path))
    assert caught.value.reason == "pickle"
    change_config(tmp_path, transformers_weights=None)
    (tmp_path / "model.safetensors").unlink()
    monkeypatch.undo()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=r"only 'pytorch_model\.bin'"):
        SentenceEncoder(str(tmp_path))
    assert SentenceEncoder(str(tmp_path), allow_pickle=True).width == 32


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["model.safetensors", "pytorch_model.bin", "training_args.bin"], None),
        (["model-00001-of-00002.safetensors"], None),
        (["weights.safetensors", "optimizer.pt"], None),
        (["config.json", "tokenizer.model"], None),
        (["optimizer.pt", "pytorch_model-00001-of-00002.bin"], "pytorch_model-00001-of-00002.bin"),
        (["adapter_model.safetensors", "pytorch_model.bin"], "pytorch_model.bin"),
        (["model.ckpt"], "model.ckpt"),
        (["consolidated.00.pth"], "consolidated.00.pth"),
        (["tf_model.h5"], "tf_model.h5"),
        (["flax_model.msgpack"], "flax_model.msgpack"),
    ],
)
def test_pickles_are_told_by_their_names_where_nothing_is_safetensors(names, file):
    assert only_pickled(names) == file


@pytest.mark.parametrize("file", ["model.ckpt", "model.pt", "tf_model.h5", "flax_model.msgpack"])
def test_a_format_that_nothing_here_reads_is_refused_without_offering_to(file, pickled):
    (pickled / "pytorch_model.bin").rename(pickled / file)
    with pytest.raises(ModelUnavailable, match=f"only '{file}'") as caught:
        load_model(pickled)
    assert "--allow-pickle" not in (caught.value.hint or "")
    assert "convert it to safetensors" in (caught.value.hint or "")
