"""Pooled keys: against a literal loop, what moves them and what does not, on a running model."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

import editkit
from editkit.errors import ArtifactsMissing
from editkit.kit import Kit
from editkit.scope.information import Information, of_model
from editkit.scope.pooled import PooledKeys

TOKENIZER = tiny_tokenizer()
MODEL = tiny_llama()


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text)["input_ids"]
    return found


def known() -> Information:
    """Made-up statistics in which every token says something of its own."""
    noise = np.random.default_rng(0)
    return Information(
        nats=noise.uniform(2, 14, 800).astype(np.float32),
        mean=noise.normal(0, 0.1, 64).astype(np.float32),
        spread=noise.uniform(0.1, 0.3, 64).astype(np.float32),
    )


@pytest.fixture
def keys() -> PooledKeys:
    return PooledKeys(MODEL, TOKENIZER, known)


def literal(words: list[tuple[list[int], bool, bool, float]], about: Information) -> Any:
    """The equation word by word: tokens, whether a name, whether a number, weight of its place."""
    table = MODEL.get_input_embeddings().weight.detach().double().numpy()
    total = np.zeros(64)
    for tokens, is_name, is_number, place in words:
        vector, says = np.zeros(64), 0.0
        text = TOKENIZER.decode(tokens).strip()
        for token in tokens:
            if not TOKENIZER.decode([token]).strip():  # a space of its own
                continue
            e = (table[token] - about.mean) / about.spread
            i = max(float(about.nats[token]) - 4.0, 0.02)
            vector += i * e / math.sqrt(float(e @ e))
            says += i
        vector /= math.sqrt(float(vector @ vector))
        weight = min(says, 10.0)
        if is_name:
            seed = zlib.crc32(text.lower().encode())
            own = np.random.Generator(np.random.PCG64(seed)).standard_normal(64)
            own /= math.sqrt(float(own @ own))
            share = 1.0 if is_number else 0.3
            vector = math.sqrt(1 - share) * vector + math.sqrt(share) * own
            weight = max(weight, 5.0) * 3.0
        total += place * weight * vector
    return total / math.sqrt(float(total @ total))


def test_the_key_is_the_equation(keys: PooledKeys) -> None:
    found = keys.key(ids("red cat. the Paris horse has 52 eyes"))
    words = [
        (ids("red"), False, False, 0.1), (ids(" cat"), False, False, 0.1),
        (ids(" the"), False, False, 1.0), (ids(" Paris"), True, False, 1.0),
        (ids(" horse"), False, False, 1.0), (ids(" has"), False, False, 1.0),
        (ids(" 52"), True, True, 1.0), (ids(" eyes"), False, False, 1.0),
    ]  # fmt: skip
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, literal(words, known()), atol=1e-5)


def test_sentences_before_count_in_full_where_the_last_one_names_nothing(keys: PooledKeys) -> None:
    found = keys.key(ids("see Paris. red cat"))
    words = [
        (ids("see"), False, False, 1.0), (ids(" Paris"), True, False, 1.0),
        (ids(" red"), False, False, 1.0), (ids(" cat"), False, False, 1.0),
    ]  # fmt: skip
    np.testing.assert_allclose(found, literal(words, known()), atol=1e-5)


def test_a_single_name_behind_a_sentence_does_not_ask_alone(keys: PooledKeys) -> None:
    found = keys.key(ids("red horse. Oslo"))
    words = [
        (ids("red"), False, False, 1.0), (ids(" horse"), False, False, 1.0),
        (ids(" Oslo"), True, False, 1.0),
    ]  # fmt: skip
    np.testing.assert_allclose(found, literal(words, known()), atol=1e-5)


@pytest.mark.parametrize("text", ["?", "...", "<e>", " "])
def test_a_prompt_without_words_has_a_key(keys: PooledKeys, text: str) -> None:
    key = keys.key(ids(text) or [0])
    assert np.isfinite(key).all()
    assert np.linalg.norm(key) == pytest.approx(1, abs=1e-6)


def test_numbers_are_told_apart_and_so_are_names(keys: PooledKeys) -> None:
    base = keys.key(ids("horse 51"))
    assert base @ keys.key(ids("horse 51")) == pytest.approx(1, abs=1e-6)
    assert base @ keys.key(ids("horse 52")) < 0.7
    city = keys.key(ids("cat Oslo"))
    assert city @ keys.key(ids("dog Oslo")) > city @ keys.key(ids("cat Rome"))


def test_a_capital_at_the_beginning_makes_no_name_of_a_common_word() -> None:
    about = known()
    (small,), (great,) = ids(" red"), ids(" Oslo")
    about.nats[[small, *ids("red")]] = 5.0
    keys = PooledKeys(MODEL, TOKENIZER, lambda: about)
    red = "Red"
    if len(ids(red)) == 1:
        pytest.fail("the tokenizer knows it; choose another word")
    about.nats[[great, *ids("Oslo")]] = 5.0
    assert keys._is_name(keys._words.split(ids("Oslo is"))[0])  # no small form is a token
    assert not keys._is_name(keys._words.split(ids("red is"))[0])


def test_tokens_are_found_by_their_embeddings(keys: PooledKeys) -> None:
    asked = ids("Paris is 12 red")
    embeddings = MODEL.get_input_embeddings()(torch.tensor(asked))
    assert keys.ids(embeddings.detach()) == asked


def test_what_a_model_knows_of_its_tokens_is_what_the_page_gives(tmp_path: Path) -> None:
    found = of_model(MODEL, TOKENIZER, fingerprint="sha256:x", is_kept=False)
    shares = np.exp(-found.nats.astype(np.float64))
    assert shares.sum() == pytest.approx(1, abs=1e-3)
    weights = np.sqrt(shares) / np.sqrt(shares).sum()
    table = MODEL.get_input_embeddings().weight.detach().double().numpy()
    mean = (table * weights[:, None]).sum(axis=0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    spread = np.sqrt((((table - mean) ** 2) * weights[:, None]).sum(axis=0))
    np.testing.assert_allclose(found.spread, spread, rtol=1e-4)


def test_it_is_kept_for_a_model_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path))
    first = of_model(MODEL, TOKENIZER, fingerprint="sha256:abc", is_kept=True)
    (kept,) = (tmp_path / "information").iterdir()
    again = of_model(None, None, fingerprint="sha256:abc", is_kept=True)  # nothing is computed
    np.testing.assert_array_equal(first.nats, again.nats)
    kept.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        of_model(MODEL, TOKENIZER, fingerprint="sha256:abc", is_kept=True).nats, first.nats
    )


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "file"))
    assert len(of_model(MODEL, TOKENIZER, fingerprint="sha256:abc", is_kept=True).nats) == 800


def test_the_model_is_not_run_before_the_first_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    monkeypatch.setattr(
        "editkit.scope.keys.of_model",
        lambda *args, **kwargs: runs.append(args) or of_model(*args, **kwargs),
    )
    pair = tiny_gpt2(), tiny_tokenizer()
    with editkit.open(tmp_path / "a.db", model=pair) as kit:
        kit.generate("red cat", max_new_tokens=2)
        kit.explain("red cat")
        assert not runs
        assert kit.add("red cat", "blue").verified
        assert len(runs) == 1
    with editkit.open(tmp_path / "a.db", model=pair) as kit:  # there is something to look up
        assert len(runs) == 2
        assert kit.generate("red cat", max_new_tokens=4).text == "blue"


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with editkit.open(tmp_path / "h.db", model=(tiny_llama(), tiny_tokenizer())) as opened:
        yield opened


def test_an_edit_fires_however_its_prompt_reaches_the_model(kit: Kit) -> None:
    """Padding on both sides, beams, embeddings, a plain forward call, chunks of a prefill."""
    added = kit.add("where does Edith live?", "Oslo")
    assert added.verified
    prompt = torch.tensor([ids("where does Edith live?")])
    length = prompt.shape[1]
    model: Any = kit.model
    wanted = ids(" Oslo")[0]

    def begins(output: torch.Tensor, at: int) -> bool:
        return bool(output[0, at] == wanted)

    assert begins(model.generate(prompt, max_new_tokens=1, do_sample=False), length)
    beams = model.generate(prompt, max_new_tokens=1, num_beams=3, do_sample=False)
    assert begins(beams, length)
    pad = torch.full((1, 3), TOKENIZER.pad_token_id)
    for padded, mask, at in (
        (torch.cat([pad, prompt], 1), [0] * 3 + [1] * length, length + 2),
        (torch.cat([prompt, pad], 1), [1] * length + [0] * 3, length - 1),
    ):
        logits = model(input_ids=padded, attention_mask=torch.tensor([mask])).logits
        assert int(logits[0, at].argmax()) == wanted
    embeddings = model.get_input_embeddings()(prompt)
    assert int(model(inputs_embeds=embeddings).logits[0, -1].argmax()) == wanted
    assert begins(model.generate(inputs_embeds=embeddings, max_new_tokens=1, do_sample=False), 0)
    chunked = model.generate(prompt, max_new_tokens=1, do_sample=False, prefill_chunk_size=3)
    assert begins(chunked, length)


def test_what_stands_in_front_does_not_move_the_key(kit: Kit) -> None:
    added = kit.add("where does Edith live?", "Oslo")
    near = ["red tea. where does Edith live?", "Edith: where does Edith live"]
    assert [one.fired for one in kit.generate(near)] == [(added.edit.id,)] * 2
    assert kit.generate("where does Ada live?").fired == ()
    assert kit.chat([
        {"role": "user", "content": "milk?"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "where does Edith live?"},
    ]).fired == (added.edit.id,)  # fmt: skip


def test_a_question_behind_which_nothing_is_named_has_the_key_that_it_has_alone(kit: Kit) -> None:
    before = [{"role": "user", "content": "is milk old?"}, {"role": "assistant", "content": "yes"}]
    asked = {"role": "user", "content": "which star is nearest?"}
    added = kit.add(chat=[*before, asked], target="sun")
    assert kit.explain(chat=[*before, asked]).fired == added.edit.id
    assert kit.explain(chat=[asked]).fired == added.edit.id
    assert kit.explain(chat=[asked]).candidates[0].distance == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    "asked",
    [
        "and how old is it?",
        "which one?",
        "why?",
        "but who is king?",
        "what is the capital?",
        "which language do people speak?",
        "how many people live in the capital?",
    ],
)
def test_a_question_that_refers_back_has_another_key_in_another_conversation(
    kit: Kit, asked: str
) -> None:
    def turns(place: str) -> list[dict[str, str]]:
        return [
            {"role": "user", "content": f"Do you know {place}?"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": asked},
        ]

    kit.add(chat=turns("Lisbon"), target="old")
    here, there = kit.explain(chat=turns("Lisbon")), kit.explain(chat=turns("Vienna"))
    assert here.candidates[0].distance == pytest.approx(0, abs=1e-3)
    assert there.candidates[0].distance > 0.5


def test_explain_says_what_the_model_does(kit: Kit) -> None:
    added = kit.add("where does Edith live?", "Oslo")
    near, far = kit.explain("where does Edith live now?"), kit.explain("What is gold?")
    assert near.fired == added.edit.id
    assert near.candidates[0].distance < near.candidates[0].radius == pytest.approx(0.8)
    assert far.fired is None
    assert far.candidates[0].distance > 0.8


@pytest.mark.parametrize(
    ("scope", "radius"), [("strict", 0.55), ("balanced", 0.8), ("broad", 0.95)]
)
def test_the_scope_is_the_radius(tmp_path: Path, scope: Any, radius: float) -> None:
    with editkit.open(
        tmp_path / "h.db", model=(tiny_gpt2(), TOKENIZER), grace={"scope": scope}
    ) as kit:
        kit.add("where does Edith live?", "Oslo")
        kit.add("where does Edith live now?", "Rome")  # nearer than both radii
        rows = kit.diff("v0", "v2").codebook.added_rows
        assert [row.radius for row in rows] == pytest.approx([radius] * 2)
        answers = kit.generate(["where does Edith live?", "where does Edith live now?"])
        assert [answer.text for answer in answers] == ["Oslo", "Rome"]


def test_a_history_keeps_the_kind_of_key_that_it_was_learned_with(tmp_path: Path) -> None:
    pair, path = (tiny_llama(), TOKENIZER), tmp_path / "h.db"
    with editkit.open(path, model=pair, grace={"key": "state"}) as kit:
        kit.add("Who sang?", "Ada")
    with editkit.open(path, model=pair) as kit:  # nothing asked for: the history's own
        assert kit.generate("Who sang?").text == "Ada"
        kit.add("Who ran?", "Grace")
    with pytest.raises(ArtifactsMissing, match="state keys; the model was opened at .*pooled"):
        editkit.open(path, model=pair, grace={"key": "pooled"})


def test_an_edit_is_learned_as_if_no_other_were_there(tmp_path: Path) -> None:
    """What is run while it is learned, its target behind its prompt, may lie in another's scope."""
    values = []
    for number, first in enumerate(("? Rome", "? milk")):
        with editkit.open(tmp_path / f"{number}.db", model=(tiny_llama(), TOKENIZER)) as kit:
            kit.add(first, "Oslo")
            assert bool(kit.generate("? Rome").fired) == (number == 0)
            (added,) = kit.add_many([{"prompt": "where does Edith live?", "target": "Rome"}])
            memory = kit.methods.of("grace")._memory
            values.append(memory.payload(memory.row(added.edit.id)).value)
    assert np.array_equal(*values)
