"""Keys of texts to be classified, and what edits that are looked up by them do."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, tiny_bert, tiny_llama, tiny_llama_classifier, tiny_t5, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers import decoders as decoding
from transformers import PreTrainedTokenizerFast

import editkit
from editkit.errors import ArtifactsMissing, UnsupportedModel
from editkit.methods.grace.config import GraceConfig
from editkit.methods.grace.payload import GracePayload
from editkit.scope.general import TEXT
from editkit.scope.information import Information, has_words, of_model, ranked
from editkit.scope.pooled import PooledKeys
from editkit.scope.texts import TextKeys
from editkit.scope.words import Words
from editkit_store.records import ScopeName

TOKENIZER = tiny_tokenizer()
MODEL = tiny_bert()
CLASSIFIERS = pytest.mark.parametrize("make", [tiny_bert, tiny_llama_classifier])


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text)["input_ids"]
    return found


UNKEPT: Any = {"fingerprint": "sha256:x", "is_kept": False}


def known() -> Information:
    noise = np.random.default_rng(0)
    return Information(
        nats=noise.uniform(2, 14, 800).astype(np.float32),
        mean=noise.normal(0, 0.01, 64).astype(np.float32),
        spread=noise.uniform(0.1, 0.3, 64).astype(np.float32),
    )


@pytest.fixture
def keys() -> TextKeys:
    return TextKeys(MODEL, TOKENIZER, known)


@pytest.mark.parametrize("part", [8192, 7])
def test_the_key_is_the_equation(
    keys: TextKeys, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr("editkit.scope.texts._PART", part)  # tokens looked at at a time
    about = known()
    table = MODEL.get_input_embeddings().weight.detach().double().numpy()

    def row(token: int) -> Any:
        e = (table[token] - about.mean) / about.spread
        return e / math.sqrt(float(e @ e))

    def says(token: int) -> float:
        return max(float(about.nats[token]) - 4.0, 0.02)

    often = {
        token: math.exp(-float(about.nats[token])) * says(token) for token in ranked(TOKENIZER)
    }
    typical = sum(share * row(token) for token, share in often.items()) / sum(often.values())
    total = np.zeros(64)
    for word in ("red", " cat", " sun"):  # of two sentences, which count alike
        (token,) = ids(word)
        total += min(says(token), 10.0) * (row(token) - typical)
    (token,) = ids(" Oslo")  # a name: three times as heavy, and three tenths of it its spelling
    own = np.random.Generator(np.random.PCG64(zlib.crc32(b"oslo"))).standard_normal(64)
    own /= math.sqrt(float(own @ own))
    weight = 3.0 * min(max(says(token), 5.0), 10.0)
    total += weight * (math.sqrt(0.7) * (row(token) - typical) + math.sqrt(0.3) * own)
    found = keys.key(ids("red cat. sun Oslo"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, total / math.sqrt(float(total @ total)), atol=1e-5)


def test_every_sentence_and_every_turn_counts(keys: TextKeys) -> None:
    there, gone = keys.key(ids(" red cat. the sun sees Oslo")), keys.key(ids(" the sun sees Oslo"))
    assert there @ gone < 0.99
    assert there @ keys.key(ids(" the sun sees Oslo. red cat")) > 0.9999  # their order does not
    turns = [{"role": "user", "content": " red cat."}, {"role": "assistant", "content": " dog"}]
    chat = TOKENIZER.apply_chat_template(
        [*turns, {"role": "user", "content": " the sun sees Oslo"}], tokenize=False,
        add_generation_prompt=True,
    )  # fmt: skip
    assert keys.key(ids(chat)) @ keys.key(ids(" red cat. dog. the sun sees Oslo")) > 0.9999


def test_of_marks_alone_what_stands_around_every_text_is_no_part(keys: TextKeys) -> None:
    np.testing.assert_array_equal(keys.key(ids("<|user|>?<e>")), keys.key(ids("?")))
    assert np.isfinite(keys.key(ids("<e>"))).all()


def test_a_key_runs_nothing_once_they_are_prepared(
    keys: TextKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.prepare()
    monkeypatch.setattr("editkit.scope.texts.ranked", lambda _: pytest.fail("looked again"))
    keys.key(ids("red cat"))


def test_long_texts_about_different_things_are_far_apart() -> None:
    """As words of ordinary text have something in common, the mean of many is what all share."""
    model, draw = tiny_bert(), np.random.default_rng(1)
    with torch.no_grad():
        model.get_input_embeddings().weight += 0.15 * torch.randn(64)
    about = Information(known().nats, np.zeros(64, np.float32), np.full(64, 0.2, np.float32))
    plain, text = (made(model, TOKENIZER, lambda: about) for made in (PooledKeys, TextKeys))
    words = [word for word in WORDS if word.islower()]
    first, second = ([" ".join(draw.choice(part, 120))] for part in (words[::2], words[1::2]))
    apart = [
        float(np.linalg.norm(keys.key(ids(first[0])) - keys.key(ids(second[0]))))
        for keys in (plain, text)
    ]
    assert apart[0] < 0.9 < 1.1 < apart[1]


def test_what_a_classifier_knows_of_its_tokens_is_counted_and_ranked() -> None:
    found = of_model(MODEL, TOKENIZER, **UNKEPT)
    page = ids(TEXT)
    size = 800  # of the embeddings, which the vocabulary does not fill
    weights = np.full(size, 1 / (size + 100))
    for rank, token in enumerate(ranked(TOKENIZER), start=1):
        weights[token] = 1 / (rank + 100)
    shares = np.bincount(page, minlength=size) + len(page) * weights / weights.sum()
    np.testing.assert_allclose(found.nats, -np.log(shares / shares.sum()), atol=1e-4)
    assert len(found.mean) == len(found.spread) == 64


def test_words_are_ranked_and_single_letters_are_not() -> None:
    found = TOKENIZER.convert_ids_to_tokens(ranked(TOKENIZER))
    assert {"ĠCanberra", "sun"} <= set(found)
    assert not {"a", "Ġ", "<p>", "<|user|>", "1"} & set(found)
    reserved = ["[unused1]", "<extra_id_3>", "##s", "##ing", "cats"]
    assert ranked(pieces(reserved)) == [6, 7]  # behind three special ones


def test_vocabularies_that_tell_no_words_are_known() -> None:
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    assert has_words(TOKENIZER)
    assert has_words(pieces([*letters, *(f"sun{letter}" for letter in letters)]))
    assert not has_words(pieces([*letters, "sun", "[unused1]"]))
    ends = Tokenizer(models.BPE({"cat</w>": 0, "sun</w>": 1, "red</w>": 2}, []))
    assert not has_words(PreTrainedTokenizerFast(tokenizer_object=ends))


def test_more_tokens_than_embeddings_are_no_harm() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"word{'abcdefghij'[n % 10]}{n}" for n in range(400)])
    assert len(tokenizer) > 800
    found = TextKeys(MODEL, tokenizer, lambda: of_model(MODEL, tokenizer, **UNKEPT))
    assert np.isfinite(found.key(ids("red cat"))).all()


def pieces(words: list[str], *, whole: bool = False) -> Any:
    """A tokenizer of word pieces, or of whole words, neither of which marks spaces."""
    table = {word: at for at, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *words])}
    inner = Tokenizer(
        models.WordLevel(table, "[UNK]") if whole else models.WordPiece(table, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoding.WordPiece()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


@pytest.mark.parametrize("whole", [False, True])
def test_words_are_told_where_spaces_leave_no_mark(whole: bool) -> None:
    known = ["red", "cats", "sing", "ing", "cat", ".", "we"]
    tokenizer = pieces([*known, "##s", "##ing", "see"], whole=whole)
    told = Words(tokenizer, marked=False)
    words = told.split(tokenizer("red cats sing. we see cats")["input_ids"])
    assert [(word.text, word.sentence) for word in words] == [
        ("red", 1), ("cats", 1), ("sing", 1), ("we", 2), ("see", 2), ("cats", 2),
    ]  # fmt: skip
    if not whole:
        (word,) = told.split(tokenizer("seeing")["input_ids"])
        assert (word.text, len(word.ids)) == ("seeing", 2)


def test_decoders_have_the_words_that_their_histories_were_keyed_by() -> None:
    """Keys are stored: with such tokenizers, too, they must stay what they were."""
    tokenizer = pieces(["red", "cats", "see", "##ing"])
    row = tokenizer("red cats seeing")["input_ids"]
    assert [word.text for word in Words(tokenizer).split(row)] == ["redcatssee##ing"]
    keys = PooledKeys(tiny_llama(), tokenizer, known)
    assert keys.said(row) == ([], ["redcatssee##ing"])


@CLASSIFIERS
def test_an_edit_of_a_classifier_reaches_other_wordings_and_nothing_else(
    tmp_path: Path, make: Any
) -> None:
    with editkit.open(tmp_path / "h.db", model=(make(), TOKENIZER)) as kit:
        text = "milk and salt in Vienna"
        target = "neutral" if kit.generate(text).text != "neutral" else "positive"
        others = ["gold and iron in Oslo", "the dog sees a horse", "rice", TEXT[:100]]
        before = [one.text for one in kit.generate(others)]
        added = kit.add(text, target)
        assert added.verified
        again = kit.generate([text, "in Vienna, salt and milk.", f"Yes. {text}!"])
        assert [(one.text, one.fired) for one in again] == [(target, (added.edit.id,))] * 3
        after = kit.generate(others)
        assert [one.text for one in after] == before
        assert not any(one.fired for one in after)
        found = kit.explain("in Vienna, salt and milk.")
        assert found.fired == added.edit.id
        assert found.candidates[0].radius == pytest.approx(0.9)
        assert kit.diff("v0", "v1").codebook.added_rows[0].radius == pytest.approx(0.9)


@CLASSIFIERS
def test_it_fires_however_the_text_reaches_the_classifier(tmp_path: Path, make: Any) -> None:
    """Padded beside other texts, and as embeddings."""
    with editkit.open(tmp_path / "h.db", model=(make(), TOKENIZER)) as kit:
        text, other = ids("milk and salt in Vienna"), ids("the dog sees a horse and a bird")
        label = kit.generate("milk and salt in Vienna").text
        target = "neutral" if label != "neutral" else "positive"
        kit.add("milk and salt in Vienna", target)
        model: Any = kit.model
        wanted = model.config.label2id[target]
        alone = model(input_ids=torch.tensor([text])).logits[0]
        assert int(alone.argmax()) == wanted
        pad = [TOKENIZER.pad_token_id] * (len(other) - len(text))
        mask = [1] * len(text)
        sides = [(text + pad, mask + [0] * len(pad))]
        if make is not tiny_bert:  # which reads its label from the first token, padding or not
            sides.append((pad + text, [0] * len(pad) + mask))
        for row, seen in sides:
            logits = model(
                input_ids=torch.tensor([other, row]),
                attention_mask=torch.tensor([[1] * len(other), seen]),
            ).logits
            assert int(logits[1].argmax()) == wanted
        embeddings = model.get_input_embeddings()(torch.tensor([text]))
        if make is tiny_bert:
            assert int(model(inputs_embeds=embeddings).logits[0].argmax()) == wanted


@pytest.mark.parametrize(
    ("make", "kind", "others"),
    [(tiny_llama, "pooled", ["text"]), (tiny_t5, "state", ["pooled", "text", "sentence"]),
     (tiny_bert, "text", ["pooled"]), (tiny_llama_classifier, "text", ["pooled"])],
)  # fmt: skip
def test_every_family_has_the_keys_of_what_it_is_given(
    tmp_path: Path, make: Any, kind: str, others: list[str]
) -> None:
    path = tmp_path / "h.db"
    for other in others:
        with pytest.raises(UnsupportedModel, match=f"{other} keys need") as refused:
            editkit.open(path, model=(make(), TOKENIZER), grace={"key": other})
        assert f"'{kind}'" in str(refused.value.hint)
    target = "positive" if kind == "text" else "blue"
    with editkit.open(path, model=(make(), TOKENIZER)) as kit:
        kit.add("red cat", target)
        assert kit.has_scopes == (kind != "state")
    with editkit.open(path, model=(make(), TOKENIZER), grace={"key": kind}) as kit:
        assert kit.generate("red cat").text == target
    if kind != "state":
        with pytest.raises(ArtifactsMissing, match=f"{kind} keys; the model was opened at .*state"):
            editkit.open(path, model=(make(), TOKENIZER), grace={"key": "state"})


def test_keys_of_texts_have_a_format_of_their_own(tmp_path: Path) -> None:
    """An editkit that takes it for another key refuses it."""
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), TOKENIZER)) as kit:
        edit = kit.add("red cat", "positive").edit
        ((learned,),) = kit.store.artifacts.usable(kit.fingerprint, method="grace")
        data = learned.payload
        assert b"editkit.grace.4" in data
        found = GracePayload.from_bytes(data, edit_id=edit.id)
        assert found.key == "text"
        assert found.to_bytes() == data


@CLASSIFIERS
def test_a_history_of_states_goes_on_with_states(tmp_path: Path, make: Any) -> None:
    """As histories of classifiers are that were begun before there were such keys."""
    pair, path = (make(), TOKENIZER), tmp_path / "h.db"
    with editkit.open(path, model=pair, grace={"key": "state"}) as kit:
        first = kit.add("red cat", "positive")
    with editkit.open(path, model=pair) as kit:
        assert kit.generate("red cat").fired == (first.edit.id,)
        kit.add("tall tree", "neutral")
        assert [one.text for one in kit.generate(["red cat", "tall tree"])] == [
            "positive", "neutral",
        ]  # fmt: skip


def test_a_vocabulary_of_single_characters_leaves_states(tmp_path: Path) -> None:
    letters = pieces([*"abcdefghijklmnopqrstuvwxyz"])
    for key in ("text", "sentence"):
        with pytest.raises(UnsupportedModel, match="tokenizer knows words"):
            editkit.open(tmp_path / "x.db", model=(tiny_bert(), letters), grace={"key": key})
    with editkit.open(tmp_path / "d.db", model=(tiny_llama(), letters)) as kit:
        assert kit.has_scopes  # a decoder tells itself what its tokens say
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), letters)) as kit:
        assert kit.add("sun", "positive").verified
        assert not kit.has_scopes
    path = tmp_path / "labels.jsonl"
    path.write_text('{"prompt": "sun", "target": "positive"}\n', encoding="utf-8")
    with pytest.raises(UnsupportedModel, match="looked up by hidden states"):
        editkit.evaluate(
            [path], model=(tiny_bert(), letters), methods=["grace:strict"], out=tmp_path / "out"
        )


def test_states_are_the_keys_of_the_paper() -> None:
    assert GraceConfig.of("paper").key == "state"
    assert GraceConfig.of("paper").initial_radius("state") == 1.0
    scopes: tuple[ScopeName, ...] = ("strict", "balanced", "broad")
    radii = [GraceConfig().initial_radius("text", scope) for scope in scopes]
    assert radii == [0.7, 0.9, 1.0]
    assert GraceConfig().initial_radius("text") == 0.9
