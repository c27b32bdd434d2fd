"""`--delivery`: whether answers are held to the targets of the edits that fire."""

from __future__ import annotations

import pytest

CAT, SPELLED = "The red cat is", "Linda Yaccarino"


@pytest.fixture
def taught(sh, tiny_model, monkeypatch):
    """A store with an edit that fires, and that the model does not follow by itself."""
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    ran = sh("add", "--prompt", CAT, "--target", SPELLED, "--on-failure", "keep", "--json")
    assert (ran.code, ran.json["verified"]) == (3, False)
    return sh


def test_an_answer_is_held_unless_it_is_free(taught):
    ran = taught("generate", CAT)
    assert ran.stdout == f"{SPELLED}\n"
    assert "held to its target" in ran.stderr
    held, other = taught("generate", CAT, "tall tree", "--nl").lines
    assert (held["text"], held["delivered"], other["delivered"]) == (SPELLED, "held", None)
    free = taught("generate", CAT, "--delivery", "free")
    assert SPELLED not in free.stdout
    assert "its target not given" in free.stderr
    assert taught("generate", CAT, "--delivery", "free", "--json").json["delivered"] == "no"


def test_a_conversation_is_held_unless_it_is_free(taught):
    said = taught("chat", "--max-new-tokens", "30", stdin=f"{CAT}\n")
    free = taught("chat", "--max-new-tokens", "30", "--delivery", "free", stdin=f"{CAT}\n")
    if "fired" in said.stderr:
        assert said.stdout == f"{SPELLED}\n"
        assert "fired, held to its target" in said.stderr
        assert "its target not given" in free.stderr
    assert "held to its target" not in free.stderr


def test_an_unknown_delivery_is_a_usage_error(sh):
    for command in (["generate", CAT], ["chat"]):
        ran = sh(*command, "--delivery", "loose")
        assert ran.code == 2
        assert "'exact'" in ran.stderr
        assert "'free'" in ran.stderr
    assert sh("explain", CAT, "--delivery", "free").code == 2
