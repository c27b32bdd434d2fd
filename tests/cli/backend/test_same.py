"""Every command prints the same, and ends the same, with a server on the store as without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.backend.conftest import Pair, forbidden
from cli.backend.lines import CAT, CHANGING, READING


@pytest.mark.parametrize("line", READING, ids=lambda line: " ".join(line)[:60] or "empty")
def test_what_changes_nothing_is_the_same_with_a_server(
    calm_pair: Pair, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    calm_pair.same(*line)


@pytest.mark.slow
def test_a_session_of_changes_is_the_same_with_a_server(pair: Pair) -> None:
    files = {
        "edits.jsonl": [
            {"prompt": "one two", "target": "three", "author": "eve", "reason": "counted"},
            {"prompt": CAT, "target": "white"},
            {"prompt": "sea", "target": "sky", "id": "case-7"},
        ],
        "bad.jsonl": [{"prompt": "bird", "target": "fish"}, {"prompt": "x " * 400, "target": "y"}],
    }
    for place in (pair.alone, pair.served):
        for name, lines in files.items():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (place.folder / name).write_text(text)
    codes = []
    for line in CHANGING:
        codes.append(pair.same(*line).code)
    # Some are refused or do not verify: a key used again, a bad line, a second revert, ...
    refused = [at for at, code in enumerate(codes) if code]
    assert {2, 10, 18} <= set(refused)
    assert len(refused) < len(codes) / 3
    assert (pair.served.folder / "keys.png").read_bytes()[:4] == b"\x89PNG"


def test_a_conversation_is_the_same_with_a_server(pair: Pair) -> None:
    lines = [
        "tell me of the sea", "/fix blue", "and the moon?", "/fix gold", "/why", "/undo", "/again",
        "/redo", "/log 2", "/diff", "/version v1", "/version", "/version @", "/new",
        "tell me of the sea", "/diff v0 v77", "/nonsense",
    ]  # fmt: skip
    how = ["chat", "--max-new-tokens", "6", "--reason", "talking"]
    ran = pair.same(*how, stdin="\n".join(lines))
    assert "corrected: verified" in ran.stderr
    assert ran.stdout.splitlines()[-1] == "blue"
    pair.same(*how, "--json", "--system", "Be brief.", stdin="one two\n/fix three\n")
    pair.same(*how, "--version", "v9", stdin="one two\n")
    pair.same(*how, "--delivery", "free", stdin="tell me of the sea\none two\n")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_an_edit_of_elder_is_taken_back_as_it_is_alone(pair: Pair) -> None:
    for prompt, target in (("sea", "sky"), ("bird", "fish")):
        pair.same("add", "--prompt", prompt, "--target", target, "--method", "elder",
                  "--on-failure", "keep", "--json", "-q")  # fmt: skip
    assert pair.same("revert", "{4}", "--defer-only", "--json").json["view"] == 3
    pair.same("undo")
    assert pair.same("diff", "v3", "v4", "--json").json["codes"]["added"]
    reverted = pair.same("revert", "{3}", "--json")
    assert (reverted.code, len(reverted.json["relearned"])) == (0, 1)


def test_the_log_says_who_asked_and_how_as_it_does_alone(pair: Pair) -> None:
    line = ["add", "--prompt", "bird", "--target", "fish", "--reason", "é → ü", "--json"]
    assert pair.same(*line).code == 0
    asked = [place.run("show", "@", "--json").json["provenance"] for place in
             (pair.alone, pair.served)]  # fmt: skip
    assert asked[0] == asked[1]
    assert asked[1]["command"].startswith("editkit add --prompt bird")
    assert (asked[1]["author"], asked[1]["reason"]) == ("ada", "é → ü")


def test_a_status_is_the_same_but_for_the_server(calm_pair: Pair) -> None:
    server = calm_pair.served.server
    assert server is not None
    alone, served = (place.run("status", "--json").json for place in
                     (calm_pair.alone, calm_pair.served))  # fmt: skip
    assert (alone["server"], served["server"]) == (None, server.url)
    for name in ("server", "store_bytes", "space"):
        alone.pop(name), served.pop(name)
    assert alone == served
    shown = calm_pair.served.run("status")
    assert (shown.code, shown.stderr) == (0, "")
    assert f"server       {server.url}" in shown.stdout
    assert "server" not in calm_pair.alone.run("status").stdout


def test_a_command_that_went_through_the_server_opened_neither_store_nor_model(
    calm_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    import editkit.kit.open
    from editkit_cli.backend import local

    monkeypatch.setattr(editkit.kit.open, "open", forbidden)
    monkeypatch.setattr(editkit, "open", forbidden, raising=False)
    monkeypatch.setattr(local, "_open_store", forbidden)
    for line in (["log"], ["generate", CAT], ["explain", CAT], ["status"], ["diff"]):
        assert calm_pair.served.run(*line).code == 0


def test_a_comparison_is_written_where_the_command_was_given(calm_pair: Pair) -> None:
    ran = calm_pair.same("diff", "v1", "v3", "--html", "diff.html")
    assert ran.code == 0
    assert "<html" in Path(calm_pair.served.folder, "diff.html").read_text()
