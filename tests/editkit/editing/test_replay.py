"""Replay: only some edits, and what it would do."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

import editkit
from editkit.errors import ArtifactsMissing
from editkit_store import open_store
from editkit_store.errors import UnknownVersion
from editkit_store.records import Provenance

EDITS = [("The sky is", "blue"), ("Grass is", "green"), ("Snow is", "white")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three edits, learned by a GPT-2; `two` names the version with the first two."""
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        added = kit.add_many([{"prompt": p, "target": t} for p, t in EDITS])
        assert all(one.verified for one in added)
        kit.tag("v2", "two")
    return path


def other(path: Path, **how: object) -> editkit.Kit:
    return editkit.open(
        path, model=(tiny_llama(), tiny_tokenizer()), missing="skip", **how  # type: ignore[arg-type]
    )  # fmt: skip


def test_only_the_edits_that_are_active_at_both_versions_are_replayed(path: Path) -> None:
    with other(path) as kit:
        first = kit.show("v1").edit
        assert first is not None
        kit.revert(first.id)
        done = kit.replay(only="two")
        assert (done.restored, done.learned, done.failed, done.version) == (0, 1, 0, "v4")
        assert kit.generate("Grass is", delivery="free").text == "green"
        assert kit.generate("Snow is").fired == ()
        assert kit.replay(only="two", to="two").learned == 1
        assert kit.generate("The sky is", version="v1", delivery="free").text == "blue"
        assert kit.replay(only="v0").restored == 0
    with pytest.raises(ArtifactsMissing, match="1 active edit"):
        editkit.open(path, model=(tiny_llama(), tiny_tokenizer()))


def test_the_history_keeps_what_was_chosen_and_who_replayed_it(path: Path) -> None:
    with other(path, provenance=Provenance(author="ada", reason="trial")) as kit:
        kit.replay(only="two")
        finished = kit.store.history.operations(limit=1)[0]
        assert finished.detail["only"] == "v2"
        assert {(one.author, one.reason) for one in kit.log() if one.operation == "replay"} == {
            ("ada", "trial")
        }


def test_a_plan_says_what_a_replay_then_does(path: Path) -> None:
    with other(path) as kit:
        kit.replay(to="v1")
        planned = kit.plan_replay()
        assert [(one.prompt, one.action) for one in planned.edits] == [
            ("The sky is", "restore"), ("Grass is", "learn"), ("Snow is", "learn"),
        ]  # fmt: skip
        assert (planned.restored, planned.to_learn, planned.version) == (1, 2, "v3")
        assert (planned.model, planned.fingerprint) == (kit.name, kit.fingerprint)
        some = kit.plan_replay(only="two")
        assert [one.prompt for one in some.edits] == ["The sky is", "Grass is"]
        done = kit.replay()
        assert (done.restored, done.learned) == (planned.restored, planned.to_learn)
        assert kit.plan_replay().to_learn == 0


def test_a_plan_writes_nothing_and_needs_no_right_to_write(path: Path) -> None:
    before = path.read_bytes()
    with other(path, read_only=True) as kit:
        assert kit.plan_replay().to_learn == 3
    assert path.read_bytes() == before


def test_the_estimate_is_this_models_median_or_else_that_of_others(path: Path) -> None:
    with open_store(path) as store:
        learned = [a for e in store.history.active(3) for a in store.artifacts.of_edit(e.id)]
    median = statistics.median(one.metrics["seconds"] for one in learned)
    with other(path) as kit:
        planned = kit.plan_replay()
        assert planned.measured_on == "other models"
        assert planned.seconds == pytest.approx(3 * median)
        kit.replay(to="v1")
        (own,) = (
            one.metrics["seconds"]
            for one in kit.store.artifacts.of_edit(planned.edits[0].edit_id)
            if one.fingerprint == kit.fingerprint
        )
        planned = kit.plan_replay()
        assert planned.measured_on == "this model"
        assert planned.seconds == pytest.approx(2 * own)
        kit.replay()
        assert kit.plan_replay().seconds == 0


def test_where_nothing_was_learned_there_is_no_estimate(kit: editkit.Kit) -> None:
    planned = kit.plan_replay()
    assert (planned.seconds, planned.measured_on, planned.edits) == (None, None, ())


def test_what_a_replay_refuses_a_plan_refuses(path: Path) -> None:
    with other(path) as kit:
        for wrong in ({"to": "nope"}, {"only": "nope"}):
            with pytest.raises(UnknownVersion):
                kit.plan_replay(**wrong)
            with pytest.raises(UnknownVersion):
                kit.replay(**wrong)
        assert not [one for one in kit.log() if one.operation == "replay"]
