"""ELDER's edits on a running model with a history: versions, reverts, and beside GRACE's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mixed import CAT, EAGER, OTHERS, SEA, TREE, logits, opened, same
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer

import editkit
from editkit.errors import ArtifactsMissing, UnsupportedMethod, UnsupportedModel
from editkit.kit import Kit
from editkit.models.progress import SilentProgress
from editkit_store.errors import InvalidRequest, StoreDamaged

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def kit(request: pytest.FixtureRequest, path: Path) -> Iterator[Kit]:
    with opened(path, request.param()) as found:
        yield found


def test_an_edit_holds_for_its_wordings_and_for_nothing_else(kit: Kit) -> None:
    before = logits(kit, *OTHERS)
    added = kit.add(CAT, "blue", method="elder", rephrases=["cat red"])
    assert (added.verified, added.version, added.edit.method) == (True, "v1", "elder")
    assert added.reach is not None
    assert (added.reach.covered, added.reach.radius) == (1, 0.8)
    for prompt in (CAT, "cat red"):
        said = kit.generate(prompt, delivery="free")
        assert (said.text, said.fired) == ("blue", (added.edit.id,))
    assert same(logits(kit, *OTHERS), before)
    assert str(kit.generate(CAT, version="v0", delivery="free")) != "blue"
    (shown,) = kit.show("v1").artifacts
    assert (shown.method, shown.verified, shown.metrics["lost"]) == ("elder", True, [])


def test_a_batch_is_one_snapshot_and_each_version_has_the_edits_up_to_its_own(kit: Kit) -> None:
    facts = [(CAT, "blue"), (TREE, "two"), (SEA, "yes")]
    told = kit.add_many([{"prompt": p, "target": t, "method": "elder"} for p, t in facts])
    assert [one.version for one in told] == ["v1", "v2", "v3"]
    assert all(one.verified for one in told)
    assert len({one.digest for one in kit.store.snapshots.placed(kit.fingerprint)}) == 1
    for number, (prompt, target) in enumerate(facts, 1):
        said = kit.generate([prompt] * 4, version=[f"v{v}" for v in range(4)], delivery="free")
        assert [str(one) == target for one in said] == [v >= number for v in range(4)]


def test_an_edit_learned_later_leaves_the_earlier_ones_alone(kit: Kit) -> None:
    kit.add(CAT, "blue", method="elder")
    kit.add(TREE, "two", method="elder")
    third = kit.add(SEA, "yes", method="elder")
    assert third.lost == ()
    assert [str(one) for one in kit.generate([CAT, TREE, SEA], delivery="free")] == [
        "blue",
        "two",
        "yes",
    ]


def test_a_reopened_history_gives_the_same_logits_at_every_version(path: Path) -> None:
    with opened(path) as kit:
        for prompt, target in ((CAT, "blue"), (TREE, "two"), (CAT, "green")):
            kit.add(prompt, target, method="elder")
        kit.rollback("v1")
        asked = (CAT, TREE, *OTHERS)
        wanted = {f"v{v}": logits(kit, *asked, version=f"v{v}") for v in range(5)}
        assert same(wanted["v1"], wanted["v4"])
        assert not same(wanted["v1"], wanted["v2"])
    with editkit.open(path, model=(tiny_llama(), tiny_tokenizer())) as again:
        for version, found in wanted.items():
            assert same(logits(again, *asked, version=version), found)
        assert again.store.verify().problems == ()
        # What follows is learned in the shape that the history has.
        assert again.add(SEA, "yes", method="elder", on_failure="keep").edit.status == "active"
        assert again.store.snapshots.get(
            again.store.snapshots.placed(again.fingerprint)[-1].digest or "", only=()
        ).settings["r"] == 4  # fmt: skip


def test_taking_a_correction_back_and_forth_restores_bits(kit: Kit) -> None:
    kit.add(CAT, "blue", method="elder")
    kit.add(TREE, "two", method="elder")
    asked = (CAT, TREE, *OTHERS)
    first, second = logits(kit, *asked, version="v1"), logits(kit, *asked)
    kit.undo()
    assert same(logits(kit, *asked), first)
    kit.redo()
    assert same(logits(kit, *asked), second)
    kit.rollback("v0")
    assert not kit.generate(CAT).fired
    # What is learned after a rollback rests on what was there then.
    placed = kit.store.snapshots.placed(kit.fingerprint)[-1]
    assert placed.digest is None
    kit.add(CAT, "blue", method="elder")
    assert same(logits(kit, CAT), logits(kit, CAT, version="v1"))


def test_a_revert_in_the_middle_learns_the_later_ones_again(kit: Kit) -> None:
    first = kit.add(CAT, "blue", method="elder").edit
    middle = kit.add(TREE, "two", method="elder").edit
    last = kit.add(SEA, "yes", method="elder").edit
    steps: list[int] = []

    class Bar(SilentProgress):
        def start(self, task: str, total: int | None, unit: str) -> None:
            steps.append(total or 0)

        def advance(self, amount: int) -> None:
            steps.append(amount)

    told = kit.revert(middle.id, progress=Bar())
    assert (told.relearned, told.lost, told.view) == ((last.id,), (), 2)
    assert steps == [1, 1]
    said = kit.generate([CAT, TREE, SEA], delivery="free")
    assert [str(said[0]), str(said[2])] == ["blue", "yes"]
    assert [one.fired for one in said] == [(first.id,), (), (last.id,)]
    assert "learned 1 again" in told.detail
    # As if it had never been: what is left of it is not even a code.
    _, digest = kit.store.snapshots.at(4).popitem()
    assert middle.id not in kit.methods.of("elder")._adaptors._known(str(digest))
    kit.undo()
    assert [str(one) for one in kit.generate([CAT, TREE, SEA], delivery="free")] == [
        "blue",
        "two",
        "yes",
    ]
    # The newest one needs no learning: the adaptors from before it come back.
    assert kit.revert(last.id).relearned == ()
    assert same(logits(kit, CAT, TREE), logits(kit, CAT, TREE, version="v2"))
    assert kit.store.verify().ok


def test_a_deferred_revert_is_at_once_and_says_so(kit: Kit) -> None:
    before = logits(kit, CAT)
    first = kit.add(CAT, "blue", method="elder").edit
    kit.add(TREE, "two", method="elder")
    placed = kit.store.snapshots.placed(kit.fingerprint)
    told = kit.revert(first.id, defer_only=True)
    assert kit.store.snapshots.placed(kit.fingerprint) == placed
    assert "deferred" in told.detail
    assert same(logits(kit, CAT), before)
    assert str(kit.generate(TREE, delivery="free")) == "two"
    assert kit.log()[0].detail == told.detail


def test_an_edit_that_replaced_another_gives_it_back(kit: Kit) -> None:
    kit.add(CAT, "blue", method="elder")
    newer = kit.add(CAT, "green", method="elder")
    assert newer.supersedes
    assert (
        str(kit.generate(CAT, delivery="free")),
        str(kit.generate(CAT, version="v1", delivery="free")),
    ) == ("green", "blue")
    kit.add(TREE, "two", method="elder")
    with pytest.raises(ArtifactsMissing, match="forgotten"):
        kit.revert(newer.edit.id, defer_only=True)
    assert kit.version == "v3"
    kit.revert(newer.edit.id)
    assert [str(one) for one in kit.generate([CAT, TREE], delivery="free")] == ["blue", "two"]


def test_both_methods_correct_one_model_and_the_nearer_edit_applies(path: Path) -> None:
    with opened(path) as kit:
        elder = kit.add(CAT, "blue", method="elder").edit
        grace = kit.add(TREE, "two").edit
        said = kit.generate([CAT, TREE], delivery="free")
        assert [one.fired for one in said] == [(elder.id,), (grace.id,)]
        assert [str(one) for one in said] == ["blue", "two"]
        # Both balls hold both prompts: `cat` is what they have in common.
        other = kit.add("The red cat now is", "white").edit
        scopes = kit.methods.of("grace")._memory, kit.methods.of("elder")._adaptors
        assert all(scopes)
        assert [one.fired for one in kit.generate([CAT, "The red cat now is"])] == [
            (elder.id,), (other.id,),
        ]  # fmt: skip
        explained = kit.explain(CAT)
        assert explained.fired == elder.id
        assert {one.edit_id: one.bits is None for one in explained.candidates} == {
            elder.id: False, grace.id: True, other.id: True,
        }  # fmt: skip
        # The newer correction of a prompt wins, whichever method made it.
        taken = kit.add(CAT, "green")
        assert taken.supersedes == (elder.id,)
        assert kit.generate(CAT).fired == (taken.edit.id,)
        back = kit.add(CAT, "white", method="elder")
        assert back.supersedes == (taken.edit.id,)
        assert (str(kit.generate(CAT, delivery="free")), kit.generate(CAT).fired) == (
            "white",
            (back.edit.id,),
        )
        kit.revert(back.edit.id)
        kit.revert(taken.edit.id)
        assert kit.generate(CAT).fired == (elder.id,)


def test_a_contradiction_is_told_before_anything_is_learned(kit: Kit) -> None:
    first = kit.add(CAT, "blue", method="elder").edit
    told = kit.add("The red cat was", "green", method="elder", on_conflict="keep")
    assert (told.outcome, told.edit.id) == ("kept", first.id)
    (found,) = told.conflicts
    assert (found.kind, found.edit_id, found.radius) == ("scope", first.id, 0.8)


def test_explain_tells_bits_and_what_defers(kit: Kit) -> None:
    edit = kit.add(CAT, "blue", method="elder").edit
    told = kit.explain(CAT)
    (one,) = told.candidates
    assert (told.fired, one.edit_id, one.distance, one.bits) == (edit.id, edit.id, 0.0, 0)
    far = kit.explain("milk and bread")
    assert far.fired is None
    assert not far.candidates[0].in_scope
    assert kit.explain(CAT, version="v0").candidates == ()


def test_diff_tells_weights_routers_and_codes(kit: Kit) -> None:
    first = kit.add(CAT, "blue", method="elder").edit
    second = kit.add(TREE, "two", method="elder").edit
    told = kit.diff("v0", "v1")
    assert told.codes.added == (first.id,)
    assert told.codes.threshold_before is None
    state = kit.methods.of("elder")._adaptors.base(1)
    later = kit.methods.of("elder")._adaptors.base(2)
    assert state is not None
    assert later is not None
    told = kit.diff("v1", "v2")
    assert (told.codes.added, told.codes.removed, told.codes.changed) == ((second.id,), (), ())
    for layer, change in enumerate(told.adaptors):
        moved = [
            state.scaling * (later.lora_B[layer][e] @ later.lora_A[layer][e]
                             - state.lora_B[layer][e] @ state.lora_A[layer][e])
            for e in range(state.num_experts)
        ]  # fmt: skip
        norms = {e: float(one.norm()) for e, one in enumerate(moved) if float(one.norm())}
        assert {one.expert for one in change.experts} >= set(norms)
        for one in change.experts:
            assert one.delta_norm == pytest.approx(norms.get(one.expert, 0.0), abs=1e-4)
        assert change.delta_norm == pytest.approx(
            sum(norm**2 for norm in norms.values()) ** 0.5, abs=1e-4
        )
        drift = float((later.routers[layer] - state.routers[layer]).norm())
        assert change.router_drift == pytest.approx(drift, rel=1e-5)
    assert kit.diff("v2", "v2").adaptors == ()
    assert [one.layer for one in told.adaptors] == [
        one.layer for one in kit.diff("v2", "v1").adaptors
    ]


def test_a_failed_edit_leaves_the_adaptors_as_they_were(path: Path) -> None:
    with opened(path, train={"steps": 1, "rounds": 0, "learning_rate": 1e-5}) as kit:
        before = logits(kit, CAT, *OTHERS)
        told = kit.add(CAT, "blue", method="elder")
        assert (told.verified, told.edit.status, kit.version) == (False, "failed", "v0")
        assert kit.store.snapshots.placed(kit.fingerprint) == []
        assert same(logits(kit, CAT, *OTHERS), before)
        kept = kit.add(CAT, "blue", method="elder", on_failure="keep")
        assert (kept.version, kept.verified, kept.edit.status) == ("v1", False, "active")
        assert kit.generate(CAT).fired == (kept.edit.id,)
    with opened(path) as again:
        assert again.generate(CAT).fired == (kept.edit.id,)
        assert again.store.verify().ok


def test_what_a_batch_breaks_is_reported(path: Path) -> None:
    """Without rehearsal and without a second look, later edits undo earlier ones."""
    facts = [(CAT, "blue"), (TREE, "two"), (SEA, "yes"), ("gold and silver", "cat"),
             ("Who sings?", "dog"), ("bread with salt", "one")]  # fmt: skip
    careless = {**EAGER, "rehearsed": 0, "rounds": 0, "batch_size": 1}
    with opened(path, train=careless, elder={"r": 2, "num_experts": 4}) as kit:
        told = kit.add_many(
            [{"prompt": p, "target": t, "method": "elder"} for p, t in facts], on_failure="keep"
        )
        said = [str(one) for one in kit.generate([p for p, _ in facts[:-1]], delivery="free")]
        broken = {
            one.edit.id for one, answer in zip(told[:-1], said, strict=True)
            if answer != one.edit.target
        }  # fmt: skip
        assert broken
        assert set(told[-1].lost) == broken
        (shown,) = kit.show("@").artifacts
        assert set(shown.metrics["lost"]) == broken
    with opened(path.with_name("careful.db"), elder={"r": 2, "num_experts": 4}) as kit:
        told = kit.add_many(
            [{"prompt": p, "target": t, "method": "elder"} for p, t in facts], on_failure="keep"
        )
        assert not any(one.lost for one in told)


def test_two_models_with_adaptors_in_two_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    kits = [opened(tmp_path / f"{seed}.db", tiny_llama(seed)) for seed in range(2)]
    targets = ("blue", "green")
    said: list[list[str]] = [[], []]
    try:
        for one, target in zip(kits, targets, strict=True):
            assert one.add(CAT, target, method="elder").verified

        def ask(index: int) -> None:
            for _ in range(8):
                said[index] += [
                    str(found) for found in kits[index].generate([CAT, SEA], delivery="free")
                ][:1]

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for one in kits:
            one.close()
    assert said == [[target] * 8 for target in targets]


def test_other_models_than_decoders_and_other_shapes_are_refused(path: Path) -> None:
    for model in (tiny_bert(), tiny_t5()):
        with opened(path, model) as kit, pytest.raises(UnsupportedModel, match="ELDER"):
            kit.add(CAT, "positive", method="elder")
    path.unlink()
    with opened(path, elder={"r": 4}) as kit:
        kit.add(CAT, "blue", method="elder")
    with opened(path, elder={"r": 2}) as kit:
        with pytest.raises(UnsupportedMethod, match="r = 4; 2 was requested"):
            kit.add(TREE, "two", method="elder")
        assert str(kit.generate(CAT, delivery="free")) == "blue"
        assert kit.version == "v1"


@pytest.mark.parametrize(
    ("elder", "error", "message"),
    [
        ({"top_k": 9}, ValueError, "top_k must be at most num_experts"),
        ({"threshold": 99}, ValueError, "threshold must be at most the length of a code"),
        ({"target_modules": ["nothing"]}, Exception, "no module of the model is named 'nothing'"),
        ({"target_modules": ["input_layernorm"]}, Exception, "not a linear map"),
    ],
)
def test_a_bad_shape_is_refused_when_something_is_to_be_learned(
    path: Path, elder: Any, error: type[Exception], message: str
) -> None:
    with opened(path, elder=elder) as kit:
        with pytest.raises(error, match=message):
            kit.add(CAT, "blue", method="elder")
        assert kit.version == "v0"
        assert kit.add(CAT, "blue").verified  # GRACE does not mind


def test_a_damaged_tensor_is_named_and_nothing_is_half_loaded(path: Path) -> None:
    import duckdb

    with opened(path) as kit:
        kit.add(CAT, "blue", method="elder")
    with duckdb.connect(str(path)) as raw:
        digest = raw.execute("SELECT digest FROM tensors ORDER BY length DESC LIMIT 1").fetchall()
        raw.execute("DELETE FROM tensors WHERE digest = ?", digest[0])
    model = tiny_llama()
    with pytest.raises(StoreDamaged, match=digest[0][0]):
        opened(path, model)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(InvalidRequest):
        opened(path.with_name("other.db"), model).add("", "blue", method="elder")


def test_the_papers_preset_asks_the_code_alone_and_keeps_its_constants(path: Path) -> None:
    def paper() -> Kit:
        return editkit.open(path, model=(tiny_llama(), tiny_tokenizer()), preset="paper")

    with paper() as kit:
        told = kit.add(CAT, "blue", method="elder", on_failure="keep")
        assert told.reach is None  # no radius is known
        assert told.steps == 50
        again = kit.add(TREE, "two", method="elder", on_failure="keep")
        about = kit.store.snapshots.get(
            kit.store.snapshots.at(2)[kit.fingerprint] or "", only=()
        ).settings
        assert (about["query"], about["radius"], about["resolution"]) == ("state", None, None)
        assert (about["r"], about["num_experts"], about["top_k"]) == (8, 4, 2)
        assert (about["threshold"], about["separation"]) == (12, None)
        explained = kit.explain(CAT)
        assert explained.fired in (told.edit.id, again.edit.id)
        for one in explained.candidates:
            assert (one.distance, one.radius) == (one.bits, 12.0)
        grace = kit.add("gold", "Ada").edit
        assert grace.id in [one.edit_id for one in kit.explain("gold").candidates]
        assert kit.generate("gold").fired == (grace.id,)
        wanted = logits(kit, CAT, TREE, "gold")
    with paper() as kit:
        assert same(logits(kit, CAT, TREE, "gold"), wanted)
        assert kit.store.verify().ok


def test_a_turn_of_a_conversation_is_corrected_with_its_rephrasings(kit: Kit) -> None:
    turn = [{"role": "user", "content": "red cat?"}]
    other = [{"role": "user", "content": "cat, red"}]
    edit = kit.add(chat=turn, target="blue", method="elder", rephrases=["cat, red"]).edit
    for asked in (turn, other):
        said = kit.chat(asked, max_new_tokens=4, delivery="free")
        assert (said.text, said.fired) == ("blue", (edit.id,))
    assert not kit.chat([{"role": "user", "content": "gold"}], max_new_tokens=4).fired


def test_adaptors_that_ask_states_need_no_keys_of_prompts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooled key is made by running the model: not in the midst of a run."""
    from editkit.scope.pooled import PooledKeys

    by_state = {"query": "state", "radius": None, "threshold": 1, "r": 4}
    with opened(path, elder=by_state) as kit:
        edit = kit.add(CAT, "blue", method="elder").edit
        monkeypatch.setattr(PooledKeys, "key", lambda *args: pytest.fail("a key was asked for"))
        said = kit.generate([CAT, *OTHERS], delivery="free")
        assert [one.fired for one in said] == [(edit.id,), (), (), ()]
        assert str(said[0]) == "blue"


def test_a_revert_starts_from_its_own_line_of_the_history(path: Path) -> None:
    with opened(path) as kit:
        first = kit.add(CAT, "blue", method="elder").edit
        second = kit.add(TREE, "two", method="elder").edit
        kit.rollback("v0")
        kit.add(SEA, "yes", method="elder")  # a line that is left
        kit.rollback("v2")
        told = kit.revert(first.id)
        assert told.relearned == (second.id,)
        fresh = editkit.open(path.with_name("fresh.db"), model=(tiny_llama(), tiny_tokenizer()),
                             train=EAGER, elder={"r": 4})  # fmt: skip
        with fresh:
            fresh.add(TREE, "two", method="elder")
            assert same(logits(kit, TREE), logits(fresh, TREE))


def test_a_scaling_that_is_no_round_number_is_the_histories_own(tmp_path: Path) -> None:
    shape = {"r": 7, "lora_alpha": 29}
    for number, prompt in enumerate((CAT, TREE)):
        with opened(tmp_path / "history.db", elder=shape) as kit:
            added = kit.add(prompt, ("blue", "two")[number], method="elder")
            assert added.verified
            assert kit.methods.of("elder")._learner()[0].lora_alpha == 29
