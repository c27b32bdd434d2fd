"""Histories written by older versions of editkit open with the same heads and the same answers.

Every schema from 1 to 6 existed in a commit of its own. ``fixtures/histories`` holds a file of
each, written on the model of ``tiny.tiny_llama`` by ``make_history.py`` with the code of

    schema 1  2b59d0d    schema 3  7bdf777    schema 5  cebeb6d, the first with edits of ELDER
    schema 2  151ab96    schema 4  2f2a5dc    schema 6  a2ffe86

Each has edits of every state, a conversation, a tag, a revert and its undo, and a rollback; those
of schemas 5 and 6 also have three edits of ELDER, one of them reverted. The JSON beside a file
holds the log as that commit printed it, and what its model answered at every version.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_llama, tiny_tokenizer

import editkit
from editkit_store import SCHEMA_VERSION, open_store

FIXTURES = Path(__file__).parents[2] / "fixtures" / "histories"
SCHEMAS = (1, 2, 3, 4, 5, 6)


@pytest.fixture(params=SCHEMAS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """An old file, and what the editkit that wrote it said of it."""
    where = tmp_path / "old.db"
    name = f"schema{request.param}"
    where.write_bytes(gzip.decompress((FIXTURES / f"{name}.db.gz").read_bytes()))
    said = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    assert said["schema"] == request.param
    return where, said


def test_every_schema_before_this_one_has_a_fixture() -> None:
    kept = {int(path.name[len("schema")]) for path in FIXTURES.glob("schema*.db.gz")}
    assert kept >= set(range(1, SCHEMA_VERSION))


def test_an_old_history_is_migrated_and_has_the_heads_that_it_had(
    old: tuple[Path, dict[str, Any]],
) -> None:
    where, said = old
    with open_store(where, write=True) as store:
        assert store.status().schema_version == SCHEMA_VERSION
        found = [
            {name: getattr(entry, name) for name in said["log"][0]}
            for entry in store.log()
        ]  # fmt: skip
        assert found == said["log"]
        verified = store.verify(head=said["log"][0]["digest"])
        assert verified.problems == ()
        assert verified.head == said["log"][0]["digest"]


def test_the_model_answers_as_it_did_at_every_version(old: tuple[Path, dict[str, Any]]) -> None:
    where, said = old
    with editkit.open(where, model=(tiny_llama(), tiny_tokenizer())) as kit:
        assert kit.fingerprint == said["fingerprint"]
        assert kit.version == list(said["answers"])[-1]
        for version, answers in said["answers"].items():
            found = {}
            for prompt in answers:
                one = kit.generate(prompt, max_new_tokens=4, version=version, delivery="free")
                found[prompt] = [one.text, list(one.fired)]
            assert found == answers, version


def test_an_old_history_goes_on(old: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    where, said = old
    with editkit.open(where, model=(tiny_llama(), tiny_tokenizer())) as kit:
        assert kit.add("A new one", "green", idempotency_key="k").verified
        assert kit.store.verify(head=said["log"][0]["digest"]).problems == ()
        kit.rollback("prod")
        assert (
            kit.generate("The capital of Italy is", max_new_tokens=4, delivery="free").text.strip()
            == "Rome"
        )
        kit.store.export(tmp_path / "bundle")
    with open_store(tmp_path / "new.db", write=True, create=True) as store:
        assert len(store.import_bundle(tmp_path / "bundle").active) == 2
        assert store.verify().problems == ()
