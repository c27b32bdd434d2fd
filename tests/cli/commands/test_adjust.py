"""adjust: correcting how far an edit reaches, on a tiny random model."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest


@pytest.fixture
def edited(sh, tiny_model, monkeypatch, folder) -> str:
    """The id of a verified edit in `history.db`."""
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    ran = sh("add", "--prompt", "The red cat is", "--target", "blue", "--json")
    assert ran.code == 0, ran.stderr
    return str(ran.json["edit"]["id"])


def test_adjust_prints_the_record_and_takes_effect(sh: Any, edited: str) -> None:
    ran = sh("adjust", edited[:8], "--also", "tall tree", "--not", "The red cat was", "--json",
             "--reason", "seen", "--author", "bob")  # fmt: skip
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.json["version"] == "v2"
    assert (ran.json["operation"], ran.json["outcome"]) == ("adjust", "adjusted")
    assert ran.json["also"] == [{"prompt": "tall tree", "carries": True, "answer": "blue"}]
    assert ran.json["not"] == ["The red cat was"]
    assert ran.json["adjustments"] == {"also": ["tall tree"], "not": ["The red cat was"]}
    found = sh("generate", "Tall tree", "The red cat was", "--json").json
    assert [bool(one["fired"]) for one in found] == [True, False]
    entry = sh("log", "--json").json[0]
    assert (entry["operation"], entry["author"], entry["reason"]) == ("adjust", "bob", "seen")
    assert entry["edit_id"] == edited


def test_adjust_tells_people_what_the_edit_reaches_now(sh: Any, edited: str) -> None:
    ran = sh("adjust", edited, "--also", "tall tree", "--not", "see Oslo")
    assert (ran.code, ran.stderr) == (0, "")
    shown = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert (shown["also"], shown["not"], shown["verified"]) == ("tall tree", "see Oslo", "yes")
    assert "adjust" in sh("log").stdout
    said = sh("show", "v2").stdout
    assert "also 'tall tree'; not 'see Oslo'" in said
    compared = sh("diff", "v1", "v2").stdout
    assert "adjusted prompt" in compared
    assert "tall tree" in compared
    explained = sh("explain", "tall tree").stdout
    assert "was adjusted to apply" in explained
    assert "yes, adjusted" in explained


def test_without_also_no_model_is_loaded(sh: Any, edited: str, monkeypatch: Any) -> None:
    import editkit.kit.open

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(editkit.kit.open, "open", forbidden)
    monkeypatch.setattr(sys.modules["editkit"], "open", forbidden, raising=False)
    ran = sh("adjust", edited, "--not", "The red cat was", "--json")
    assert (ran.code, ran.json["version"]) == (0, "v2")
    for line in (["--also", "x", "--not", "X!"], ["--also", " "], []):
        assert sh("adjust", edited, *line).code == 1  # refused before one is loaded
    assert sh("adjust", "ffff", "--also", "x").code == 1


def test_an_adjustment_that_does_not_carry_exits_with_3_unless_kept(
    sh: Any, edited: str, monkeypatch: Any
) -> None:
    from editkit.history.views import Views

    monkeypatch.setattr(Views, "adjusted", lambda _, view, *__: view)
    ran = sh("adjust", edited, "--also", "tall tree", "--json")
    assert ran.code == 3
    assert (ran.json["verified"], ran.json["outcome"], ran.json["version"]) == (
        False, "failed", "v1",
    )  # fmt: skip
    assert ran.json["also"][0]["carries"] is False
    assert "not 'blue'" in ran.stderr
    assert "--on-failure keep" in ran.stderr
    ran = sh("adjust", edited, "--also", "tall tree", "--on-failure", "keep", "--json")
    assert (ran.code, ran.json["outcome"], ran.json["version"]) == (0, "adjusted", "v2")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "names no prompt"),
        (["--not", "the red CAT is?"], "own prompt"),
        (["--also", "see Oslo", "--not", "SEE, Oslo"], "cannot both"),
        (["--not", "\t"], "is empty"),
        (["--not", "x" * 100_001], "longer than"),
        (["--also", "x " * 400], "context window"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(
    sh: Any, edited: str, line: list[str], said: str
) -> None:
    ran = sh("adjust", edited, *line)
    assert (ran.code, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_edit_that_is_not_active_or_not_there_cannot_be_adjusted(sh: Any, edited: str) -> None:
    sh("revert", edited)
    ran = sh("adjust", edited, "--not", "see Oslo")
    assert (ran.code, "is not active: it is reverted" in ran.stderr) == (1, True)
    ran = sh("adjust", "ffff", "--not", "see Oslo")
    assert (ran.code, "there is no edit 'ffff'" in ran.stderr) == (1, True)
    assert sh("adjust", "--not", "x").code == 2


def test_a_bundle_takes_adjustments_along(sh: Any, edited: str, folder: Any) -> None:
    sh("adjust", edited, "--not", "see Oslo")
    assert sh("export", "bundle").code == 0
    ran = sh("import", "bundle", "--store", "other.db", "--json")
    assert ran.json["adjusted"] == [edited]
    assert "adjusted" in sh("import", "bundle", "--store", "third.db").stdout
    rows = sh("show", edited, "--store", "other.db", "--json").json["adjustments"]
    assert rows == {"also": [], "not": ["see Oslo"]}
    assert json.loads((folder / "bundle" / "manifest.json").read_text())["format"].endswith(".3")
