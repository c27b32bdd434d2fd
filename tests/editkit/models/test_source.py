from __future__ import annotations

import pytest

from editkit.errors import ModelUnavailable, UnknownModel
from editkit.models.source import resolve


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_alias_resolves_to_its_row():
    source = resolve("GPT2-XL")
    assert (source.kind, source.name) == ("alias", "gpt2-xl")
    assert source.alias is not None
    assert source.hub_id == source.alias.hub_id


def test_a_hub_id_with_an_alias_resolves_to_the_alias_so_both_share_a_copy():
    assert resolve("HuggingFaceTB/SmolLM2-135M-Instruct").name == "smollm2-135m"


def test_another_hub_id_resolves_to_the_hub():
    source = resolve("owner/some.model-1")
    assert (source.kind, source.name, source.hub_id) == ("hub", *["owner/some.model-1"] * 2)


def test_an_existing_folder_comes_before_an_alias(here):
    (here / "gpt2").mkdir()
    (here / "gpt2" / "config.json").write_text("{}")
    assert resolve("gpt2").kind == "folder"
    assert resolve("gpt2").path == here / "gpt2"


def test_a_folder_without_a_model_does_not_hide_an_alias(here):
    (here / "gpt2").mkdir()
    assert resolve("gpt2").kind == "alias"


def test_a_folder_in_the_form_of_a_hub_id_is_a_folder(here):
    (here / "owner" / "model").mkdir(parents=True)
    (here / "owner" / "model" / "config.json").write_text("{}")
    assert resolve("owner/model").kind == "folder"
    assert resolve("owner/model").name == "model"


def test_a_gguf_file_is_known_by_its_ending(here):
    (here / "My.Q4.GGUF").write_bytes(b"GGUF")
    source = resolve("My.Q4.GGUF")
    assert (source.kind, source.name) == ("gguf", "My.Q4")


def test_the_home_folder_may_be_written_as_a_tilde(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    (here / "m").mkdir()
    (here / "m" / "config.json").write_text("{}")
    assert resolve("~/m").path == here / "m"


@pytest.mark.parametrize(
    "name", ["./nowhere", "../nowhere", "/no/where", "~/no-where-at-all", "model.gguf", "a/b/c"]
)
def test_a_path_that_does_not_exist_is_said_not_to_exist(name, here):
    with pytest.raises(UnknownModel, match="there is no folder or GGUF file") as caught:
        resolve(name)
    assert caught.value.name == name
    assert repr(name) in str(caught.value)
    assert str(here) in (caught.value.hint or "")


def test_an_unknown_name_is_answered_with_close_ones(here):
    with pytest.raises(UnknownModel, match="no model named 'smolm2-135'") as caught:
        resolve("smolm2-135")
    assert caught.value.matches[0] == "smollm2-135m"
    assert "did you mean smollm2-135m" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["x" * 5000, "~no-such-user-here/model"])
def test_a_name_that_the_system_cannot_look_up_is_unknown(name, here):
    with pytest.raises(UnknownModel, match="cannot be looked up"):
        resolve(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name, here):
    with pytest.raises(UnknownModel, match="empty"):
        resolve(name)


@pytest.mark.parametrize(
    "name",
    ["owner/bad name", "owner/", "a/..", "-x/y", "owner/na?me", "a/b--c", "a--b/c"],
)
def test_what_no_hub_id_can_be_is_not_sent_to_the_hub(name, here):
    with pytest.raises(UnknownModel):
        resolve(name)


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        (None, "config.json, safetensors"),
        ("tiny.gguf", "tiny.gguf"),
        ("adapter_config.json", "adapter"),
    ],
)
def test_a_folder_without_config_says_what_is_missing(file, hint, here):
    folder = here / "folder"
    folder.mkdir()
    if file:
        (folder / file).write_text("")
    with pytest.raises(ModelUnavailable, match=r"has no config\.json") as caught:
        resolve("./folder")
    assert caught.value.reason == "damaged"
    assert hint in (caught.value.hint or "")


def test_a_single_weights_file_is_answered_with_its_folder(here):
    (here / "model.safetensors").write_text("")
    with pytest.raises(UnknownModel, match="not a GGUF file") as caught:
        resolve("model.safetensors")
    assert str(here) in (caught.value.hint or "")
