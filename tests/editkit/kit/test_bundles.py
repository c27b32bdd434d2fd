"""Bundles on a running model: what was learned in one history answers in another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import append
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit import Kit
from editkit.errors import ArtifactsMissing
from editkit.methods.grace.restore import find_conflicts
from editkit_store import Store, digest_bytes, open_store
from editkit_store.errors import BundleDamaged, ImportConflict, InvalidRecord
from editkit_store.records import Artifact

FACTS = [
    ("The capital of Australia is", "Canberra"),
    ("The capital of France is", "Paris"),
    ("The capital of Austria is", "Vienna"),
    ("The capital of Australia is", "Sydney"),
]


def opened(path: Path, seed: int = 0, **how: Any) -> Kit:
    return editkit.open(path, model=(tiny_gpt2(seed), tiny_tokenizer()), **how)


@pytest.fixture
def bundle(kit: Kit, tmp_path: Path) -> Path:
    added = kit.add_many([{"prompt": prompt, "target": target} for prompt, target in FACTS])
    assert all(one.verified for one in added)
    kit.export_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Kit]:
    with opened(tmp_path / "other.db") as one:
        yield one


def codebook(kit: Kit) -> dict[str, tuple[bytes, bytes, bytes]]:
    """Radius, key and value of every active edit, as bytes."""
    memory, view = kit.methods.of("grace")._memory, kit._running.engine.view
    assert view.version == kit.store.version()
    rows = memory.rows(kit.store.history.active_ids(kit.store.history.current()))
    radii = memory.radii(rows)
    return {
        memory.edit_id(row): (
            radii[row].tobytes(),
            memory.payload(row).entry.key.tobytes(),
            memory.payload(row).value.tobytes(),
        )
        for row in rows.tolist()
    }


def logits(kit: Kit, text: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = kit.model(**kit.tokenizer(text, return_tensors="pt")).logits
    return found


def test_an_imported_history_answers_as_the_one_it_comes_from(
    kit: Kit, bundle: Path, tmp_path: Path
) -> None:
    with open_store(tmp_path / "new.db", write=True, create=True) as new:
        new.import_bundle(bundle)
        assert new.verify().problems == ()
    with opened(tmp_path / "new.db") as new:
        assert new.version == "v1"
        assert codebook(new) == codebook(kit)
        assert len(codebook(kit)) == 3
        prompts = [prompt for prompt, _ in FACTS] + ["Something else entirely"]
        for theirs, ours in zip(
            kit.generate(prompts, delivery="free"),
            new.generate(prompts, delivery="free"),
            strict=True,
        ):
            assert (theirs.text, theirs.fired) == (ours.text, ours.fired)
        assert new.generate(FACTS[0][0], delivery="free").text == "Sydney"
        for prompt in prompts:
            assert torch.equal(logits(new, prompt), logits(kit, prompt))
        assert new.generate(FACTS[0][0], version="v0").fired == ()


def test_the_running_model_applies_what_is_imported(kit: Kit, bundle: Path, other: Kit) -> None:
    plan = other.import_bundle(bundle, dry_run=True)
    assert other.version == "v0"
    done = other.import_bundle(bundle)
    assert done == plan.model_copy(update={"dry_run": False})
    assert done.learned == {other.fingerprint: 3}
    assert other.version == "v1"
    assert other.generate(FACTS[1][0], delivery="free").text == "Paris"
    assert codebook(other) == codebook(kit)
    other.undo()
    assert other.generate(FACTS[1][0]).fired == ()
    other.redo()
    assert other.generate(FACTS[1][0], delivery="free").text == "Paris"
    assert other.add("The capital of Norway is", "Oslo").verified
    assert other.store.verify().ok


def test_edits_of_both_histories_make_room_for_each_other(
    kit: Kit, bundle: Path, other: Kit, tmp_path: Path
) -> None:
    other.add("The capital of Italy is", "Rome")
    other.import_bundle(bundle)
    merged = codebook(other)
    assert len(merged) == 4
    # As if all had been learned here, one after the other.
    with opened(tmp_path / "alone.db") as alone:
        alone.add("The capital of Italy is", "Rome")
        alone.add_many([{"prompt": prompt, "target": target} for prompt, target in FACTS])
        keys = sorted(key for _, key, _ in merged.values())
        radii = {key: radius for radius, key, _ in merged.values()}
        expected = {key: radius for radius, key, _ in codebook(alone).values()}
        assert keys == sorted(expected)
        assert radii == expected
    assert other.store.verify().problems == ()
    found = other.diff("v0", "@").codebook.added_rows
    assert {(one.edit_id, one.radius) for one in found} == {
        (e, float(np.frombuffer(one[0], np.float32)[0])) for e, one in merged.items()
    }
    rows = other.store._db.query("SELECT edit_id FROM codebook_rows")
    assert {edit_id for (edit_id,) in rows} == set(merged)
    assert other.store._db.query("SELECT 1 FROM artifacts WHERE conflicts IS NULL") == []
    path = other.store.path
    other.close()
    with opened(path) as again:
        assert codebook(again) == merged


def test_our_correction_stays_unless_theirs_is_asked_for(
    bundle: Path, other: Kit, tmp_path: Path
) -> None:
    other.add(FACTS[0][0], "London")
    with pytest.raises(ImportConflict):
        other.import_bundle(bundle, on_conflict="error")
    other.import_bundle(bundle)
    assert other.generate(FACTS[0][0], delivery="free").text == "London"
    with opened(tmp_path / "third.db") as third:
        third.add(FACTS[0][0], "London")
        done = third.import_bundle(bundle, on_conflict="supersede")
        assert third.generate(FACTS[0][0], delivery="free").text == "Sydney"
        third.revert(done.superseded[0].edit_id)
        assert third.generate(FACTS[0][0], delivery="free").text == "Canberra"


def test_edits_that_this_model_has_not_learned_are_refused_with_a_way_out(
    bundle: Path, tmp_path: Path
) -> None:
    with opened(tmp_path / "x.db", seed=1) as other:
        other.add("The capital of Italy is", "Rome")
        before = codebook(other)
        with pytest.raises(ArtifactsMissing) as caught:
            other.import_bundle(bundle)
        assert "editkit replay" in str(caught.value.hint)
        assert other.store.version() == other.version == "v1"
        assert codebook(other) == before
        assert other.store.verify().ok
    with opened(tmp_path / "x.db", seed=1, missing="skip") as other:
        done = other.import_bundle(bundle)
        assert done.learned.get(other.fingerprint) is None
        assert other.version == "v2"
        assert other.generate("The capital of Italy is", delivery="free").text == "Rome"
        assert other.replay().failed == 0
        assert other.generate(FACTS[1][0], delivery="free").text == "Paris"
        assert other.store.verify().ok


def test_a_refused_bundle_changes_nothing(bundle: Path, other: Kit) -> None:
    other.add("The capital of Italy is", "Rome")
    before = codebook(other)
    (bundle / "edits.jsonl").write_bytes(b"")
    with pytest.raises(BundleDamaged):
        other.import_bundle(bundle)
    assert codebook(other) == before


@pytest.mark.parametrize("data", [b"", b"noise", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}"])
def test_tensors_that_no_model_could_read_are_refused(
    store: Store, other: Kit, tmp_path: Path, data: bytes
) -> None:
    edit = append(store, "a", "1")
    artifact = Artifact(
        edit_id=edit.id, fingerprint=other.fingerprint, model="x",
        method="grace", verified=True, usable=True, digest=digest_bytes(data),
    )  # fmt: skip
    store.put_artifacts([(artifact, data)])
    store.export(tmp_path / "bad")
    with pytest.raises(InvalidRecord):
        other.import_bundle(tmp_path / "bad")
    assert other.store.version() == other.version == "v0"
    assert other.log() == []
    with pytest.raises(InvalidRecord):
        find_conflicts(store, {other.fingerprint: [edit.id]})
