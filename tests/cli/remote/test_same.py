"""Every command prints the same, and ends the same, with a server on the store as without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.remote.conftest import Pair, forbidden

CAT = "The red cat is"

READING = [
    ["log"],
    ["log", "--json"],
    ["log", "--nl", "-n", "2"],
    ["log", "--at", "prod"],
    ["log", "--at", "v9"],
    ["show", "v1"],
    ["show", "@-", "--json"],
    ["show", "prod"],
    ["show", "{0}", "--json"],
    ["show", "raw"],
    ["show", "nothing like it"],
    ["show", ""],
    ["diff"],
    ["diff", "v0", "v3", "--json"],
    ["diff", "prod", "v77"],
    ["diff", "v1", "v3", "--behavior", "--probe", "tall tree"],
    ["diff", "v1", "v3", "--behavior", "--json", "--max-new-tokens", "3"],
    ["verify"],
    ["verify", "--json"],
    ["verify", "--head", "sha256:" + "0" * 64],
    ["sql", "SELECT prompt, target FROM active_edits ORDER BY prompt"],
    ["sql", "SELECT count(*) AS n, max(time) AS t FROM operation_log", "--json"],
    ["sql", "DELETE FROM history.edits"],
    ["sql", "SELECT * FROM read_text('/etc/hosts')"],
    ["sql", "nonsense"],
    ["generate", CAT],
    ["generate", CAT, "tall tree", "--json", "--max-new-tokens", "4"],
    ["generate", CAT, "--version", "v1", "--nl"],
    ["generate", CAT, "--version", "v9"],
    ["generate", "--chat", CAT, "--system", "Be brief.", "--max-new-tokens", "3", "--json"],
    ["generate", " "],
    ["generate", "x " * 400],
    ["explain", CAT],
    ["explain", CAT, "--json", "-k", "2", "--version", "prod"],
    ["explain", "--chat", CAT, "--json"],
    ["explain", CAT, "--version", "nope"],
    ["replay", "--dry-run"],
    ["replay", "--dry-run", "--json", "--only", "v1", "--to", "prod"],
    ["replay", "history.db", "--to", "v9"],
    ["rollback", "v9"],
    ["revert", "ffff"],
    ["revert", "a/b"],
    ["tag", "v1", "v2"],
    ["redo"],
    ["add", "--prompt", CAT, "--target", " "],
    ["add", "--prompt", "x " * 400, "--target", "blue"],
    ["add", "--prompt", CAT, "--target", "red", "--on-conflict", "error"],
    ["add", "--prompt", CAT, "--target", "red", "--method", "elder", "--scope", "strict"],
    ["import", "no-such-folder"],
    ["import", "no-such-folder", "--dry-run"],
    ["export", "history.db"],
    ["codebook", "plot", "--version", "v9"],
    ["codebook", "plot", "--out", "no/such/folder.png"],
]


@pytest.mark.parametrize("line", READING, ids=lambda line: " ".join(line)[:60] or "empty")
def test_what_changes_nothing_is_the_same_with_a_server(
    calm_pair: Pair, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    calm_pair.same(*line)


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
    for line in (
        ["add", "--prompt", "iron", "--target", "silver", "--json", "--reason", "it’s so",
         "--author", "bob", "--rephrase", "some iron", "--locality", "salt", "--subject", "iron",
         "--scope", "strict", "--source", "a book", "--conversation", "c-1", "--agent", "bot",
         "--idempotency-key", "k-1"],
        ["add", "--prompt", "iron", "--target", "silver", "--json", "--reason", "it’s so",
         "--author", "bob", "--rephrase", "some iron", "--locality", "salt", "--subject", "iron",
         "--scope", "strict", "--source", "a book", "--conversation", "c-1", "--agent", "bot",
         "--idempotency-key", "k-1"],
        ["add", "--prompt", "iron", "--target", "gold", "--idempotency-key", "k-1"],
        ["show", "v4", "--json"],
        ["add", "--chat", "--system", "Be brief.", "--prompt", "moon", "--target", "sun"],
        ["add", "--prompt", CAT, "--target", "black"],
        ["add", "--prompt", CAT, "--target", "white", "--on-conflict", "keep"],
        ["add", "--prompt", "milk", "--target", "rice bread salt gold iron silver right wrong"],
        ["add", "--prompt", "milk", "--target", "rice bread salt gold iron silver right wrong",
         "--on-failure", "keep", "--json"],
        ["add", "--from", "edits.jsonl", "--reason", "a batch"],
        ["add", "--from", "edits.jsonl"],
        ["add", "--from", "bad.jsonl", "--json"],
        ["log", "--json"],
        ["undo", "--reason", "no good"],
        ["undo"],
        ["redo", "--json"],
        ["rollback", "prod", "--author", "carol"],
        ["revert", "{1}", "--json"],
        ["revert", "{1}"],
        ["tag", "@", "now", "--json"],
        ["replay", "--json"],
        ["replay", "--method", "grace", "--to", "v2", "--reason", "again"],
        ["export", "fixes"],
        ["export", "fixes"],
        ["export", "some", "--from", "v1", "--to", "v3", "--json"],
        ["codebook", "plot", "--out", "keys.png", "--json"],
        ["rollback", "v0"],
        ["import", "some", "--dry-run"],
        ["import", "some", "--reason", "from may", "--on-conflict", "supersede"],
        ["import", "some", "--json"],
        ["compact", "--json"],
        ["generate", CAT, "--max-new-tokens", "3"],
        ["verify"],
        ["log"],
        ["sql", "SELECT author, agent, conversation, reason FROM operation_log ORDER BY seq"],
    ):  # fmt: skip
        codes.append(pair.same(*line).code)
    assert codes == [0, 0, 1]
    assert (pair.served.folder / "keys.png").read_bytes()[:4] == b"\x89PNG"


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
    import editkit.opening
    from editkit_cli import local

    monkeypatch.setattr(editkit.opening, "open", forbidden)
    monkeypatch.setattr(editkit, "open", forbidden, raising=False)
    monkeypatch.setattr(local, "open_store", forbidden)
    for line in (["log"], ["generate", CAT], ["explain", CAT], ["status"], ["diff"]):
        assert calm_pair.served.run(*line).code == 0


def test_a_comparison_is_written_where_the_command_was_given(calm_pair: Pair) -> None:
    ran = calm_pair.same("diff", "v1", "v3", "--html", "diff.html")
    assert ran.code == 0
    assert "<html" in Path(calm_pair.served.folder, "diff.html").read_text()
