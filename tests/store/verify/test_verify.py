from __future__ import annotations

from typing import Any

import pytest
from conftest import append

from editkit_store import Store, digest_bytes
from editkit_store.digest import digest_json
from editkit_store.records import Artifact, Provenance
from editkit_store.verify.check import operation_digest


@pytest.fixture
def history(store: Store) -> Store:
    """A store with every kind of operation but an import."""
    first = append(store, "a", "1", author="Ada", reason='"quoted" \u2028 \U0001f600')
    append(store, "b", "2", chat=({"role": "user", "content": "b"},), idempotency_key="k")
    append(store, "a", "3")
    append(store, "c", "4", activate=False)
    store.tag("v2", "prod", provenance=Provenance(agent="bot", conversation="17"))
    store.tag("v1", "prod")
    store.revert(first.id)
    store.undo()
    store.redo()
    store.rollback("v1")
    payload = b"elsewhere"
    artifact = Artifact(
        edit_id=first.id, fingerprint="sha256:other", model="other", method="grace", verified=True,
        usable=True, digest=digest_bytes(payload), metrics={"margin": 1e-7}, conflicts={"x": 0.1},
        radius=0.30000001192092896,
    )  # fmt: skip
    store.put_artifacts([(artifact, payload)])
    store.record_replay(1, fingerprint="sha256:other", detail={"model": "other", "restored": 0})
    return store


def test_a_whole_history_is_in_order_and_its_head_is_the_newest_operation(history: Store) -> None:
    found = history.verify()
    assert found.problems == ()
    assert found.ok
    assert found.head == history.log(limit=1)[0].digest
    assert found.checked == 12 + 4 + 5 + 4 + 2


def test_an_empty_history_is_in_order(store: Store) -> None:
    assert store.verify().model_dump() == {"ok": True, "checked": 0, "problems": (), "head": None}


def test_a_history_of_a_failed_attempt_alone_is_in_order(store: Store) -> None:
    append(store, "a", "1", activate=False)  # an artifact that names no tensors, and none there
    assert store.verify().problems == ()


def test_the_fast_digest_is_that_of_the_canonical_json(history: Store) -> None:
    names = (
        "seq kind version changed edit_id target_version undo_version redo_version active_count "
        "time fingerprint provenance detail parent_digest digest"
    ).split()
    for row in history._db.query(f"SELECT {', '.join(names)} FROM operations"):
        import json

        body: dict[str, Any] = dict(zip(names, row, strict=True))
        digest = body.pop("digest")
        body["time"] = body["time"].isoformat()
        body |= {name: json.loads(body[name]) for name in ("provenance", "detail")}
        rows = history._db.query(
            "SELECT version, edit_id, member FROM membership WHERE version = ? ORDER BY edit_id",
            [body["version"]],
        )
        members = [list(one) for one in rows] if body["changed"] else []
        assert operation_digest(row, members) == digest
        assert digest_json({**body, "membership": members}) == digest


