"""models list and pull, without fetching anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from editkit.models import cache, list_models


def test_models_list_prints_every_alias(sh, folder):
    ran = sh("models", "list", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.json == [info.model_dump(mode="json") for info in list_models()]
    assert {"smollm2-135m", "llama2-7b", "gpt2-xl", "t5-small"} <= {one["name"] for one in ran.json}
    assert sh("models", "list", "--nl").lines == ran.json


def test_models_list_as_a_table_fits_and_names_the_default(sh, folder):
    ran = sh("models", "list")
    assert (ran.code, ran.stderr) == (0, "")
    row = next(line for line in ran.stdout.splitlines() if line.startswith("smollm2-135m"))
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in row
    assert "default" in row


def test_pull_of_an_unknown_model_names_close_matches(sh, folder):
    ran = sh("models", "pull", "gtp2")
    assert (ran.code, ran.stdout) == (1, "")
    assert "error: no model named 'gtp2'" in ran.stderr
    assert "gpt2" in ran.stderr.splitlines()[1]


def test_pull_of_a_folder_finds_it_in_its_place(sh, folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "config.json").write_text("{}")
    ran = sh("models", "pull", "./mine", "--json")
    assert ran.code == 0
    assert ran.json["path"] == str(folder / "mine")


def test_pull_of_a_folder_without_a_model_says_what_is_missing(sh, folder):
    (folder / "empty").mkdir()
    ran = sh("models", "pull", "./empty")
    assert (ran.code, ran.stdout) == (1, "")
    assert "config.json" in ran.stderr


@pytest.fixture
def pickled(folder, tiny_model):
    """A folder with the tiny model as PyTorch wrote models before safetensors."""
    import torch
    from safetensors.torch import load_file

    place = Path(shutil.copytree(tiny_model, folder / "old"))
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    return place


ASK = ("generate", "ab", "--max-new-tokens", "1")


def test_a_pickled_model_is_refused_with_one_line_and_a_hint_unless_it_is_asked_for(sh, pickled):
    for line in (ASK, ("add", "--prompt", "ab", "--target", "c"), ("models", "pull", "./old")):
        named = () if line[0] == "models" else ("--model", "./old")
        ran = sh(*line, *named)
        assert (ran.code, ran.stdout) == (1, "")
        error, hint = ran.stderr.splitlines()[-2:]
        assert error == "error: old has no safetensors, only 'pytorch_model.bin'; it was not read"
        assert "--allow-pickle" in hint
    assert sh(*ASK, "--model", "./old", "--allow-pickle").code == 0
    assert sh("models", "pull", "./old", "--allow-pickle").code == 0
    assert not Path("history.db").exists()


def test_the_environment_may_ask_for_pickles_and_take_it_back(sh, pickled, monkeypatch):
    monkeypatch.setenv("EDITKIT_ALLOW_PICKLE", "1")
    assert sh(*ASK, "--model", "./old").code == 0
    monkeypatch.setenv("EDITKIT_ALLOW_PICKLE", "0")
    assert sh(*ASK, "--model", "./old").code == 1


def test_an_evaluation_reads_pickles_only_when_it_is_told_to(sh, pickled):
    Path("edits.jsonl").write_text('{"prompt": "ab", "target": "c"}\n')
    line = ("eval", "--data", "edits.jsonl", "--model", "./old", "--method", "base", "--quiet")
    assert sh(*line).code == 1
    assert sh(*line, "--allow-pickle").code == 0


def test_a_cached_model_that_somebody_changed_is_refused_with_one_line_and_a_hint(
    sh, folder, tiny_model, monkeypatch
):
    monkeypatch.setenv("EDITKIT_HOME", str(folder / "home"))
    with cache.staging("owner--tiny") as staging:
        shutil.copytree(tiny_model, staging, dirs_exist_ok=True)
        receipt = cache.Receipt(name="owner/tiny", source="hub")
        cached = cache.publish(staging, "owner--tiny", receipt)
    assert sh(*ASK, "--model", "owner/tiny").code == 0
    planted = cached / "tokenizer_config.json"
    config = json.loads(planted.read_text()) | {"auto_map": {"AutoTokenizer": ["x.X", None]}}
    planted.write_text(json.dumps(config))
    ran = sh(*ASK, "--model", "owner/tiny")
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()[-2:]
    assert error.startswith("error: the copy of owner/tiny in ")
    assert "'tokenizer_config.json'" in error
    assert "`editkit models pull owner/tiny` fetches it anew" in hint
