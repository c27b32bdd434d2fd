"""models list and pull, without fetching anything."""

from __future__ import annotations

from editkit.models import list_models


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