# Each an alteration, the kind of thing to blame, and a word of what is said about it.
ALTERED = [
    ("UPDATE operations SET time = time + INTERVAL 1 SECOND WHERE seq = 2", "operation", "altered"),
    ("UPDATE operations SET kind = 'undo' WHERE seq = 1", "operation", "altered"),
    ("UPDATE operations SET active_count = 7 WHERE seq = 3", "operation", "altered"),
    ("UPDATE operations SET undo_version = NULL WHERE seq = 3", "operation", "altered"),
    ("UPDATE operations SET fingerprint = 'x' WHERE seq = 2", "operation", "altered"),
    (
        "UPDATE operations SET provenance = replace(provenance, 'Ada', 'Eve') WHERE seq = 1",
        "operation", "altered",
    ),
    ("UPDATE operations SET detail = detail || ' ' WHERE seq = 5", "operation", "altered"),
    ("UPDATE operations SET detail = '{' WHERE seq = 5", "operation", "altered"),
    ("UPDATE operations SET digest = parent_digest WHERE seq = 4", "operation", "altered"),
    ("DELETE FROM operations WHERE seq = 4", "operation", "operation 4 is missing"),
    ("DELETE FROM operations WHERE seq = 1", "operation", "operation 1 is missing"),
    ("UPDATE membership SET member = NOT member WHERE version = 4", "operation", "altered"),
    ("DELETE FROM membership WHERE version = 2", "operation", "altered"),
    ("INSERT INTO membership VALUES (99, 'x', true)", "operation", "no operation made it"),
    ("INSERT INTO membership SELECT 1, edit_id, true FROM edits WHERE prompt = 'b'", "operation",
     "altered"),
    ("UPDATE edits SET request = replace(request, '\"1\"', '\"9\"')", "edit", "altered"),
    ("UPDATE edits SET target = '9' WHERE target = '3'", "edit", "columns"),
    ("UPDATE edits SET method = 'elder' WHERE target = '3'", "edit", "columns"),
    ("UPDATE edits SET idempotency_key = NULL", "edit", "columns"),
    ("UPDATE edits SET prompt_digest = 'x' WHERE target = '2'", "edit", "another prompt"),
    ("UPDATE edits SET prompt_digest = 'x' WHERE target = '3'", "edit", "another prompt"),
    ("UPDATE edits SET ordinal = 1", "edit", "place of another"),
    ("DELETE FROM edits WHERE target = '3'", "edit", "is missing"),
    ("INSERT INTO edits SELECT 'x', * EXCLUDE (edit_id) FROM edits LIMIT 1", "edit",
     "in no operation"),
    ("UPDATE artifacts SET verified = NOT verified", "artifact", "altered"),
    ("UPDATE artifacts SET radius = 1.5", "artifact", "altered"),
    ("UPDATE artifacts SET radius = 'NaN'::DOUBLE", "artifact", "altered"),
    ("UPDATE artifacts SET metrics = '{}'", "artifact", "altered"),
    ("UPDATE artifacts SET learned_at = now()", "artifact", "altered"),
    ("DELETE FROM artifacts WHERE fingerprint = 'sha256:other'", "artifact", "is missing"),
    ("DELETE FROM artifacts WHERE fingerprint = 'sha256:model'", "artifact", "is missing"),
    ("INSERT INTO artifacts SELECT 'x', * EXCLUDE (edit_id) FROM artifacts LIMIT 1", "artifact",
     "in no operation"),
    ("UPDATE artifacts SET digest = NULL, record_digest = NULL", "artifact", "no tensors"),
    ("UPDATE payloads SET bytes = 'other'::BLOB", "tensor", "altered"),
    ("DELETE FROM payloads WHERE bytes = 'elsewhere'::BLOB", "tensor", "is missing"),
    ("UPDATE tags SET version = 3 WHERE seq = 5", "tag", "not what an operation gave"),
    ("UPDATE tags SET name = 'x' WHERE seq = 5", "tag", "not what an operation gave"),
    ("DELETE FROM tags", "tag", "is missing"),
    ("UPDATE migrations SET name = 'x' WHERE version = 1", "schema", "this editkit"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "kind", "words"), ALTERED)
def test_every_alteration_is_found_and_named(
    history: Store, sql: str, kind: str, words: str
) -> None:
    history._db.execute(sql)
    found = history.verify()
    assert not found.ok
    said = [f"{problem.name} {problem.message}" for problem in found.problems]
    assert any(kind == p.kind and words in s for p, s in zip(found.problems, said, strict=True)), (
        found.problems
    )


def test_a_rewritten_past_has_another_head(store: Store) -> None:
    append(store, "a", "1")
    append(store, "b", "2")
    head = store.verify().head
    assert store.verify().head == head
    append(store, "c", "3")
    assert store.verify().head != head
    assert head is not None
    assert store.verify(head=head).ok  # grown since, not rewritten
    (problem,) = store.verify(head="sha256:0").problems
    assert "the past was rewritten" in problem.message


@pytest.mark.parametrize("target", ["version", "version + 1", "NULL"])
def test_a_restored_version_that_points_at_itself_ends(history: Store, target: str) -> None:
    history.rollback("v1")
    history._db.execute(f"UPDATE operations SET target_version = {target} WHERE kind = 'rollback'")
    history.history._restores = None  # what is read when the file is opened
    last = history.history.current()
    assert history.history.changes(last, last) == ([], [])
    assert not history.verify().ok
