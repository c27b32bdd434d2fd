"""Two versions side by side: what the model answers at each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

import editkit
from editkit import Kit
from editkit.errors import ArtifactsMissing, PromptTooLong
from editkit.history.diff import diff
from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.payload import GracePayload
from editkit_store import digest_bytes, open_store
from editkit_store.errors import InvalidRequest, StoreError, UnknownVersion
from editkit_store.records import Artifact, EditRequest
from editkit_store.records.comparisons import BehaviorChange, Diff

PROMPT = "The capital of Australia is"


def only(found: Diff, kind: str) -> list[BehaviorChange]:
    return [one for one in found.behavior if one.kind == kind]


def test_without_behavior_nothing_is_asked(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.add(PROMPT, "Canberra")
    monkeypatch.setattr(kit._running.engine, "generate", None)
    assert kit.diff("v0", "v1").behavior == ()


def test_the_answers_to_an_edit_are_put_side_by_side(kit: Kit) -> None:
    edit = kit.add(
        PROMPT, "Canberra", rephrases=["Australia's capital?"], locality=["The sky is"]
    ).edit
    found = kit.diff("v0", "v1", behavior=True)
    assert [one.kind for one in found.behavior] == ["edit", "rephrase", "locality"]
    (asked,) = only(found, "edit")
    assert (asked.prompt, asked.edit_id, asked.target) == (PROMPT, edit.id, "Canberra")
    assert (asked.after, asked.changed) == ("Canberra", True)
    assert asked.before != "Canberra"
    assert (asked.fired_before, asked.fired_after) == ((), (edit.id,))
    (rephrase,) = only(found, "rephrase")
    assert (rephrase.prompt, rephrase.target) == ("Australia's capital?", "Canberra")
    (local,) = only(found, "locality")
    assert (local.edit_id, local.target) == (edit.id, None)
    assert (local.changed, local.before == local.after) == (False, True)
    assert (found.from_, found.to, found.added) == ("v0", "v1", (edit,))


def test_the_other_way_round_the_answers_change_places(kit: Kit) -> None:
    kit.add(PROMPT, "Canberra")
    (there,) = kit.diff("v0", "v1", behavior=True).behavior
    (back,) = kit.diff("v1", "v0", behavior=True).behavior
    assert (back.before, back.after) == (there.after, there.before)
    assert back.fired_before == there.fired_after


def test_answers_are_those_of_generate_at_that_version(kit: Kit) -> None:
    kit.add(PROMPT, "Canberra")
    kit.add(PROMPT, "Sydney")
    (asked,) = kit.diff("v1", "v2", behavior=True, probes=[]).behavior
    assert (asked.before, asked.after) == ("Canberra", "Sydney")
    (probe,) = only(kit.diff("v0", "v2", probes=["Grass is"], max_new_tokens=3), "probe")
    for version, said in (("v0", probe.before), ("v2", probe.after)):
        assert (
            said
            == kit.generate("Grass is", version=version, max_new_tokens=3, delivery="free").text
        )
    assert kit.version == "v2"


def test_probes_are_asked_where_nothing_changed(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    edit = kit.add(PROMPT, "Canberra").edit
    rows: list[int] = []
    usual = kit._running.engine.generate
    monkeypatch.setattr(
        kit._running.engine,
        "generate",
        lambda ids, **how: rows.append(len(ids)) or usual(ids, **how),
    )
    found = kit.diff("v1", "@", probes=(PROMPT, "The sky is"))
    assert (found.from_, found.to, found.added, found.removed) == ("v1", "v1", (), ())
    assert [one.prompt for one in found.behavior] == [PROMPT, "The sky is"]
    assert not any(one.changed for one in found.behavior)
    assert found.behavior[0].fired_before == found.behavior[0].fired_after == (edit.id,)
    assert (found.behavior[0].edit_id, found.behavior[0].target) == (None, None)
    assert rows == [2]  # the same edits give the same answers, which are computed once
    assert kit.diff("v1", "v1", behavior=True).behavior == ()


def test_one_probe_may_be_given_as_it_is(kit: Kit) -> None:
    assert [one.prompt for one in kit.diff("@", "@", probes="The sky is").behavior] == [
        "The sky is"
    ]


def test_a_prompt_is_asked_once_a_kind_and_long_enough_for_every_target(kit: Kit) -> None:
    long = "one two three four five six seven eight nine ten one two three"
    kit.add(PROMPT, long, locality=["x"], on_failure="keep")
    kit.rollback("v0")
    new = kit.add(PROMPT, "Rome", locality=["x", "x"]).edit
    found = kit.diff("v1", "@", behavior=True, probes=[PROMPT, PROMPT])
    assert [(one.kind, one.prompt) for one in found.behavior] == [
        ("edit", PROMPT), ("locality", "x"), ("probe", PROMPT),
    ]  # fmt: skip
    (asked,) = only(found, "edit")
    assert (asked.edit_id, asked.target, asked.after) == (new.id, "Rome", "Rome")
    wanted = kit.generate(
        PROMPT, version="v1", max_new_tokens=len(long.split()) + 5, delivery="free"
    )
    assert asked.before == wanted.text


def test_a_corrected_turn_is_asked_in_its_conversation(kit: Kit) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    kit.add(chat=chat, target="Ada", rephrases=["Who is it?"])
    edit, rephrase = kit.diff("v0", "v1", behavior=True).behavior
    assert (edit.prompt, edit.after) == ("Who?", "Ada")
    assert edit.before == kit.chat(chat, version="v0", max_new_tokens=6, delivery="free").text
    asked = [chat[0], {"role": "user", "content": "Who is it?"}]
    assert rephrase.after == kit.chat(asked, max_new_tokens=6, delivery="free").text


def test_many_questions_are_asked_in_batches_and_come_back_in_order(kit: Kit) -> None:
    words = ["two", "Ada", "green", "Oslo", "tea", "gold", "Rome", "blue", "cat", "moon"] * 2
    added = kit.add_many([{"prompt": f"Question {i}?", "target": w} for i, w in enumerate(words)])
    told: list[Any] = []

    class Told:
        def start(self, task: str, total: int | None, unit: str) -> None:
            told.append(total)

        def advance(self, amount: int) -> None:
            told.append(amount)

        def done(self) -> None:
            told.append("done")

    found = kit.diff("v0", "@", behavior=True, progress=Told())
    came = [one.edit.id for one in added if one.verified]
    assert [one.edit_id for one in found.behavior] == came
    assert all(one.after == one.target for one in found.behavior)
    assert (told[0], sum(told[1:-1]), told[-1]) == (len(came), len(came), "done")


def test_an_unknown_version_and_a_bad_probe_are_refused(kit: Kit) -> None:
    with pytest.raises(UnknownVersion):
        kit.diff("v0", "v9", behavior=True)
    with pytest.raises(InvalidRequest, match="empty"):
        kit.diff("@", "@", probes=[" "])
    with pytest.raises(PromptTooLong):
        kit.diff("@", "@", probes=["x " * 300])
    with pytest.raises(InvalidRequest, match="max_new_tokens"):
        kit.diff("@", "@", probes=["x"], max_new_tokens=0)
    kit.close()
    with pytest.raises(StoreError, match="closed"):
        kit.diff("@", "@", probes=["x"])


def test_a_version_that_the_model_has_not_learned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        kit.add(PROMPT, "Canberra")
        kit.rollback("v0")
    with editkit.open(path, model=(tiny_llama(), tiny_tokenizer()), read_only=True) as kit:
        assert kit.diff("v0", "v1").codebook.missing  # without answers it can be compared
        for before, after in (("v0", "v1"), ("v1", "v0")):
            with pytest.raises(ArtifactsMissing, match="has not learned 1 active edit") as raised:
                kit.diff(before, after, behavior=True)
            assert "editkit replay" in str(raised.value.hint)
        assert len(kit.diff("v0", "v2", probes=["x"]).behavior) == 1


def test_what_the_model_cannot_be_asked_is_named(tmp_path: Path) -> None:
    path, long = tmp_path / "h.db", "very " * 30
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        edit = kit.add("A", "B", rephrases=[long]).edit
    other = (tiny_llama(max_position_embeddings=40), tiny_tokenizer())
    with editkit.open(path, model=other, missing="skip") as kit:
        kit.replay()
        found = kit.diff("v0", "v1", behavior=True)
    assert [one.prompt for one in found.behavior] == ["A"]
    (one,) = found.unasked
    assert (one.kind, one.prompt, one.edit_id) == ("rephrase", long, edit.id)
    assert "context window of 40" in one.reason


def test_a_classifiers_labels_are_compared(tmp_path: Path) -> None:
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), tiny_tokenizer())) as kit:
        said = kit.generate("good", delivery="free").text
        target = "negative" if said != "negative" else "positive"
        kit.add("good", target)
        (one,) = kit.diff("v0", "v1", behavior=True).behavior
        assert (one.before, one.after, one.changed) == (said, target, True)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_radii_in_a_diff_are_those_of_the_running_model(data: st.DataObject) -> None:
    """A crowd of keys that conflict, added, taken back and rolled back at random."""
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    with tempfile.TemporaryDirectory() as folder:
        with open_store(Path(folder) / "h.db", write=True, create=True) as store:
            memory, ids = Memory(), []
            for step in range(data.draw(st.integers(2, 14))):
                act = data.draw(st.sampled_from(["add", "add", "add", "revert", "rollback"]))
                if act == "rollback":
                    store.rollback(f"v{data.draw(st.integers(0, store.history.current()))}")
                elif act == "revert" and store.history.active_ids(store.history.current()):
                    active = store.history.active_ids(store.history.current())
                    store.revert(data.draw(st.sampled_from(active)))
                else:
                    prompt = f"p{data.draw(st.integers(0, 9))}"
                    edit = store.prepare(EditRequest(prompt=prompt, target=str(step)))
                    entry = Entry(
                        edit.id, noise.normal(0, 1, 3).astype(np.float32),
                        (data.draw(st.integers(0, 3)),), float(np.float32(noise.uniform(0.2, 2))),
                    )  # fmt: skip
                    one = GracePayload(entry, np.zeros(2, np.float32), "here")
                    (row,) = memory.put([one])
                    raw = one.to_bytes()
                    artifact = Artifact(
                        edit_id=edit.id, fingerprint="sha256:m", model="m", method="grace",
                        verified=True, usable=True, digest=digest_bytes(raw),
                        conflicts=memory.conflicts(row), radius=entry.radius,
                    )  # fmt: skip
                    store.add(edit, artifact=artifact, payload=raw, activate=True)
                    ids.append(edit.id)
            top = store.history.current()
            first, second = (data.draw(st.integers(0, top)) for _ in range(2))
            found = diff(store, f"v{first}", f"v{second}", fingerprint="sha256:m").codebook
            old, new = (_radii(memory, store.history.active_ids(v)) for v in (first, second))
            assert {r.edit_id: r.radius for r in found.added_rows} == {
                e: r for e, r in new.items() if e not in old
            }
            assert {r.edit_id: r.radius for r in found.removed_rows} == {
                e: r for e, r in old.items() if e not in new
            }
            assert {r.edit_id: (r.before, r.after) for r in found.changed_rows} == {
                e: (old[e], r) for e, r in new.items() if e in old and old[e] != r
            }
            # SQL shows what was recorded; which rows give way is derived in one place only.
            active = memory.rows(store.history.active_ids(top))
            rows = store._db.query("SELECT edit_id, initial_radius, conflicts FROM codebook_rows")
            assert {e: np.float32(r) for e, r, _ in rows} == {
                memory.edit_id(row): memory.initial(np.array([row]))[0] for row in active.tolist()
            }
            assert sum(count for _, _, count in rows) == 2 * len(memory.pairs(active))


def _radii(memory: Memory, ids: list[str]) -> dict[str, float]:
    radii = memory.radii(memory.rows(ids))
    return {memory.edit_id(row): float(radii[row]) for row in memory.rows(ids).tolist()}
