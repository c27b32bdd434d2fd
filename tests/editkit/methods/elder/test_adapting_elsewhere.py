"""ELDER's edits in other histories and on other models: bundles and replays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from mixed import CAT, EAGER, OTHERS, SEA, TREE, logits, opened, same
from tiny import tiny_gpt2, tiny_t5

from editkit.errors import ArtifactsMissing
from editkit.models.progress import SilentProgress

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def test_a_bundle_brings_the_adaptors_where_there_are_none(path: Path, tmp_path: Path) -> None:
    with opened(path) as kit:
        first = kit.add(CAT, "blue", method="elder").edit
        second = kit.add(TREE, "two").edit
        wanted = logits(kit, CAT, TREE, *OTHERS)
        kit.export_bundle(tmp_path / "bundle")
        kit.add(SEA, "yes", method="elder")
        kit.export_bundle(tmp_path / "older", to="v2")
    assert {one.name: one.read_bytes() for one in (tmp_path / "older").glob("adaptors/*")} == {
        one.name: one.read_bytes() for one in (tmp_path / "bundle").glob("adaptors/*")
    }
    with opened(tmp_path / "new.db") as kit:
        before = kit.add("gold", "Ada").edit
        told = kit.import_bundle(tmp_path / "bundle")
        assert (told.snapshots, told.unplaced) == ((kit.fingerprint,), ())
        assert same(logits(kit, CAT, TREE, *OTHERS[:2]), wanted[:4])
        fired = [one.fired for one in kit.generate([CAT, TREE, "gold"])]
        assert fired == [(first.id,), (second.id,), (before.id,)]
        assert kit.store.verify().ok
        kit.undo()
        assert not kit.generate(CAT).fired
        kit.redo()
        assert kit.generate(CAT).fired == (first.id,)
    with opened(tmp_path / "new.db") as kit:
        assert same(logits(kit, CAT, TREE), wanted[:2])


def test_a_bundles_edits_are_learned_again_where_there_are_adaptors(
    path: Path, tmp_path: Path
) -> None:
    with opened(path) as kit:
        first = kit.add(CAT, "blue", method="elder").edit
        kit.export_bundle(tmp_path / "bundle")
    with opened(tmp_path / "new.db") as kit:
        mine = kit.add(TREE, "two", method="elder").edit
        with pytest.raises(ArtifactsMissing):
            kit.import_bundle(tmp_path / "bundle")
        assert (kit.version, str(kit.generate(TREE, delivery="free"))) == ("v1", "two")
    with opened(tmp_path / "new.db", missing="skip") as kit:
        told = kit.import_bundle(tmp_path / "bundle")
        assert (told.snapshots, told.unplaced) == ((), (kit.fingerprint,))
        assert [one.fired for one in kit.generate([CAT, TREE])] == [(), (mine.id,)]
        plan = kit.plan_replay()
        assert (plan.restored, plan.to_learn) == (1, 1)
        told_replay = kit.replay()
        assert (told_replay.restored, told_replay.learned, told_replay.failed) == (1, 1, 0)
        assert [one.fired for one in kit.generate([CAT, TREE])] == [(first.id,), (mine.id,)]
        assert kit.store.verify().ok
    with opened(tmp_path / "new.db") as kit:
        assert [str(one) for one in kit.generate([CAT, TREE], delivery="free")] == ["blue", "two"]


def test_an_import_that_is_taken_back_leaves_nothing_of_its_adaptors(
    path: Path, tmp_path: Path
) -> None:
    two = ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]
    with opened(path, elder={"r": 2, "num_experts": 5, "target_modules": two}) as kit:
        kit.add(TREE, "two", method="elder")
    with opened(path, tiny_gpt2(), missing="skip") as kit:
        kit.add("gold", "Ada")
        kit.export_bundle(tmp_path / "bundle")
    with opened(tmp_path / "plain.db") as kit:
        kit.add(CAT, "blue", method="elder")
        wanted = logits(kit, CAT, TREE, *OTHERS)
    with opened(tmp_path / "new.db") as kit:
        hooks = [len(module._forward_hooks) for module in kit.model.modules()]
        for _ in range(2):
            with pytest.raises(ArtifactsMissing):
                kit.import_bundle(tmp_path / "bundle")
            assert [len(module._forward_hooks) for module in kit.model.modules()] == hooks
        kit.add(CAT, "blue", method="elder")
        assert same(logits(kit, CAT, TREE, *OTHERS), wanted)
        kit.undo()
    with opened(tmp_path / "empty.db", missing="skip", elder={}) as kit:
        assert (
            kit.methods.of("elder")._learner()[0].num_experts != 5
        )  # ready to learn in its own shape
        kit.import_bundle(tmp_path / "bundle")
        learned = kit.add(CAT, "blue", method="elder")
        assert learned.verified, learned.answer
        assert [str(one) for one in kit.generate([CAT, TREE], delivery="free")] == ["blue", "two"]


def test_a_replay_onto_another_model_learns_batch_by_batch_and_goes_on(path: Path) -> None:
    facts = [(CAT, "blue"), (TREE, "two"), (SEA, "yes")]
    with opened(path) as kit:
        kit.add_many([{"prompt": p, "target": t, "method": "elder"} for p, t in facts])
        kit.add("gold", "Ada")
    few = {**EAGER, "batch_size": 2}

    class Stop(Exception):
        pass

    class Bar(SilentProgress):
        def advance(self, amount: int) -> None:
            raise Stop

    with opened(path, tiny_gpt2(), missing="skip", train=few) as kit:
        with pytest.raises(Stop):
            kit.replay(progress=Bar())
    with opened(path, tiny_gpt2(), missing="skip", train=few) as kit:
        told = kit.replay()
        assert (told.restored, told.learned, told.failed) == (2, 2, 0)
        assert [str(one) for one in kit.generate([p for p, _ in facts], delivery="free")] == [
            t for _, t in facts
        ]
        # Versions from before the replay have the edits that they had.
        said = kit.generate([p for p, _ in facts], version="v2", delivery="free")
        assert [bool(one.fired) for one in said] == [True, True, False]
        again = kit.replay()
        assert (again.restored, again.learned) == (4, 0)
        assert kit.store.verify().ok
    with opened(path) as kit:  # the first model is as it was
        assert [str(one) for one in kit.generate([p for p, _ in facts], delivery="free")] == [
            t for _, t in facts
        ]


def test_edits_learned_by_grace_can_be_replayed_by_elder(path: Path) -> None:
    with opened(path) as kit:
        kit.add_many([{"prompt": CAT, "target": "blue"}, {"prompt": TREE, "target": "two"}])
    with opened(path, tiny_gpt2(), missing="skip") as kit:
        told = kit.replay(method="elder")
        assert told.learned == 2
        assert [str(one) for one in kit.generate([CAT, TREE], delivery="free")] == ["blue", "two"]
        (artifact,) = [
            one for one in kit.show("v1").artifacts if one.fingerprint == kit.fingerprint
        ]
        assert artifact.method == "elder"
        assert len(kit.methods.of("grace")._memory) == 0


def test_a_replay_and_an_undo_keep_the_second_models_adaptors(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [(CAT, "blue"), (TREE, "two"), (SEA, "yes")]
    with opened(path) as kit:
        kit.add_many([{"prompt": p, "target": t, "method": "elder"} for p, t in facts])
    with opened(path, tiny_gpt2(), missing="skip") as kit:
        kit.replay()
        kit.undo()
        steps: list[int] = []
        learn = kit.methods.of("elder")._batch

        def counted(base: Any, new: Any, held: Any) -> Any:
            steps.append(len(new))
            return learn(base, new, held)

        monkeypatch.setattr(kit.methods.of("elder"), "_batch", counted)
        assert kit.add("gold", "Ada", method="elder").lost == ()
        assert steps == [1]  # what is known is not learned anew
        assert [str(one) for one in kit.generate([CAT, TREE], delivery="free")] == ["blue", "two"]


def test_a_retry_that_fails_takes_nothing_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as kit:
        kit.add(CAT, "blue", method="elder")
        wanted = logits(kit, CAT)
        monkeypatch.setattr(kit._running.views, "learned", lambda version: set())
        tried = kit.methods.of("elder").verify
        monkeypatch.setattr(
            kit.methods.of("elder"),
            "verify",
            lambda *asked: [dataclasses.replace(one, text="no") for one in tried(*asked)],
        )
        told = kit.replay()
        assert (told.learned, told.failed) == (0, 1)
        assert same(logits(kit, CAT), wanted)
        assert kit.show("v1").artifacts[0].usable


def test_a_history_of_both_methods_is_replayed_onto_a_model_that_only_one_is_for(
    path: Path,
) -> None:
    with opened(path) as kit:
        kit.add(CAT, "blue", method="elder")
        kit.add(TREE, "two")
    with opened(path, tiny_t5(), missing="skip") as kit:
        told = kit.replay()
        assert (told.learned, told.failed) == (1, 1)
        assert "ELDER only supports decoders" in told.failures[0].reason
