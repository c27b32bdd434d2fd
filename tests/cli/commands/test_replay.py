"""replay: only some edits, and a dry run."""

from __future__ import annotations

import json

import pytest

from editkit_store import open_store


@pytest.fixture
def taught(sh, folder, tiny_model) -> list[str]:
    """`history.db` with two edits, the first of them tagged `checked`; their ids."""
    ids = []
    for prompt, target in (("The sky is", "blue"), ("Grass is", "green")):
        ran = sh("add", "--model", tiny_model, "--prompt", prompt, "--target", target, "--json")
        assert ran.code == 0, ran.stderr
        ids.append(ran.json["edit"]["id"])
    assert sh("tag", "v1", "checked").code == 0
    return ids


def test_a_dry_run_prints_the_plan_and_writes_nothing(sh, folder, taught, other_model):
    before = (folder / "history.db").read_bytes()
    ran = sh("replay", "history.db", "--model", other_model, "--dry-run", "--json")
    assert ran.code == 0, ran.stderr
    assert (ran.json["restored"], ran.json["to_learn"], ran.json["version"]) == (0, 2, "v2")
    assert {"model", "fingerprint"} <= set(ran.json)
    assert ran.json["measured_on"] == "other models"
    assert ran.json["seconds"] > 0
    assert ran.json["edits"] == [
        {"edit_id": taught[0], "prompt": "The sky is", "target": "blue", "action": "learn"},
        {"edit_id": taught[1], "prompt": "Grass is", "target": "green", "action": "learn"},
    ]
    assert (folder / "history.db").read_bytes() == before


def test_a_dry_run_goes_on_while_others_read(sh, taught, tiny_model):
    with open_store("history.db"):
        ran = sh("replay", "--model", tiny_model, "--dry-run")
    assert ran.code == 0, ran.stderr
    shown = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert (shown["version"], shown["seconds"]) == ("v2", "about 0.0")
    assert f"restore  {taught[0][:12]}  The sky is  blue" in ran.stdout
    assert ran.stderr == "nothing was written\n"
    assert sh("log", "--json", "-n", "1").json[0]["operation"] == "tag"


def test_a_dry_run_says_where_its_estimate_comes_from(sh, taught, other_model):
    ran = sh("replay", "--model", other_model, "--dry-run")
    assert "to learn    2" in ran.stdout
    assert "if this model takes as long as others did" in ran.stdout


def test_only_the_edits_of_a_tag_are_replayed(sh, taught, other_model):
    planned = sh("replay", "--model", other_model, "--only", "checked", "--dry-run", "--json").json
    assert [one["edit_id"] for one in planned["edits"]] == taught[:1]
    ran = sh("replay", "--model", other_model, "--only", "checked", "--json")
    assert (ran.code, ran.json["learned"], ran.json["restored"]) == (0, 1, 0), ran.stderr
    rest = sh("generate", "Grass is", "--model", other_model)
    assert (rest.code, rest.stdout) == (1, "")
    assert "editkit replay" in rest.stderr
    ran = sh("replay", "--model", other_model, "--json")
    assert (ran.json["learned"], ran.json["restored"]) == (1, 1)
    assert sh("generate", "Grass is", "--model", other_model, "-q").stdout == "green\n"


@pytest.mark.parametrize("line", ["--only v9", "--only v9 --dry-run", "--to v9 --dry-run"])
def test_an_unknown_version_is_refused_before_a_model_is_loaded(sh, taught, line):
    ran = sh("replay", "--model", "no-such-model-at-all", *line.split())
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr == "error: there is no version 'v9'\nhint: versions are v0 to v2\n"


def test_a_dry_run_of_an_empty_history_knows_no_time(sh, folder, tiny_model):
    sh("init")
    ran = sh("replay", "--model", tiny_model, "--dry-run", "--json")
    assert (ran.code, json.loads(ran.stdout)["seconds"]) == (0, None)
    assert "unknown" in sh("replay", "--model", tiny_model, "--dry-run").stdout
