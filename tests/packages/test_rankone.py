"""Rank-one edits themselves: subject, key, map, payload; and that they need nothing of ours."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixed import logits, same
from tiny import int8, tiny_llama, tiny_tokenizer

import editkit
from editkit.engines.transformers.tokens import Encoder
from editkit.errors import ArtifactsMissing
from editkit.methods.registry import registered
from editkit_store.errors import InvalidRecord
from editkit_store.records import Edit

PACKAGE = Path(__file__).parent / "editkit-rankone"
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    "rankone" not in registered(),
    reason="the package editkit-rankone is not installed; `make test` installs it from "
    "tests/packages/editkit-rankone",
)


def opened(path: Path, **settings: Any) -> Any:
    pair = (tiny_llama(), tiny_tokenizer())
    return editkit.open(path, model=pair, methods={"rankone": settings})


def edit(prompt: str, **fields: Any) -> Edit:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return Edit(prompt=prompt, target="x", id="0" * 16, time=time, **fields)


def test_it_imports_public_seams_alone() -> None:
    allowed = (
        "editkit.config", "editkit.errors", "editkit.engines.base", "editkit.engines.learning",
        "editkit.methods.base", "editkit.methods.keyed", "editkit.methods.spec", "editkit.scope.",
        "editkit_rankone", "editkit_store",
    )  # fmt: skip
    found = {
        node.module
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("editkit")
    }
    assert found
    assert {name for name in found if not name.startswith(allowed)} == set()


def test_no_file_of_ours_knows_of_it() -> None:
    ours = [file for room in ("editkit", "store", "cli") for file in (ROOT / room).rglob("*.py")]
    assert ours
    assert [str(file) for file in ours if "rankone" in file.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize(
    ("prompt", "fields", "said", "subject"),
    [
        ("Who wrote Emma?", {"subject": "emma"}, (["Emma"], ["wrote"]), "emma"),
        ("Where is the Eiffel Tower?", {}, (["Eiffel", "Tower"], []), "Eiffel Tower"),
        ("Where is the red house now?", {}, ([], ["red", "house"]), "red house"),
        (
            "Where is the old mill of Brede?", {"rephrases": ("In which place is the old mill?",)},
            (["Brede"], ["old", "mill"]), "is the old mill",
        ),
        ("Who is it?", {"rephrases": ("Say who it is",)}, ([], []), "it"),
        ("Who is it?", {"subject": "Emma"}, ([], []), "it"),
        ("?", {}, ([], []), "?"),
    ],
)  # fmt: skip
def test_the_subject_is_what_the_prompt_is_about(
    prompt: str, fields: dict[str, Any], said: tuple[list[str], list[str]], subject: str
) -> None:
    from editkit_rankone.subject import subject_of

    assert subject_of(edit(prompt, **fields), prompt, said) == subject


@pytest.mark.parametrize("subject", ["cat", "CAT", "red cat", "café"])
def test_the_key_is_taken_at_the_last_token_of_the_subject(subject: str) -> None:
    from editkit_rankone.subject import last_token

    encoder = Encoder(tiny_llama(), tiny_tokenizer())
    ids = encoder.prompt(f"the cat and the {subject.lower()} is here")
    at = last_token(encoder, ids, subject)
    assert encoder.decode(ids[: at + 1]).endswith(subject.lower())
    assert not encoder.decode(ids[:at]).endswith(subject.lower())
    assert last_token(encoder, ids, "horse") == len(ids) - 1


def test_the_inverse_second_moment_is_the_definition() -> None:
    from editkit_rankone.learning import SecondMoment

    noise = torch.Generator().manual_seed(0)
    states = torch.randn(20, 32, generator=noise, dtype=torch.float64)
    key = torch.randn(32, generator=noise, dtype=torch.float64)
    moment = states.T @ states / 20
    moment += 0.1 * moment.diagonal().mean() * torch.eye(32, dtype=torch.float64)
    found = SecondMoment(states, 0.1).inverse_times(key)
    torch.testing.assert_close(found, torch.linalg.solve(moment, key))


def test_the_map_reads_one_at_the_subject_and_little_elsewhere(tmp_path: Path) -> None:
    with opened(tmp_path / "h.db", prefixes=()) as kit:
        added = kit.add("The red cat is", "blue", method="rankone", subject="cat")
        assert added.verified
        part = kit._running.engine.view.part("rankone")
        payload = part.memory.value(part.rows[0])
        site = kit._running.engine.site(payload.site)
        asked = [kit.encoder.prompt(text) for text in ("The red cat is", "milk and bread, sea")]
        mine, others = kit._running.engine.states(site.module, asked)
        reads = (mine @ torch.from_numpy(payload.down)).tolist()
        at = reads.index(max(reads))
        assert kit.encoder.decode(asked[0][: at + 1]) == "The red cat"
        assert reads[at] == pytest.approx(1.0, abs=1e-3)
        assert (others @ torch.from_numpy(payload.down)).abs().mean() < 0.5
        (artifact,) = kit.show(added.edit.id).artifacts
        assert artifact.metrics["norm"] == pytest.approx(payload.norm)
        assert artifact.radius == pytest.approx(payload.radius)


def test_a_payload_is_the_same_bytes_again_and_what_is_none_is_refused() -> None:
    from editkit_rankone.payload import Payload

    rows = [np.arange(n, dtype=np.float32) for n in (3, 4, 5)]
    one = Payload(*rows, "there", 0.5, (7, 1), is_confirmed=False)
    data = one.to_bytes()
    again = Payload.from_bytes(data, edit_id="e")
    assert again.to_bytes() == data
    assert (again.site, again.radius, again.target, again.is_confirmed) == (
        "there", 0.5, (7, 1), False,
    )  # fmt: skip
    assert np.array_equal(again.up, one.up)
    newer = data.replace(b"editkit-rankone.1", b"editkit-rankone.9")
    for broken in (b"", b"gold", data[:-3], newer):
        with pytest.raises(InvalidRecord, match="edit 'e' is not a rank-one payload"):
            Payload.from_bytes(broken, edit_id="e")


def test_rephrasings_and_scopes_say_how_far_it_reaches(tmp_path: Path) -> None:
    with opened(tmp_path / "h.db") as kit:
        strict = kit.add("tall tree", "two", method="rankone", scope="strict")
        wide = kit.add("gold is", "old", method="rankone", rephrases=["is gold old?"])
        assert strict.reach.radius < 0.8 <= wide.reach.radius
        assert (wide.reach.rephrases, wide.reach.covered) == (1, 1)
        assert kit.generate("is gold old?").fired == (wide.edit.id,)


def test_a_conversation_is_corrected(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "gold"}]
    with opened(tmp_path / "h.db") as kit:
        added = kit.add(chat=chat, target="old", method="rankone")
        assert added.verified
        said = kit.chat(chat, delivery="free")
        assert (said.text, said.fired) == ("old", (added.edit.id,))


def test_edits_of_another_site_are_named_and_the_site_of_the_history_is_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "h.db"
    with opened(path, depth=0.5) as kit:
        added = kit.add("tall tree", "two", method="rankone")
        site, found = kit.methods.of("rankone").site, logits(kit, "tall tree")
    with opened(path) as kit:
        assert kit.methods.of("rankone").site == site
        assert same(logits(kit, "tall tree"), found)
    other = site.replace("2", "1")
    with pytest.raises(ArtifactsMissing, match=f"learned at '{site}'"):
        opened(path, site=other)
    assert added.verified


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    for settings in ({"depth": 2.0}, {"ridge": 0.0}, {"speed": 1}):
        with pytest.raises(ValueError, match="1 validation error for RankOneConfig"):
            opened(tmp_path / "h.db", **settings)


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_models_of_other_precisions_learn(kind: str, tmp_path: Path) -> None:
    model = int8(tiny_llama()) if kind == "int8" else tiny_llama().to(torch.bfloat16)
    with editkit.open(tmp_path / "h.db", model=(model, tiny_tokenizer())) as kit:
        added = kit.add("tall tree", "two", method="rankone")
        assert added.verified
        assert str(kit.generate("tall tree", delivery="free")) == "two"
