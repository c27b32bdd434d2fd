"""init and status, and the settings that all commands share."""

from __future__ import annotations

import duckdb
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


def test_verify_prints_the_head_and_names_what_is_wrong(sh, history):
    ran = sh("verify", "--json")
    assert ran.code == 0
    assert {"ok", "checked", "problems", "head"} == set(ran.json)
    assert ran.json["ok"]
    assert ran.json["problems"] == []
    assert ran.json["head"] == sh("log", "-n", "1", "--json").json[0]["digest"]
    assert "everything holds" in sh("verify").stdout
    assert sh("verify", "--head", ran.json["head"]).code == 0
    assert sh("verify", "--head", "sha256:0").code == 3
    with duckdb.connect("history.db") as shell:
        shell.execute("UPDATE edits SET target = 'green' WHERE target = 'blue'")
    ran = sh("verify", "--json")
    assert ran.code == 3
    assert [p["kind"] for p in ran.json["problems"]] == ["edit"]
    assert history[0] in ran.json["problems"][0]["name"]
    assert f"edit {history[0]}: has columns that differ from its request" in sh("verify").stdout


def test_verify_of_no_store_is_an_error(sh, folder):
    assert sh("verify").code == 1


def test_sql_answers_in_tables_and_in_json(sh, history):
    ran = sh("sql", "SELECT prompt, target FROM active_edits ORDER BY prompt", "--json")
    assert ran.json == [
        {"prompt": "2 + 2 =", "target": "four"},
        {"prompt": "The sky is", "target": "blue"},
    ]
    ran = sh("sql", "SELECT prompt, active, NULL AS nothing FROM edit_history")
    assert ran.stdout.splitlines()[0].split() == ["prompt", "active", "nothing"]
    assert len(ran.stdout.splitlines()) == 4
    rows = sh("sql", "SELECT added_at, edit_id, 0.5::DOUBLE AS half, [1] AS list, 'x'::BLOB AS raw "
              "FROM edit_history LIMIT 1", "--json").json  # fmt: skip
    assert (rows[0]["half"], rows[0]["list"], rows[0]["raw"]) == (0.5, [1], "78")
    assert sh("sql", "SELECT 1 WHERE false", "--json").json == []
    assert sh("sql", "-", "--json", stdin="SELECT 1 AS one").json == [{"one": 1}]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM edits",
        "CREATE TABLE x AS SELECT 1",
        "SELECT * FROM nothing",
        "SELEC 1",
        "COPY edits TO 'out.csv'",
        "SELECT * FROM read_csv('x.csv')",
        "ATTACH 'other.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ],
)
def test_sql_reads_this_store_and_nothing_else(sh, history, folder, query):
    (folder / "x.csv").write_text("a,b\n1,2\n")
    before = (folder / "history.db").read_bytes()
    ran = sh("sql", query)
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: the query failed:")
    assert (folder / "history.db").read_bytes() == before
    assert not (folder / "out.csv").exists()
    assert not (folder / "other.db").exists()


def test_compact_makes_the_file_smaller_and_keeps_every_version(sh, fill, folder):
    fill(folder / "history.db", [(f"prompt {i}" * 50, f"target {i}") for i in range(300)])
    with duckdb.connect("history.db") as shell:  # as after many replays
        shell.execute("INSERT INTO payloads SELECT 'sha256:' || range, "
                      "encode(repeat('x', 9000) || range) FROM range(2000)")  # fmt: skip
        shell.execute("CHECKPOINT")
    log, status = sh("log", "--json").json, sh("status", "--json").json
    (folder / "link.db").symlink_to("history.db")
    ran = sh("compact", "--store", "link.db", "--json")
    assert ran.code == 0
    assert ran.json["after"] < ran.json["before"] / 2
    assert ran.json["dropped_tensors"] == 2000
    assert (folder / "link.db").is_symlink()
    assert sh("log", "--json").json == log
    after = sh("status", "--json").json
    assert after["space"]["free"] < status["store_bytes"] / 10
    assert {**after, "space": 0, "store_bytes": 0} == {**status, "space": 0, "store_bytes": 0}
    assert sh("verify").code == 0
    assert sh("rollback", "v7", "--json").json["view"] == 7
    assert sorted(file.name for file in folder.iterdir()) == ["history.db", "link.db"]
    assert " MB, now " in sh("compact").stdout


def test_compact_refuses_a_store_that_is_written_to(sh, history, folder, process, monkeypatch):
    monkeypatch.setenv("EDITKIT_LOCK_WAIT", "0")
    with open_store("history.db", write=True):
        ran = process("compact")
    assert ran.code == 1
    assert "is held by process" in ran.stderr
    assert sh("verify").code == 0


def test_what_a_killed_compaction_left_is_cleared_away(sh, history, folder):
    (folder / ".history.db.compact").write_bytes(b"half")
    (folder / ".history.db.compact.wal").write_bytes(b"half")
    assert sh("compact").code == 0
    assert [file.name for file in folder.iterdir()] == ["history.db"]


def test_status_says_where_the_bytes_are(sh, history):
    space = sh("status", "--json").json["space"]
    assert set(space) == {
        "tensors", "adaptors", "artifacts", "edits", "log", "free", "write_ahead_log",
    }  # fmt: skip
    assert space["tensors"] > 0
    assert "tensors" in sh("status").stdout
