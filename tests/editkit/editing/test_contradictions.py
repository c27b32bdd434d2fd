"""Edits that contradict active ones, and requests that come twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mixed import CAT, TREE, opened
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit import Kit
from editkit.errors import ContradictsEdit, KeyReused
from editkit_store.records import Contradiction, EditRequest

PROMPT = "The capital of Australia is"


@pytest.fixture
def wide(tmp_path: Path) -> Any:
    """A kit whose edits reach every prompt."""
    config = editkit.GraceConfig(radius=50.0, units="activation")
    model = (tiny_gpt2(), tiny_tokenizer())
    with editkit.open(tmp_path / "wide.db", model=model, grace=config) as kit:
        yield kit


def test_another_target_for_the_same_prompt_is_told_before_it_is_learned(kit: Kit) -> None:
    old = kit.add(PROMPT, "Canberra").edit
    told: list[tuple[EditRequest, tuple[Contradiction, ...], str]] = []

    def warned(request: EditRequest, found: tuple[Contradiction, ...]) -> None:
        told.append((request, found, kit.version))

    (new,) = kit.add_many([{"prompt": PROMPT, "target": "Sydney"}], warned=warned)
    ((request, (found,), version),) = told
    assert (request.target, version) == ("Sydney", "v1")
    assert (found.edit_id, found.target, found.kind) == (old.id, "Canberra", "prompt")
    assert found.distance is None
    assert new.conflicts == (found,)
    assert new.supersedes == (old.id,)
    assert new.outcome == "added"
    assert kit.generate(PROMPT, max_new_tokens=3).text.strip().startswith("Sydney")


def test_a_prompt_in_the_scope_of_another_edit_is_told_with_its_distance(wide: Kit) -> None:
    old = wide.add(PROMPT, "Canberra").edit
    new = wide.add("Who is it?", "Ada")
    (found,) = new.conflicts
    assert (found.edit_id, found.kind, found.prompt) == (old.id, "scope", PROMPT)
    assert found.distance is not None
    assert found.radius is not None
    assert 0 < found.distance <= found.radius
    assert new.supersedes == ()  # the older one keeps the part of its scope that is not taken
    assert new.verified


def test_the_same_target_is_no_contradiction(wide: Kit) -> None:
    wide.add(PROMPT, "Canberra")
    assert wide.add(PROMPT, "Canberra").conflicts == ()
    assert wide.add("Who is it?", " Canberra").conflicts == ()


def test_error_refuses_and_names_the_other_before_anything_is_learned(wide: Kit) -> None:
    old = wide.add(PROMPT, "Canberra").edit
    for prompt in (PROMPT, "Who is it?"):
        with pytest.raises(ContradictsEdit, match=old.id) as caught:
            wide.add_many(
                [{"prompt": PROMPT, "target": "Canberra"}, {"prompt": prompt, "target": "Ada"}],
                on_conflict="error",
            )
        assert caught.value.edits == (old.id,)
        assert "--on-conflict supersede" in str(caught.value.hint)
    assert wide.version == "v1"
    assert len(wide.log()) == 1


def test_keep_leaves_the_older_edit_and_learns_the_others(kit: Kit) -> None:
    old = kit.add(PROMPT, "Canberra").edit
    requests = [
        {"prompt": "Who?", "target": "Ada"},
        {"prompt": PROMPT, "target": "Sydney"},
        {"prompt": "Who?", "target": "Eve"},  # contradicts the first of this very call
    ]
    first, second, third = kit.add_many(requests, on_conflict="keep")
    assert [one.outcome for one in (first, second, third)] == ["added", "kept", "kept"]
    assert second.edit.id == old.id
    assert second.verified  # the edit that was kept
    assert second.conflicts[0].target == "Canberra"
    assert third.edit.id == first.edit.id
    assert kit.version == "v2"
    assert len(kit.log()) == 2


def test_an_edit_taken_back_contradicts_nothing(kit: Kit) -> None:
    kit.revert(kit.add(PROMPT, "Canberra").edit.id)
    assert kit.add(PROMPT, "Sydney", on_conflict="error").outcome == "added"


def test_an_unknown_policy_is_refused(kit: Kit) -> None:
    with pytest.raises(ValueError, match="on_conflict"):
        kit.add(PROMPT, "Canberra", on_conflict="other")  # type: ignore[arg-type]


def test_the_same_key_twice_is_one_edit(kit: Kit) -> None:
    how: dict[str, Any] = {
        "idempotency_key": "k1", "agent": "bot", "conversation": "c7", "source": "ticket 4",
    }  # fmt: skip
    first = kit.add(PROMPT, "Canberra", **how)
    again = kit.add(PROMPT, "Canberra", **how)
    assert (first.outcome, again.outcome) == ("added", "known")
    assert again.edit == first.edit
    assert again.verified
    assert again.version == "v1"
    assert len(kit.log()) == 1
    provenance = kit.show("v1").provenance
    assert provenance is not None
    assert (provenance.agent, provenance.conversation) == ("bot", "c7")
    row = kit.store._db.one("SELECT agent, conversation, source, idempotency_key FROM edit_history")
    assert row == ("bot", "c7", "ticket 4", "k1")


def test_keys_count_within_a_call_and_after_it_was_taken_back(kit: Kit) -> None:
    one = {"prompt": PROMPT, "target": "Canberra", "idempotency_key": "k"}
    other = {"prompt": "Who?", "target": "Ada", "idempotency_key": "l"}
    results = kit.add_many([one, other, one, other])
    assert [r.outcome for r in results] == ["added", "added", "known", "known"]
    assert results[2].edit.id == results[0].edit.id
    kit.revert(results[0].edit.id)
    again = kit.add_many([one])[0]
    assert (again.outcome, again.edit.status) == ("known", "reverted")


def test_a_key_of_another_request_is_refused(kit: Kit) -> None:
    first = kit.add(PROMPT, "Canberra", idempotency_key="k").edit
    with pytest.raises(KeyReused, match=first.id) as caught:
        kit.add(PROMPT, "Sydney", idempotency_key="k")
    assert caught.value.edit_id == first.id
    assert len(kit.log()) == 1


def test_a_failed_attempt_does_not_use_its_key_up(kit: Kit, monkeypatch: Any) -> None:
    said = kit.methods.of("grace").verify
    monkeypatch.setattr(
        kit.methods.of("grace"),
        "verify",
        lambda lessons, *views: [_wrong(g) for g in said(lessons, *views)],
    )
    assert not kit.add(PROMPT, "Canberra", idempotency_key="k").verified
    monkeypatch.setattr(kit.methods.of("grace"), "verify", said)
    again = kit.add(PROMPT, "Canberra", idempotency_key="k")
    assert (again.verified, again.outcome) == (True, "added")


def _wrong(generated: Any) -> Any:
    import dataclasses

    return dataclasses.replace(generated, text="something else")


@pytest.mark.parametrize("key", ["pooled", "state"])
def test_edits_of_elder_are_looked_up_by_their_own_key(tmp_path: Path, key: str) -> None:
    with opened(tmp_path / "history.db", grace={"key": key}) as kit:
        kit.add(TREE, "yes")
        first = kit.add(CAT, "blue", rephrases=["cat, red"], method="elder").edit
        with pytest.raises(ContradictsEdit) as caught:
            kit.add("cat, red", "two", method="elder", on_conflict="error")
        assert caught.value.edits == (first.id,)
        kept = kit.add("cat, red", "two", method="elder", on_conflict="keep")
        assert (kept.outcome, kept.edit.id) == ("kept", first.id)
        # GRACE's edits have another key then, which says nothing of ELDER's scopes.
        added = kit.add("cat, red", "two")
        assert [one.edit_id for one in added.conflicts] == ([first.id] if key == "pooled" else [])


def test_pooled_keys_are_not_compared_with_states(tmp_path: Path) -> None:
    shape = {"query": "state", "radius": None, "threshold": 1, "r": 4}
    with opened(tmp_path / "history.db", elder=shape) as kit:
        first = kit.add(CAT, "blue", rephrases=["cat, red"]).edit
        for _ in range(2):  # before and after there are adaptors
            added = kit.add("cat, red", "two", method="elder", on_conflict="error")
            assert (added.outcome, added.conflicts) == ("added", ())
            kit.undo()
        with pytest.raises(ContradictsEdit) as caught:
            kit.add(CAT, "two", method="elder", on_conflict="error")
        assert caught.value.edits == (first.id,)
