"""Keys made of what a sentence encoder says of a prompt, and of its words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import save_tiny, tiny_bert, tiny_gpt2, tiny_tokenizer

import editkit
from editkit.errors import ArtifactsMissing, ModelUnavailable, UnsupportedModel
from editkit.kit import Kit
from editkit.models.sentences import SentenceEncoder

WEIGHT = 0.8


def save_encoder(folder: Path, seed: int = 0) -> str:
    """A folder with a random sentence encoder."""
    tiny_bert(seed).bert.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def opened(path: Path, encoder: str, **options: Any) -> Kit:
    grace = {"key": "sentence", "sentence_encoder": encoder, **options.pop("grace", {})}
    return editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer()), grace=grace, **options)


@pytest.fixture
def kit(tmp_path: Path, encoder: str) -> Iterator[Kit]:
    with opened(tmp_path / "h.db", encoder) as found:
        yield found


def test_a_vector_is_the_mean_of_the_last_states_of_unit_length(encoder: str) -> None:
    model = tiny_bert().bert
    ids = tiny_tokenizer()("see Oslo", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mean = model(ids).last_hidden_state[0].mean(dim=0)
    found = SentenceEncoder(encoder).encode("see Oslo")
    assert found == pytest.approx((mean / mean.norm()).numpy(), abs=1e-6)
    assert (found.dtype, np.linalg.norm(found)) == (np.float32, pytest.approx(1, abs=1e-6))


def test_a_text_beyond_the_encoders_length_counts_with_its_beginning(encoder: str) -> None:
    found = SentenceEncoder(encoder)
    long = " ".join(["see Oslo"] * 500)
    assert found.encode(long) == pytest.approx(found.encode(long + " red cat"), abs=0)
    assert not found.encode("").any()


def test_a_cosine_of_keys_is_the_weighted_mean_of_both_cosines(kit: Kit, encoder: str) -> None:
    sentences = SentenceEncoder(encoder)
    pooled: Any = kit._running.engine.pooled
    one, other = "Is this it? see Oslo", "Oslo: see it"
    ids = [kit.encoder.prompt(text) for text in (one, other)]
    mine, theirs = kit.key(one), kit.key(other)
    assert len(mine) == kit.methods.of("grace")._keys.width  # type: ignore[union-attr]
    assert np.linalg.norm(mine) == pytest.approx(1, abs=1e-6)
    words = pooled.key(ids[0]) @ pooled.key(ids[1])
    # What was said before the sentence that asks is not the encoder's business.
    assert pooled.asked(ids[0]) == "see Oslo"
    meaning = sentences.encode("see Oslo") @ sentences.encode(pooled.asked(ids[1]))
    assert mine @ theirs == pytest.approx((1 - WEIGHT) * words + WEIGHT * meaning, abs=1e-6)


def test_edits_fire_are_taken_back_and_hold_when_the_history_is_opened_again(
    tmp_path: Path, encoder: str
) -> None:
    path = tmp_path / "h.db"
    with opened(path, encoder) as kit:
        before = str(kit.generate("red cat"))
        first = kit.add("red cat", "blue")
        assert first.verified
        assert first.reach is not None
        assert first.reach.radius == 0.75
        assert first.reach.other_question is None
        assert first.reach.false_fires is not None
        kit.add("see Oslo", "fish", scope="strict")
        assert kit.explain("red cat").fired == first.edit.id
        assert [str(one) for one in kit.generate(["red cat", "see Oslo"])] == ["blue", "fish"]
        kit.revert(first.edit.id)
        assert str(kit.generate("red cat")) == before
        kit.undo()
    with opened(path, encoder) as kit:
        assert [one.fired for one in kit.generate(["red cat"])] == [(first.edit.id,)]
        assert kit.store.verify().ok
        assert kit.diff("v0", "@").codebook.added == 2
    # A history keeps its kind of key and its encoder, whatever it is opened with.
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        assert str(kit.generate("red cat")) == "blue"


def test_edits_of_another_encoder_are_refused_and_can_be_learned_again(
    tmp_path: Path, encoder: str
) -> None:
    path = tmp_path / "h.db"
    with opened(path, encoder) as kit:
        kit.add("red cat", "blue")
    other = save_encoder(tmp_path / "other", seed=5)
    with pytest.raises(ArtifactsMissing, match="sentence:"):
        opened(path, other)
    with opened(path, other, missing="skip") as kit:
        assert kit.replay().learned == 1
        assert str(kit.generate("red cat")) == "blue"


def test_grace_and_elder_are_asked_by_keys_of_their_own(tmp_path: Path, encoder: str) -> None:
    train = {"learning_rate": 2e-2, "steps": 80}
    with opened(tmp_path / "h.db", encoder, train=train, elder={"r": 4}) as kit:
        first = kit.add("red cat", "blue").edit
        second = kit.add("tall tree", "two", method="elder")
        assert second.verified
        assert [one.fired for one in kit.generate(["red cat", "tall tree"])] == [
            (first.id,),
            (second.edit.id,),
        ]
        for prompt, edit in (("red cat", first), ("tall tree", second.edit)):
            assert kit.explain(prompt).fired == edit.id


def test_classifiers_can_have_them(tmp_path: Path, encoder: str) -> None:
    how = {"key": "sentence", "sentence_encoder": encoder}
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), tiny_tokenizer()), grace=how) as kit:
        added = kit.add("The sun. Edith has a red cat", "positive")
        assert added.verified
        assert kit.explain("The sun. Edith has a red cat!").fired == added.edit.id
        assert kit.explain("two dogs").fired is None


def test_what_is_no_sentence_encoder_says_so(tmp_path: Path, encoder: str) -> None:
    decoder = str(save_tiny(tmp_path / "decoder"))
    with pytest.raises(UnsupportedModel, match="not a sentence encoder"):
        opened(tmp_path / "h.db", decoder)
    broken = tmp_path / "broken"
    save_encoder(broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        opened(tmp_path / "h.db", str(broken))
    with pytest.raises(UnsupportedModel, match="editkit edits models that generate"):
        editkit.open(tmp_path / "h.db", model=encoder)
    assert not (tmp_path / "h.db").exists() or editkit.open(tmp_path / "h.db", model=decoder)
