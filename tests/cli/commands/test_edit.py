"""add, generate, explain and replay on a tiny random model."""

from __future__ import annotations

import json

import pytest

from editkit_store import open_store


@pytest.fixture
def model(tiny_model, monkeypatch, folder) -> str:
    """The tiny model, as the environment's choice."""
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    return tiny_model


@pytest.fixture
def edited(sh, model) -> str:
    """The id of a verified edit in `history.db`."""
    ran = sh("add", "--prompt", "The sky is", "--target", "blue", "--json")
    assert ran.code == 0, ran.stderr
    return ran.json["edit"]["id"]


def test_add_in_an_empty_folder_makes_the_store_and_prints_the_record(sh, model, folder):
    ran = sh("add", "--prompt", "The sky is", "--target", "blue", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    found = ran.json
    assert (found["version"], found["verified"]) == ("v1", True)
    assert found["seconds"] > 0
    assert found["answer"] == "blue"
    keys = {"id", "prompt", "target", "kind", "method", "rephrases", "subject", "status"}
    assert keys <= set(found["edit"])
    assert found["edit"]["status"] == "active"
    assert (folder / "history.db").exists()


def test_add_tells_people_before_after_and_where_it_stands(sh, model):
    ran = sh("add", "--prompt", "The sky is", "--target", "blue")
    assert (ran.code, ran.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert shown["after"] == "blue"
    assert shown["before"] != "blue"
    assert shown["version"] == "v1"
    assert shown["verified"] == "yes"
    assert len(shown["edit"]) == 12


def test_add_keeps_everything_that_was_said_about_the_edit(sh, model):
    line = "add --prompt p1 --target t1 --rephrase p2 --rephrase p3 --subject s --kind passage"
    ran = sh(*line.split(), "--reason", "it's so", "--author", "bob", "--json")
    edit = ran.json["edit"]
    assert edit["rephrases"] == ["p2", "p3"]
    assert (edit["subject"], edit["kind"]) == ("s", "passage")
    entry = sh("log", "--json").json[0]
    assert (entry["author"], entry["reason"]) == ("bob", "it's so")
    provenance = sh("show", "@", "--json").json["provenance"]
    assert provenance is None or provenance["command"].startswith("editkit add --prompt p1")


@pytest.mark.parametrize(("scope", "radius"), [("strict", 0.55), ("broad", 0.95), (None, 0.8)])
def test_the_scope_says_how_far_an_edit_reaches(sh, model, folder, scope, radius):
    (folder / "in.jsonl").write_text('{"prompt": "The sea is", "target": "red"}\n')
    chosen = [] if scope is None else ["--scope", scope]
    assert sh("add", "--prompt", "The sky is", "--target", "blue", *chosen).code == 0
    assert sh("add", "--from", "in.jsonl", *chosen).code == 0
    rows = sh("diff", "v0", "@", "--json").json["codebook"]["added_rows"]
    assert [row["radius"] for row in rows] == pytest.approx([radius] * 2)


def test_the_prompt_may_come_from_standard_input(sh, model):
    ran = sh("add", "--prompt", "-", "--target", "blue", "--json", stdin="The sea is\n")
    assert (ran.code, ran.json["edit"]["prompt"]) == (0, "The sea is")


def test_an_edit_in_a_chat_is_learned_for_the_chat(sh, model):
    ran = sh("add", "--chat", "--prompt", "sky?", "--target", "blue", "--system", "s", "--json")
    assert ran.code == 0
    assert [turn["role"] for turn in ran.json["edit"]["chat"]] == ["system", "user"]
    asked = sh("generate", "--chat", "sky?", "--system", "s", "--json").json
    assert (asked["text"], asked["fired"]) == ("blue", [ran.json["edit"]["id"]])
    why = sh("explain", "--chat", "sky?", "--system", "s", "--json").json
    assert why["fired"] == ran.json["edit"]["id"]


def test_generate_prints_the_text_and_names_version_and_edit_on_stderr(sh, edited):
    ran = sh("generate", "The sky is")
    assert (ran.code, ran.stdout) == (0, "blue\n")
    assert ran.stderr == f"v1, fired {edited[:12]}\n"


def test_generate_as_json_is_one_record_for_one_prompt_and_a_list_for_several(sh, edited):
    one = sh("generate", "The sky is", "--json").json
    assert (one["text"], one["version"], one["fired"]) == ("blue", "v1", [edited])
    ran = sh("generate", "The sky is", "0000", "--max-new-tokens", "3", "--json")
    assert [found["prompt"] for found in ran.json] == ["The sky is", "0000"]
    assert len(sh("generate", "The sky is", "0000", "--nl").lines) == 2


def test_generate_at_an_older_version_answers_as_before(sh, edited):
    ran = sh("generate", "The sky is", "--version", "v0")
    assert ran.code == 0
    assert not ran.stdout.startswith("blue")
    assert ran.stderr == "v0, no edit fired\n"


def test_generate_in_an_empty_folder_answers_as_the_model_came_and_makes_no_store(
    sh, model, folder
):
    ran = sh("generate", "The sky is", "--max-new-tokens", "2")
    assert ran.code == 0
    assert "warning: there is no store 'history.db' here" in ran.stderr
    assert list(folder.iterdir()) == []


def test_explain_shows_the_edit_that_fires_and_its_distance(sh, edited):
    found = sh("explain", "The sky is", "--json").json
    assert found["fired"] == edited
    nearest = found["candidates"][0]
    assert {"edit_id", "prompt", "distance", "radius", "in_scope"} <= set(nearest)
    assert nearest["in_scope"] is True
    text = sh("explain", "The sky is")
    assert edited[:12] in text.stdout
    assert "at v1" in text.stderr


def test_an_edit_is_gone_after_rollback_and_back_after_undo(sh, edited):
    assert sh("rollback", "v0", "-q").code == 0
    assert sh("generate", "The sky is", "--json").json["fired"] == []
    sh("undo", "-q")
    assert sh("generate", "The sky is", "--json").json["text"] == "blue"


def test_diff_counts_the_codebook(sh, edited):
    assert sh("diff", "v0", "v1", "--json").json["codebook"]["added"] == 1
    assert "codebook: 1 added" in sh("diff", "v0", "v1").stdout


def test_an_edit_that_does_not_verify_exits_with_3_and_is_not_active(sh, model, monkeypatch):
    unlearnable(monkeypatch)
    ran = sh("add", "--prompt", "The sky is", "--target", "blue", "--json")
    assert ran.code == 3
    assert ran.json["verified"] is False
    assert ran.json["edit"]["status"] == "failed"
    assert "did not verify" in ran.stderr
    assert "--on-failure keep" in ran.stderr
    assert sh("status", "--json").json["edits"] == 0
    assert sh("log", "--json").json[0]["status"] == "failed"
    assert "no" in sh("add", "--prompt", "The sky is", "--target", "blue").stdout


def unlearnable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every edit of this process fail: no optimizer step is allowed."""
    from editkit.methods.grace.config import GraceConfig

    usual = GraceConfig.of.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        GraceConfig,
        "of",
        classmethod(lambda cls, preset, **how: usual(cls, preset, **{**how, **NO_LEARNING})),
    )


NO_LEARNING = {"learning_rate": 1e-12, "max_steps": 1}


def test_a_prompt_beyond_the_context_window_is_refused(sh, model):
    ran = sh("add", "--prompt", "x" * 400, "--target", "blue")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")
    assert "256" in ran.stderr


def test_a_model_that_has_not_learned_the_history_says_to_replay(sh, edited, other_model):
    ran = sh("generate", "The sky is", "--model", other_model)
    assert (ran.code, ran.stdout) == (1, "")
    assert "replay" in ran.stderr


def test_replay_learns_on_another_model_and_restores_the_second_time(sh, edited, other_model):
    ran = sh("replay", "history.db", "--model", other_model, "--json")
    assert ran.code == 0, ran.stderr
    assert (ran.json["learned"], ran.json["restored"], ran.json["failed"]) == (1, 0, 0)
    assert {"model", "seconds", "version"} <= set(ran.json)
    again = sh("replay", "--store", "history.db", "--model", other_model)
    assert again.code == 0
    shown = dict(line.split(maxsplit=1) for line in again.stdout.splitlines())
    assert (shown["restored"], shown["learned"]) == ("1", "0")
    assert sh("generate", "The sky is", "--model", other_model, "-q").stdout == "blue\n"


def test_a_replay_with_failures_exits_with_3_and_prints_them(sh, edited, other_model, monkeypatch):
    unlearnable(monkeypatch)
    ran = sh("replay", "--model", other_model)
    assert ran.code == 3
    assert "failed    1" in ran.stdout
    head, row = ran.stdout.splitlines()[-2:]
    assert head.split() == ["failed", "edit", "prompt", "target", "answer", "reason"]
    assert row.startswith(f"{edited[:12]}  The sky is  blue")


def test_replay_to_an_unknown_version_is_refused(sh, edited, other_model):
    ran = sh("replay", "--model", other_model, "--to", "v7")
    assert (ran.code, ran.stdout) == (1, "")
    assert "there is no version 'v7'" in ran.stderr


def test_an_interrupted_replay_says_how_to_go_on(sh, edited, other_model, monkeypatch):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("editkit.kit.Kit.replay", interrupted)
    ran = sh("replay", "--model", other_model)
    assert (ran.code, ran.stdout) == (130, "")
    assert f"from here: editkit replay --model {other_model}" in ran.stderr


def test_the_store_remembers_the_model_of_the_first_edit(sh, edited, model, monkeypatch):
    monkeypatch.delenv("EDITKIT_MODEL")
    assert sh("status", "--json").json["model"] == model
    assert sh("generate", "The sky is", "-q").stdout == "blue\n"


def test_an_edit_holds_in_a_new_process(process, edited, model):
    ran = process("generate", "The sky is", "--json")
    assert (ran.code, ran.json["text"]) == (0, "blue")
    assert ran.stderr == ""


def test_a_failed_command_leaves_the_store_closed_and_whole(sh, edited):
    sh("add", "--prompt", "x" * 400, "--target", "blue")
    with open_store("history.db", write=True) as store:
        assert store.version() == "v1"


def test_codebook_plot_draws_the_current_codebook(sh, model, folder):
    assert sh("add", "--prompt", "The sky is", "--target", "blue").code == 0
    ran = sh("codebook", "plot", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.json == {
        "path": "codebook.png", "version": "v1", "rows": 1, "shrunk": 0, "conflicts": 0,
    }  # fmt: skip
    assert (folder / "codebook.png").read_bytes().startswith(b"\x89PNG")
    ran = sh("codebook", "plot", "--version", "v0")
    assert (ran.code, ran.stdout) == (1, "")
    assert "no codebook at v0" in ran.stderr


def test_add_says_what_it_contradicts_and_follows_on_conflict(sh, folder, tiny_model):
    add = ("add", "--model", tiny_model, "--prompt", "Who?", "--on-failure", "keep")
    first = sh(*add, "--target", "Ada", "--json").json["edit"]["id"]
    refused = sh(*add, "--target", "Eve", "--on-conflict", "error")
    assert (refused.code, refused.stdout) == (1, "")
    assert first in refused.stderr
    assert "--on-conflict supersede" in refused.stderr
    kept = sh(*add, "--target", "Eve", "--on-conflict", "keep", "--json")
    assert kept.code == 0
    assert (kept.json["outcome"], kept.json["edit"]["id"]) == ("kept", first)
    assert "not learned" in kept.stderr
    won = sh(*add, "--target", "Eve", "--json")
    assert f"supersedes edit {first}" in won.stderr
    assert [one["edit_id"] for one in won.json["conflicts"]] == [first]
    assert won.json["outcome"] == "added"


def test_add_with_an_idempotency_key_twice_is_one_edit(sh, folder, tiny_model):
    add = (
        "add", "--model", tiny_model, "--prompt", "Who?", "--target", "Ada", "--on-failure", "keep",
        "--idempotency-key", "k-1", "--agent", "bot", "--conversation", "c", "--source", "t",
        "--locality", "What?",
    )  # fmt: skip
    first, second = sh(*add, "--json"), sh(*add, "--json")
    assert second.json["edit"]["id"] == first.json["edit"]["id"]
    assert second.json["outcome"] == "known"
    assert len(sh("log", "--json").json) == 1
    provenance = sh("show", "v1", "--json").json["provenance"]
    assert (provenance["agent"], provenance["conversation"]) == ("bot", "c")
    assert first.json["edit"]["locality"] == ["What?"]
    other = sh(*add[:6], "Eve", *add[7:])
    assert other.code == 1
    assert "belongs to edit" in other.stderr


def test_a_file_leaves_out_what_contradicts_an_edit_to_be_kept(sh, folder, tiny_model):
    lines = [{"prompt": "Who?", "target": "Ada"}, {"prompt": "Who?", "target": "Eve"},
             {"prompt": "What?", "target": "green"}]  # fmt: skip
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = sh("add", "--model", tiny_model, "--from", "in.jsonl", "--on-failure", "keep",
             "--on-conflict", "keep", "--json")  # fmt: skip
    assert [one["outcome"] for one in ran.json] == ["added", "kept", "added"]
    assert "1 left out" in ran.stderr
    for flag in ("--agent", "--idempotency-key", "--locality"):
        assert sh("add", "--from", "in.jsonl", flag, "x").code == 2
