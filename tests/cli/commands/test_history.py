"""log, show, diff, rollback, revert, undo, redo, tag: on stores that no model is needed for."""

from __future__ import annotations

import json

import pytest

from editkit_store import open_store


def test_log_prints_the_records_json_and_nothing_else(sh, history):
    ran = sh("log", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    with open_store("history.db") as store:
        assert ran.json == [entry.model_dump(mode="json") for entry in store.log()]
    keys = {"version", "operation", "edit_id", "prompt", "target", "method", "author", "time"}
    assert keys | {"tags"} <= set(ran.json[0])
    assert [entry["edit_id"] for entry in ran.json] == history[::-1]


def test_log_as_lines_prints_one_object_a_line(sh, history):
    ran = sh("log", "--nl", "-n", "2")
    assert ran.code == 0
    assert [entry["version"] for entry in ran.lines] == ["v3", "v2"]


def test_the_log_table_is_newest_first_and_marks_the_current_version(sh, history):
    sh("tag", "v1", "prod")
    ran = sh("log")
    assert (ran.code, ran.stderr) == (0, "")
    head, tagged, third, second, first, origin = ran.stdout.splitlines()
    assert head.split() == ["version", "operation", "edit", "what", "status", "by", "time", "tags"]
    assert "v1 is 'prod'" in tagged
    assert third.startswith("@ v3")
    assert f" {history[2][:12]} " in third
    assert history[2][:13] not in third
    assert "2 + 2 = → four" in third
    assert second.startswith("  v2")
    assert "superseded" in second
    assert first.endswith("prod")
    assert "ada" in first
    assert origin.startswith("  v0")


def test_log_at_an_older_version_shows_the_log_as_it_stood(sh, history):
    ran = sh("log", "--at", "v1", "--json")
    assert [entry["version"] for entry in ran.json] == ["v1"]


def test_long_prompts_are_shortened_in_the_table_but_never_in_json(sh, folder, fill):
    long = "Please tell me " + "very " * 60 + "precisely\x1b[31m what the\nsky is"
    fill(folder / "history.db", [(long, "blue")])
    table = sh("log").stdout
    assert max(len(line) for line in table.splitlines()) <= 100
    assert "…" in table
    assert "\x1b" not in table
    assert sh("log", "--json").json[0]["prompt"] == long


def test_an_empty_log_is_an_empty_list(sh, folder):
    sh("init")
    assert sh("log", "--json").json == []
    assert sh("log", "--nl").stdout == ""
    assert "@ v0" in sh("log").stdout


def test_show_takes_a_version_a_tag_and_an_edit_id(sh, history):
    sh("tag", "v1", "prod")
    for name in ("v1", "@~2", "prod", history[0][:12]):
        ran = sh("show", name, "--json")
        assert (ran.code, ran.stderr) == (0, "")
        with open_store("history.db") as store:
            assert ran.json == store.show("v1").model_dump(mode="json")
    text = sh("show", "prod").stdout
    assert "The sky is" in text
    assert "blue" in text
    assert history[0][:12] in text
    assert "1 active edit\n" in text


def test_diff_shows_what_came_and_what_went(sh, history):
    ran = sh("diff", "v1", "v3", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert {"from", "to", "added", "removed", "codebook", "adaptors"} <= set(ran.json)
    assert [edit["id"] for edit in ran.json["added"]] == [history[2]]
    text = sh("diff", "v3", "v1").stdout
    assert "from v3 to v1" in text
    assert f"-  {history[2][:12]}" in text


def test_diff_without_versions_compares_the_last_two(sh, history):
    assert sh("diff", "--json").json == sh("diff", "@-", "@", "--json").json
    assert sh("diff", "v1", "--json").json["to"] == "v3"


def test_diff_writes_one_html_page_and_loads_no_model(sh, folder, history, monkeypatch):
    monkeypatch.setattr("editkit_cli.commands.diff.open_model", None)
    ran = sh("diff", "v1", "v3", "--html", "diff.html", "--json")
    assert (ran.code, ran.stderr) == (0, "wrote diff.html\n")
    assert ran.json == sh("diff", "v1", "v3", "--json").json
    page = (folder / "diff.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "From v1 to v3" in page
    assert history[2][:12] in page
    assert sh("diff", "v1", "v1", "--html", "diff.html").code == 0
    assert "The same edits are active." in (folder / "diff.html").read_text(encoding="utf-8")


def test_a_page_holds_prompts_as_text(sh, folder, fill):
    fill(folder / "history.db", [("<script>&\"'</script>", "</td><b>")])
    assert sh("diff", "v0", "v1", "--html", "diff.html").code == 0
    page = (folder / "diff.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;&amp;&#34;&#39;&lt;/script&gt;" in page
    assert "<script" not in page
    assert "<b>" not in page


def test_a_page_that_cannot_be_written_takes_nothing_else_along(sh, history):
    ran = sh("diff", "v1", "v3", "--html", "no/where/diff.html", "--json")
    assert (ran.code, ran.json["to"]) == (1, "v3")
    error, hint = ran.stderr.splitlines()
    assert error.startswith("error: the page 'no/where/diff.html' cannot be written: No such file")
    assert hint.startswith("hint: ")


@pytest.fixture
def taught(sh, folder, tiny_model) -> str:
    """`history.db` with one edit that the tiny model has learned; its id."""
    line = {
        "prompt": "The sky is",
        "target": "blue",
        "rephrases": ["The colour of the sky is"],
        "locality": ["Grass is"],
    }
    ran = sh("add", "--model", tiny_model, "--from", "-", "--json", stdin=json.dumps(line))
    assert ran.code == 0, ran.stderr
    return ran.json[0]["edit"]["id"]


def test_diff_with_behavior_shows_the_answers_at_both_versions(sh, folder, taught):
    line = ("diff", "v0", "v1", "--behavior", "--probe", "Snow is")
    ran = sh(*line, "--json", "--html", "diff.html")
    assert (ran.code, ran.stderr) == (0, "wrote diff.html\n")
    said = ran.json["behavior"]
    assert [one["kind"] for one in said] == ["edit", "rephrase", "locality", "probe"]
    assert set(said[0]) == {
        "prompt", "kind", "edit_id", "target", "before", "after", "changed", "fired_before",
        "fired_after",
    }  # fmt: skip
    assert (said[0]["after"], said[0]["changed"], said[0]["target"]) == ("blue", True, "blue")
    assert (said[0]["fired_before"], said[0]["fired_after"]) == ([], [taught])
    assert (said[3]["edit_id"], said[3]["target"], said[3]["changed"]) == (None, None, False)
    assert said[3]["after"] == sh("generate", "Snow is", "--max-new-tokens", "16", "-q").stdout[:-1]
    assert ran.json["codebook"]["added"] == 1
    page = (folder / "diff.html").read_text(encoding="utf-8")
    assert page.count('<tr class="changed">') == sum(one["changed"] for one in said)
    text = sh(*line).stdout
    changed = sum(one["changed"] for one in said)
    assert f"answers: 4 asked at both versions, {changed} changed" in text
    (row,) = [line for line in text.splitlines() if line.startswith("*  edit ")]
    assert "The sky is" in row
    assert row.endswith("v1")
    assert [line for line in text.splitlines() if line.startswith("   probe ")]


def test_a_probe_alone_asks_the_model_where_nothing_changed(sh, taught):
    ran = sh("diff", "@", "@", "--probe", "The sky is", "--max-new-tokens", "2", "--json")
    assert ran.code == 0, ran.stderr
    (said,) = ran.json["behavior"]
    assert (said["before"], said["after"], said["changed"]) == ("blue", "blue", False)
    assert (said["fired_before"], said["fired_after"]) == ([taught], [taught])
    assert "answers: 0 asked" in sh("diff", "@", "@", "--behavior").stdout


def test_behavior_at_a_version_that_the_model_has_not_learned_says_to_replay(
    sh, taught, other_model
):
    ran = sh("diff", "v0", "v1", "--behavior", "--model", other_model)
    assert (ran.code, ran.stdout) == (1, "")
    assert "has not learned 1 active edit" in ran.stderr
    assert "editkit replay" in ran.stderr
    assert sh("diff", "v0", "v1", "--model", other_model).code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("diff v0 v9 --behavior", "there is no version 'v9'"),
        ("diff v0 v1 --probe", "a probe is empty"),
    ],
)
def test_behavior_is_refused_before_a_model_is_loaded(sh, history, line, said):
    ran = sh(*line.split(), *([" "] if line.endswith("--probe") else []), "--model", "no-such-one")
    assert (ran.code, ran.stdout) == (1, "")
    assert said in ran.stderr


def test_rollback_prints_the_view_and_says_where_we_are(sh, history):
    ran = sh("rollback", "v1", "--reason", "bad day")
    assert (ran.code, ran.stdout) == (0, "v4, 1 active edit\n")
    assert ran.stderr == "rollback: back to v1; now at v4\n"
    assert sh("log", "-n1", "--json").json[0]["reason"] == "bad day"


def test_rollback_as_json_holds_version_and_view(sh, history):
    ran = sh("rollback", "v0", "--json", "--quiet")
    assert ran.stderr == ""
    assert ran.json == {
        "version": "v4",
        "view": 0,
        "operation": "rollback",
        "detail": "back to v0",
        "relearned": [],
        "lost": [],
    }


def test_revert_takes_back_one_edit_and_the_superseded_one_returns(sh, history):
    ran = sh("revert", history[2][:6], "--json")
    assert (ran.code, ran.json["version"], ran.json["view"]) == (0, "v4", 2)
    assert f"took back {history[2]}" in ran.stderr
    active = sh("show", "@", "--json").json["edits"]
    assert [edit["id"] for edit in active] == history[:2]


def test_undo_twice_goes_one_further_back_and_redo_returns(sh, history):
    assert sh("undo", "--json").json["version"] == "v4"
    assert sh("undo", "--json").json["view"] == 1
    ran = sh("redo", "--json")
    assert ran.json["view"] == 2
    assert ran.stderr.endswith("now at v6\n")


def test_undo_with_nothing_left_is_a_known_error(sh, folder):
    sh("init")
    for verb in ("undo", "redo"):
        ran = sh(verb)
        assert (ran.code, ran.stdout) == (1, "")
        assert ran.stderr.startswith(f"error: there is nothing to {verb}")


def test_tag_names_a_version(sh, history):
    ran = sh("tag", "@-", "prod", "--json")
    assert ran.json == {"tag": "prod", "version": "v2"}
    assert sh("tag", "@", "prod").stdout == "v3 is 'prod'\n"
    assert sh("status", "--json").json["tags"] == {"prod": "v3"}


def test_a_tag_that_looks_like_a_version_is_refused(sh, history):
    ran = sh("tag", "v1", "v7")
    assert (ran.code, ran.stdout) == (1, "")
    assert "cannot be a tag" in ran.stderr


def test_the_history_keeps_who_did_it_and_the_command_line(sh, history):
    sh("rollback", "v1", "--author", "grace h", "--reason", "it's wrong")
    found = sh("show", "@", "--json").json["provenance"]
    assert found["author"] == "grace h"
    assert found["reason"] == "it's wrong"
    assert found["command"].startswith("editkit rollback v1 --author 'grace h' --reason")
    assert found["tool"].startswith("editkit ")


@pytest.mark.parametrize("verb", ["show", "rollback", "diff", "log --at", "tag"])
def test_an_unknown_version_names_those_there_are(sh, history, verb):
    ran = sh(*verb.split(), "v9", *(["x"] if verb == "tag" else []))
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr == "error: there is no version 'v9'\nhint: versions are v0 to v3\n"


def test_an_unknown_edit_id_says_where_to_find_them(sh, history):
    ran = sh("revert", "ffffffffffffffffff")
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()
    assert error == "error: there is no edit 'ffffffffffffffffff'"
    assert "editkit log" in hint


def test_an_edit_that_is_taken_back_already_cannot_be_again(sh, history):
    sh("revert", history[0])
    ran = sh("revert", history[0])
    assert ran.code == 1
    assert "is taken back already" in ran.stderr
