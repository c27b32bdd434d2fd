"""init and status, and the settings that all commands share."""

from __future__ import annotations

import pytest

from editkit_store import open_store


def test_init_makes_a_store_and_remembers_the_model(sh, folder):
    ran = sh("init", "--model", "gpt2", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.json == {"store": "history.db", "model": "gpt2", "version": "v0"}
    assert sh("status", "--json").json["model"] == "gpt2"


def test_init_without_a_model_remembers_none(sh, folder):
    assert sh("init", "--json").json["model"] is None
    assert sh("init").stdout == "history.db at v0, for the default model\n"


def test_init_again_keeps_the_history_and_changes_the_model(sh, history):
    ran = sh("init", "--model", "gpt2")
    assert ran.code == 0
    assert "history is kept" in ran.stderr
    assert sh("init", "--json").json == {"store": "history.db", "model": "gpt2", "version": "v3"}
    assert sh("init", "--model", "gpt2-xl", "--json").json["model"] == "gpt2-xl"


@pytest.mark.parametrize(
    ("name", "remembered"),
    [("SmolLM2-135M", "smollm2-135m"), ("someone/some-model", "someone/some-model")],
)
def test_init_takes_aliases_and_hub_ids(sh, folder, name, remembered):
    assert sh("init", "--model", name, "--json").json["model"] == remembered


def test_init_remembers_files_and_folders_by_their_full_path(sh, folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "config.json").write_text("{}")
    (folder / "x.gguf").write_bytes(b"GGUF")
    for name in ("mine", "x.gguf"):
        assert sh("init", "--model", name, "--json").json["model"] == str(folder / name)


def test_an_unknown_model_names_close_matches_and_makes_no_store(sh, folder):
    ran = sh("init", "--model", "smollm2-153m")
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()
    assert error.startswith("error: no model named 'smollm2-153m'")
    assert hint.startswith("hint: did you mean ")
    assert "smollm2-135m" in hint
    assert list(folder.iterdir()) == []


def test_status_prints_where_the_store_stands(sh, history):
    ran = sh("status", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    with open_store("history.db") as store:
        assert ran.json == store.status().model_dump(mode="json")
    assert {"version", "edits", "model", "fingerprint", "store_bytes"} <= set(ran.json)
    text = sh("status").stdout
    assert "v3" in text
    assert "2 active" in text


def test_the_store_may_be_named_before_or_after_the_verb_or_in_the_environment(
    sh, folder, monkeypatch
):
    sh("init", "--store", "a.db", "--model", "gpt2")
    assert sh("--store", "a.db", "status", "--json").json["store"] == "a.db"
    assert sh("--json", "--store", "b.db", "status", "--store", "a.db").json["store"] == "a.db"
    monkeypatch.setenv("EDITKIT_STORE", "a.db")
    assert sh("status", "--json").json["store"] == "a.db"
    monkeypatch.setenv("EDITKIT_STORE", "b.db")
    assert sh("--store", "a.db", "status", "--json").json["store"] == "a.db"
    assert sh("status", "--store", "a.db", "--json").json["store"] == "a.db"


def test_the_model_may_come_from_the_environment(sh, folder, monkeypatch):
    monkeypatch.setenv("EDITKIT_MODEL", "gpt2")
    assert sh("init", "--json").json["model"] == "gpt2"
    assert sh("init", "--model", "gpt2-xl", "--json").json["model"] == "gpt2-xl"


def test_an_unset_looking_environment_counts_as_unset(sh, folder, monkeypatch):
    monkeypatch.setenv("EDITKIT_STORE", "")
    assert sh("init", "--json").json["store"] == "history.db"
