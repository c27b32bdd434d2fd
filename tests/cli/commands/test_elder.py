"""ELDER's edits on the command line, on a tiny model that learns little of them."""

from __future__ import annotations

import json

import duckdb
import pytest

from editkit_store import open_store

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


EDITS = (
    ("The red cat is", "blue", "elder"),
    ("tall tree", "two", "elder"),
    ("gold", "Ada", "grace"),
)


@pytest.fixture
def ids(sh, tiny_model, folder):
    """Two edits by ELDER and one by GRACE; their ids."""
    sh("init", "--model", tiny_model)
    found = []
    for prompt, target, method in EDITS:
        ran = sh("add", "--prompt", prompt, "--target", target, "--method", method,
                 "--on-failure", "keep", "--json")  # fmt: skip
        assert ran.code in (0, 3), ran.stderr
        assert ran.json["edit"]["method"] == method
        assert ran.json["lost"] == []
        found.append(ran.json["edit"]["id"])
    return found


def test_edits_of_both_methods_fire_in_a_new_process(process, ids):
    said = process("generate", "The red cat is", "gold", "--json").json
    assert [one["fired"] for one in said] == [[ids[0]], [ids[2]]]
    assert process("verify").code == 0


def test_diff_shows_the_weight_change_of_each_layer_and_expert(sh, ids, folder):
    ran = sh("diff", "v1", "v2", "--html", "d.html", "--json")
    assert [set(one) for one in ran.json["adaptors"]] == [
        {"layer", "delta_norm", "router_drift", "experts"}
    ] * len(ran.json["adaptors"])
    assert ran.json["adaptors"]
    assert ran.json["codes"]["added"] == [ids[1]]
    text = sh("diff", "v1", "v2").stdout
    assert ran.json["adaptors"][0]["layer"] in text
    assert "codes: 1 added, 0 removed, 0 changed" in text
    page = (folder / "d.html").read_text()
    assert "router drift" in page
    assert ran.json["adaptors"][0]["layer"] in page
    # Between versions that GRACE makes nothing moves.
    assert sh("diff", "v2", "v3", "--json").json["adaptors"] == []


def test_a_revert_learns_the_later_ones_again_or_defers(sh, ids):
    ran = sh("revert", ids[0], "--json")
    assert (ran.code, ran.json["relearned"]) == (0, [ids[1]])
    assert sh("generate", "The red cat is", "--json").json["fired"] == []
    sh("undo")
    assert sh("generate", "The red cat is", "--json").json["fired"] == [ids[0]]
    ran = sh("revert", ids[0], "--defer-only", "--json")
    assert (ran.code, ran.json["relearned"]) == (0, [])
    assert "deferred" in ran.json["detail"]
    assert "deferred" in ran.stderr
    assert sh("generate", "The red cat is", "--json").json["fired"] == []
    ran = sh("revert", ids[2], "--json")
    assert (ran.json["detail"], ran.json["view"]) == (f"took back {ids[2]}", 1)


def test_explain_tells_bits(sh, ids):
    found = sh("explain", "The red cat is", "--json").json
    assert found["fired"] == ids[0]
    assert found["candidates"][0]["bits"] == 0


def test_replay_learns_by_another_method_and_elders_edits_again(sh, ids, folder, other_model):
    ran = sh("replay", "history.db", "--model", other_model, "--json")
    assert ran.json["restored"] == 0
    assert ran.json["learned"] + ran.json["failed"] == 3
    with open_store("history.db") as store:
        models = {one.fingerprint for edit in ids for one in store.artifacts.of_edit(edit)}
        assert len(models) == 2
        assert store.verify().ok


def test_status_names_adaptors_and_their_bytes(sh, ids):
    sh("compact")
    assert sh("status", "--json").json["space"]["adaptors"] > 0
    assert sh("status", "--json").json["warnings"] == []


def test_status_warns_of_codes_that_tell_nothing_apart(sh, ids, folder):
    with duckdb.connect("history.db") as raw:
        digest, text = raw.execute(
            "SELECT s.digest, manifest FROM snapshots s JOIN snapshot_versions v USING (digest) "
            "ORDER BY v.version DESC LIMIT 1"
        ).fetchone() or ("", "{}")
        changed = json.loads(text)
        changed["settings"]["separation"] = [9, 3]
        from editkit_store import canonical_json, digest_bytes

        text = canonical_json(changed)
        new = digest_bytes(text.encode())
        raw.execute("INSERT INTO snapshots VALUES (?, ?)", [new, text])
        raw.execute("UPDATE snapshot_versions SET digest = ? WHERE digest = ?", [new, digest])
    ran = sh("status")
    assert "no longer separate edits from other text" in ran.stderr
