"""How far an edit reaches: radii calibrated by what came with it, and what `add` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.kit import Kit
from editkit.scope.reach import calibrated, false_fires
from editkit_store.errors import InvalidRequest

apart = st.floats(0, 2)


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Kit]:
    with editkit.open(tmp_path / "h.db", model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        yield kit


def distance(kit: Kit, one: str, other: str) -> float:
    return float(np.linalg.norm(kit.key(one) - kit.key(other)))


@given(st.floats(0.1, 1), st.lists(apart), st.lists(apart))
def test_probes_are_left_out_and_rephrases_taken_in(
    radius: float, rephrases: list[float], probes: list[float]
) -> None:
    found = calibrated(radius, rephrases, probes, farthest=1.1)
    assert 0 < found <= max(radius, 1.1)
    assert all(found < probe for probe in probes if probe > 0.02)
    if not any(probe > 0.02 for probe in probes):
        assert found >= radius
        assert all(found > rephrase for rephrase in rephrases if rephrase <= 1.09)
    assert calibrated(radius, [], [], farthest=1.1) == radius


def test_a_given_rephrase_fires_an_edit_that_would_not_reach_it(pooled: Kit) -> None:
    far = "two cats see red"
    assert 0.8 < distance(pooled, "red cat", far) < 1.09
    plain = pooled.add("red cat", "blue")
    assert pooled.generate(far).fired == ()
    pooled.revert(plain.edit.id)
    wide = pooled.add("red cat", "blue", rephrases=[far])
    assert pooled.generate(far).fired == (wide.edit.id,)
    assert wide.reach is not None
    assert (wide.reach.rephrases, wide.reach.covered) == (1, 1)
    assert wide.reach.radius == pytest.approx(distance(pooled, "red cat", far) + 0.01, abs=1e-5)


def test_a_given_probe_does_not_fire_an_edit_that_would_reach_it(pooled: Kit) -> None:
    near = "a red cat"
    assert distance(pooled, "red cat", near) < 0.8
    edit = pooled.add("red cat", "blue", locality=[near], rephrases=["red red cat"])
    assert pooled.generate("red cat", max_new_tokens=4).fired == (edit.edit.id,)
    assert pooled.generate(near, max_new_tokens=4).fired == ()
    assert edit.reach is not None
    assert (edit.reach.probes, edit.reach.spared) == (1, 1)


def test_a_rephrase_beyond_a_probe_is_left_to_an_edit_of_its_own(pooled: Kit) -> None:
    near, far = "a red cat", "two cats see red"
    assert distance(pooled, "red cat", near) < distance(pooled, "red cat", far)
    reach = pooled.add("red cat", "blue", locality=[near], rephrases=[far]).reach
    assert reach is not None
    assert (reach.covered, reach.spared) == (0, 1)
    assert "fires for 0 of 1 rephrases given; the others need an edit" in reach.summary
    own = pooled.add(far, "blue")
    assert own.reach is not None
    assert "rephrases" not in own.reach.summary
    assert pooled.generate(far, max_new_tokens=4).fired == (own.edit.id,)


def test_the_prompt_itself_as_a_probe_spoils_nothing(pooled: Kit) -> None:
    edit = pooled.add("red cat", "blue", locality=["red cat"])
    assert edit.verified
    assert edit.reach is not None
    assert edit.reach.spared == 0


def test_add_tells_how_far_the_edit_reaches(pooled: Kit) -> None:
    first = pooled.add("see Oslo", "fish").reach
    assert first is not None
    assert first.nearest_edit is None
    assert first.other_subject is not None
    second = pooled.add("red cat", "blue")
    reach = second.reach
    assert reach is not None
    assert reach.nearest_edit == pooled.explain("see Oslo").fired
    assert reach.nearest_distance == pytest.approx(distance(pooled, "see Oslo", "red cat"))
    assert reach.other_subject is None  # it names nothing
    assert reach.false_fires is not None
    assert 0 <= reach.false_fires <= 1
    assert "nearest other edit" in reach.summary


def test_an_edit_that_is_not_active_has_no_reach(pooled: Kit) -> None:
    failed = pooled.add("see Oslo", "tree")
    assert not failed.verified
    assert failed.reach is None


def test_keys_that_are_states_tell_what_they_can(tmp_path: Path) -> None:
    pair = tiny_gpt2(), tiny_tokenizer()
    with editkit.open(tmp_path / "h.db", model=pair, preset="paper") as kit:
        first = kit.add("red cat", "blue", rephrases=["the 52 horses", "red cat"]).reach
        assert first is not None
        assert first.covered >= 1
        assert first.false_fires is None
        assert first.other_question is None
        # Under the paper's rule an edit may live in another one's row.
        shared = kit.add("red cat ", "blue").reach
        assert shared is not None


def test_the_share_of_unrelated_prompts_is_the_tail_of_their_cosines() -> None:
    noise = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    others = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    key = others[0]
    for radius in (1.0, 1.2, 1.35):
        seen = float((np.linalg.norm(others[1:] - key, axis=1) <= radius).mean())
        assert false_fires(key, others[1:], radius) == pytest.approx(seen, rel=0.5, abs=2e-4)


def test_other_questions_are_told_apart_as_their_words_weigh(pooled: Kit) -> None:
    keys: Any = pooled.methods.of("grace")._keys
    ids = pooled.tokenizer("see Oslo")["input_ids"]
    subject, question = keys.told_apart(ids)
    names, rest = keys._parts(tuple(ids))
    rng = np.random.default_rng(0)

    def other(part: Any) -> Any:
        """A part as heavy that has nothing in common with either."""
        basis = np.linalg.qr(np.stack([names, rest, rng.normal(size=len(part))]).T)[0]
        return basis[:, 2] * np.linalg.norm(part)

    def between(one: Any, two: Any) -> float:
        return float(np.linalg.norm(one / np.linalg.norm(one) - two / np.linalg.norm(two)))

    assert subject == pytest.approx(between(names + rest, other(names) + rest), abs=1e-6)
    assert question == pytest.approx(between(names + rest, names + other(rest)), abs=1e-6)


def test_an_edit_may_have_a_scope_of_its_own_and_keeps_it_on_other_models(tmp_path: Path) -> None:
    asked = {"strict": ("red cat", 0.55), "broad": ("tall tree", 0.95)}
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        for scope, (prompt, _) in asked.items():
            kit.add(prompt, "blue", scope=scope)  # type: ignore[arg-type]
        kit.add("see Oslo", "fish")
        assert [one.scope for one in kit.store.history.active(3)] == ["strict", "broad", None]
        assert "scope" not in kit.show("v3").model_dump(mode="json")["edit"]
        assert kit.show("v1").model_dump(mode="json")["edit"]["scope"] == "strict"
        with pytest.raises(InvalidRequest, match="settings decide how far"):
            kit.add("gold", "blue", scope="strict", method="elder")
        with pytest.raises(InvalidRequest, match="scope"):
            kit.add("gold", "blue", scope="wide")  # type: ignore[arg-type]
    other = tiny_gpt2(seed=3), tiny_tokenizer()
    broad = {"scope": "broad"}
    with editkit.open(path, model=other, missing="skip", grace=broad) as kit:
        assert kit.replay().learned == 3
        radii = {
            prompt: kit.explain(prompt).candidates[0].radius
            for prompt in ("red cat", "tall tree", "see Oslo")
        }
        wanted = {**dict(asked.values()), "see Oslo": 0.95}
        assert radii == pytest.approx(wanted)


def test_keys_that_are_states_have_no_scope(tmp_path: Path) -> None:
    pair = tiny_gpt2(), tiny_tokenizer()
    with editkit.open(tmp_path / "h.db", model=pair, grace={"key": "state"}) as kit:
        one = kit.add("red cat", "blue", scope="strict").reach
        two = kit.add("red cat", "blue").reach
        assert one is not None
        assert two is not None
        assert one.radius == two.radius
