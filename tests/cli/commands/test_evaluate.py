"""`editkit eval`: options, exit codes, what is printed where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def data(folder: Path) -> str:
    rows = [
        {"prompt": "red cat", "target": "blue", "rephrases": ["a red cat"], "locality": ["two"]},
        {"prompt": "see Oslo", "target": "fish"},
    ]
    path = folder / "edits.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


def test_a_file_is_evaluated_in_a_table_and_as_json(
    sh: Any, data: str, tiny_model: str, folder: Path
) -> None:
    shown = sh("eval", "--data", data, "--model", tiny_model, "--method", "grace")
    assert shown.code == 0
    heads = shown.stdout.splitlines()[0].split()
    assert heads[:5] == ["method", "edits", "reliability", "rephrases", "locality"]
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [
        ["grace", "1"], ["grace", "2"],
    ]  # fmt: skip
    assert "report.html" in shown.stderr
    assert (folder / "evaluation" / "report.html").exists()
    assert not (folder / "history.db").exists()  # no store is touched
    again = sh("eval", "--data", data, "--model", tiny_model, "--json")  # goes on: nothing to do
    assert again.code == 0
    assert [point["edits"] for point in again.json["points"]] == [1, 2]
    assert again.json["points"][-1]["locality"] == {
        "hits": 1, "count": 1, "value": 1.0,
        "low": pytest.approx(0.2065, abs=1e-4), "high": 1.0,
    }  # fmt: skip


def test_a_missed_bar_is_exit_code_three(sh: Any, data: str, tiny_model: str) -> None:
    missed = sh(
        "eval", "--data", data, "--model", tiny_model, "--method", "base", "--at", "2",
        "--require", "reliability=0.97", "--require", "locality=1",
    )  # fmt: skip
    assert missed.code == 3
    assert "reliability 0.000, required 0.97" in missed.stderr
    assert "locality" not in missed.stderr


def test_blocks_have_a_table_of_their_own_and_a_bar_for_what_fires(
    sh: Any, tiny_model: str, folder: Path
) -> None:
    block = {"prompt": "red cat", "target": "blue", "language": "en",
             "same": [{"prompt": "RED cat", "kind": "lower"}], "other": ["red cat."]}  # fmt: skip
    (folder / "blocks.jsonl").write_text(json.dumps(block), encoding="utf-8")
    ran = sh("eval", "--data", "blocks.jsonl", "--model", tiny_model, "--require", "fired_other=0")
    rows = [line.split()[:4] for line in ran.stdout.splitlines()]
    assert ["grace", "1", "all", "0.000"] in rows or ["grace", "1", "all", "1.000"] in rows
    assert [row[2:4] for row in rows[-2:]] == [["kind", "lower"], ["language", "en"]]
    again = sh("eval", "--data", "blocks.jsonl", "--model", tiny_model, "--json").json
    fired = again["points"][-1]["fired_other"]
    assert ran.code == (3 if fired["hits"] else 0)
    assert {"right", "right_free", "fired_other"} <= set(again["points"][-1]["kind"]["lower"])
    (folder / "bad.jsonl").write_text(json.dumps({**block, "same": "x"}), encoding="utf-8")
    bad = sh("eval", "--data", "bad.jsonl", "--model", tiny_model)
    assert (bad.code, "line 1 of bad.jsonl: 'same' must be a list" in bad.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--require", "beauty=1"], "no score and bar"),
        (["--require", "locality"], "no score and bar"),
        (["--require", "locality=2"], "no score and bar"),
        (["--at", "ten"], "no list of numbers"),
        (["--at", "0,1"], "counted from 1"),
        (["--method", "graze"], "there is no method 'graze'; methods: grace"),
        (["--edits", "0"], "not in the range"),
    ],
)
def test_wrong_usage_is_told_before_a_model_is_loaded(
    sh: Any, data: str, options: list[str], says: str
) -> None:
    ran = sh("eval", "--data", data, "--model", "no-such-model", *options)
    assert ran.code == 2
    assert says in ran.stderr


def test_bad_data_and_a_foreign_folder_are_known_errors(
    sh: Any, data: str, tiny_model: str, folder: Path
) -> None:
    (folder / "bad.jsonl").write_text('{"prompt": "p"}\n', encoding="utf-8")
    bad = sh("eval", "--data", "bad.jsonl", "--model", tiny_model)
    assert (bad.code, "line 1 of bad.jsonl" in bad.stderr) == (1, True)
    assert sh("eval", "--data", "none.jsonl", "--model", tiny_model).code == 1
    assert sh("eval", "--data", data, "--model", tiny_model, "--method", "base").code == 0
    other = sh("eval", "--data", data, "--model", tiny_model, "--method", "base", "--edits", "1")
    assert other.code == 1
    assert "another evaluation" in other.stderr
    assert "--out" in other.stderr
