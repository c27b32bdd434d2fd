"""The judge of pairs: what it reads of a text, its file, and what the shipped one says."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from editkit.errors import ModelUnavailable
from editkit.models.sentences import LoadedEncoder
from editkit.scope.asking import plain, question, sentences
from editkit.scope.encoder import Reader, adapted_layers, merge, spelling
from editkit.scope.head import PairHead
from editkit.scope.judge import Judge, JudgeCard, write_judge
from editkit.scope.repair import is_slip, repaired
from editkit_store import EditkitError

BLOCKS = Path(__file__).parents[3] / "benchmarks" / "judge"
WORDS = "how long is the warranty on a brewmaster 300 500 does it cost much and price what".split()


# What is read of a text


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("What IS the   capital?", "what is the capital"),
        ("what's up", "what s up"),
        ("Cafe\u0301 Zoë", "café zoë"),
        ("\uff22\uff32\uff25\uff37\u3000\uff13\uff10\uff10", "brew 300"),
        ("pri\u200bce \u202ehere\u202c\ufeff", "price here"),
        ("No. Really! Why?", "no . really . why"),
        ("3.11, 1,000 and 10:30.", "3.11 1,000 and 10:30"),
        ("C++ or C# for $5?", "c++ or c# for $5"),
        ("check-out | ____", "check out"),
        ("What is -5, and 5 - 3?", "what is -5 and 5 3"),
        ("Straße", "strasse"),
        ("屏幕是多大的？", "屏幕是多大的"),
        ("?!", ""),
        ("", ""),
    ],
)
def test_what_says_nothing_is_not_read(said: str, read: str) -> None:
    assert plain(said) == read
    assert plain(read) == read


def test_a_conversation_is_its_last_turn_and_what_was_said_before() -> None:
    assert question("a") == ("a", ())
    assert question(["a", "b", "c"]) == ("c", ("a", "b"))
    assert question([]) == ("", ())
    assert question([str(turn) for turn in range(20)]) == ("19", ("14", "15", "16", "17", "18"))


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("Hello! What is it?", "What is it?"),
        ("hi, quick question: how much is it", "how much is it"),
        ("Good morning! hey, when do you open? thx", "when do you open?"),
        ("Hi there, what does it cost? Thanks in advance!", "what does it cost?"),
        ("Hello", "Hello"),
        ("thanks", "thanks"),
        ("hello world program in c", "hello world program in c"),
        ("Hi-fi systems: who makes them?", "Hi-fi systems: who makes them?"),
        ("How do I say thank you in Polish?", "How do I say thank you in Polish?"),
        ("what is thx", "what is thx"),
    ],
)
def test_a_greeting_and_thanks_ask_for_nothing(said: str, asked: str) -> None:
    assert question(said).asking == asked
    assert question(("What is new?", "Nothing.", said)).asking == asked


def test_sentences_end_with_their_marks() -> None:
    assert sentences("Hello there. Is it 3.5?\nYes！ 好。吗？") == [
        "Hello there.", "Is it 3.5?", "Yes！", "好。", "吗？",
    ]  # fmt: skip


def test_a_mistyped_word_is_spelled_like_itself_more_than_like_others() -> None:
    word = spelling("warranty")
    for mistyped in ("warrenty", "waranty", "warrnaty", "wwarranty"):
        assert word @ spelling(mistyped) > 0.7 > 0.5 > word @ spelling("price")
    assert not spelling("").any()


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("hwo lnog is teh waranty on a brewmastre", "how long is the warranty on a brewmaster"),
        ("warrantybrewmaster 300", "warranty brewmaster 300"),
        ("warranty of the brewmaster 3000", "warranty of the brewmaster 3000"),
        ("is the cost the same", "is the cost the same"),
        ("a wsrranty", "a warranty"),
    ],
)
def test_a_slip_is_taken_for_the_word_that_may_have_been_meant(said: str, read: str) -> None:
    meant = "how long is the warranty brewmaster 300".split()
    assert repaired(said, meant, frozenset({"cost", "same", "of", "on", "a"})) == read
    assert repaired(said, [], frozenset()) == said


def test_another_name_is_no_slip() -> None:
    assert is_slip("hrabor", "harbor")
    assert is_slip("fuonded", "founded")
    assert not is_slip("barlow", "harlow")
    assert not is_slip("corvina", "corvana")
    assert not is_slip("she", "the")


# A small judge, random, of the words above


def pieces() -> PreTrainedTokenizerFast:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789."
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    known = dict.fromkeys([*marks, *letters, *(f"##{one}" for one in letters), *WORDS])
    raw = Tokenizer(
        models.WordPiece({word: at for at, word in enumerate(known)}, unk_token="[UNK]")
    )
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        unk_token="[UNK]",
    )  # fmt: skip


def small_encoder() -> LoadedEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
        )  # fmt: skip
        return LoadedEncoder(BertModel(config).eval(), pieces(), "sha256:small")


def card(**changes: Any) -> JudgeCard:
    fields: dict[str, Any] = {
        "encoder": "small", "fingerprint": "sha256:small", "first": 1, "window": 24, "width": 32,
        "size": 16, "hidden": 8, "slope": 1.0, "shift": 0.0, "fires": {}, "finds": {},
        "thresholds": {"strict": 0.9, "balanced": 0.8, "broad": 0.5}, "training": {},
    }  # fmt: skip
    return JudgeCard(**{**fields, **changes})


def tensors() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        head = PairHead(32, 16, 8)
        found = {f"head.{name}": value for name, value in head.state_dict().items()}
        for name, owner, leaf in adapted_layers(small_encoder().model, 1):
            out, into = getattr(owner, leaf).weight.shape
            found[f"{name}.up"] = torch.randn(out, 2) * 0.1
            found[f"{name}.down"] = torch.randn(2, into) * 0.1
    return found


@pytest.fixture(scope="module")
def small() -> Judge:
    return Judge(card(), small_encoder(), tensors())


def test_adapters_are_added_to_the_weights_of_the_layers_from_the_first_on() -> None:
    one, other = small_encoder().model, small_encoder().model
    given = tensors()
    merge(other, given, 1)
    added = given["1.wide.up"] @ given["1.wide.down"]
    assert torch.equal(
        other.encoder.layer[1].intermediate.dense.weight,
        one.encoder.layer[1].intermediate.dense.weight + added,
    )
    below = one.encoder.layer[0].state_dict()
    assert all(torch.equal(below[k], v) for k, v in other.encoder.layer[0].state_dict().items())


def test_what_is_said_before_is_marked_and_cut_from_its_beginning() -> None:
    reader = Reader(pieces(), 14)
    read = reader.read(question(["how long is the warranty", "it is much", "and the price"]))
    said = "long is the warranty _ it is much _ and the price".replace("_", "").split(" ")
    assert read.words == ("", *said, "")
    assert read.kinds == (0, *[1] * 9, 0, 0, 0, 0)
    assert len(read.ids) == 14
    assert not read.is_cut


def test_of_a_text_beyond_the_window_the_part_that_asks_is_read() -> None:
    reader = Reader(pieces(), 16)
    read = reader.read(question("It is much. " * 20 + "What does it cost? " + "It is much. " * 20))
    assert read.is_cut
    assert len(read.ids) <= 16
    assert "cost" in read.words
    endless = reader.read(question("much " * 500 + "cost"))
    assert endless.is_cut
    assert endless.words[-2] == "cost"


SAID: list[Any] = [
    "How long is the warranty on the Brewmaster 300?",
    "brewmaster 500 price",
    "what does it cost",
    ["how long is the warranty on the brewmaster 300", "it is long", "and the price?"],
    "is it much " * 30,
    "a",
]


def test_a_text_scores_the_same_alone_and_among_others(small: Judge) -> None:
    together = small.encode(SAID)
    for prompt in together:
        scores = small.score(prompt, together)
        for at, said in enumerate(SAID):
            alone = small.score(prompt, small.encode([said]))[0]
            assert scores[at] == pytest.approx(alone, abs=1e-5)


def test_a_pair_and_its_reverse_score_alike(small: Judge) -> None:
    judged = small.encode(SAID)
    for one in judged:
        for other in judged:
            there, back = small.score(one, [other])[0], small.score(other, [one])[0]
            assert there == pytest.approx(back, abs=1e-5)


def test_the_same_words_score_one_and_no_words_nothing(small: Judge) -> None:
    one, same, none, mark = small.encode(["The price of it?", "the  PRICE of it!!", "", "?!"])
    assert list(small.score(one, [same, none, mark])) == [1, 0, 0]
    assert list(small.score(none, [one, none, mark])) == [0, 0, 0]
    assert (none.is_empty, one.is_empty) == (True, False)
    assert small.score(one, []).shape == (0,)


def test_many_candidates_are_compared_in_parts(small: Judge) -> None:
    prompt, *others = small.encode(["what price", *(f"brewmaster {n} cost" for n in range(150))])
    scores = small.score(prompt, others)
    assert scores[140] == pytest.approx(small.score(prompt, [others[140]])[0], abs=1e-5)
    assert ((scores >= 0) & (scores <= 1)).all()


# Its file


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "judge.safetensors"
    write_judge(path, card(), tensors())
    return path


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Judge]:
    monkeypatch.setattr("editkit.scope.judge.load_encoder", lambda *_, **__: small_encoder())
    return Judge.load


def test_a_written_judge_says_what_the_one_in_memory_says(
    written: Path, load: Callable[[Path], Judge], small: Judge
) -> None:
    read = load(written)
    assert read.card == card()
    scores = [judge.score(*_split(judge.encode(SAID))) for judge in (read, small)]
    assert scores[0] == pytest.approx(scores[1], abs=0.01)  # half precision
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def _split(judged: list[Any]) -> tuple[Any, list[Any]]:
    return judged[0], judged[1:]


def refused(load: Callable[[Path], Judge], path: Path) -> ModelUnavailable:
    with pytest.raises(ModelUnavailable) as info:
        load(path)
    assert info.value.name == "judge"
    assert info.value.hint
    return info.value


def test_a_judge_of_another_encoder_is_refused(
    tmp_path: Path, load: Callable[[Path], Judge]
) -> None:
    path = tmp_path / "other.safetensors"
    write_judge(path, card(fingerprint="sha256:another"), tensors())
    error = refused(load, path)
    assert error.reason == "encoder"
    assert "sha256:another" in str(error)
    assert "sha256:small" in str(error)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(
    written: Path, load: Callable[[Path], Judge], keep: float
) -> None:
    held = written.read_bytes()
    written.write_bytes(held[: int(keep * len(held)) if 0 < keep < 1 else int(keep)])
    assert refused(load, written).reason == "damaged"


def test_files_that_do_not_fit_are_refused(written: Path, load: Callable[[Path], Judge]) -> None:
    held = load_file(written)
    with safe_open(written, framework="pt") as file:
        about = file.metadata()
    said = json.loads(about["card"])
    gone = {name: value for name, value in held.items() if name != "1.query.up"}
    other = {**held, "head.own.weight": torch.zeros(3, 3)}
    broken = {**held, "head.own.bias": torch.full((8,), float("nan"))}
    cards = [{**said, "newer": 1}, {**said, "slope": 0}, {"encoder": "small"}]
    for kept, words in (
        *(((kept, about)) for kept in (gone, other, broken)),
        (held, {}),
        (held, {**about, "format": "editkit-judge-9"}),
        *((held, {**about, "card": json.dumps(one)}) for one in cards),
    ):
        save_file(kept, written, words)
        assert refused(load, written).reason == "damaged"
    written.unlink()
    assert refused(load, written).reason == "damaged"


# The blocks it is trained on


def test_the_blocks_are_as_they_should_be() -> None:
    files = sorted((BLOCKS / "blocks").glob("*.txt"))
    said = subprocess.run(
        [sys.executable, str(BLOCKS / "blocks.py"), "check", *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (said.returncode, said.stderr) == (0, "")
    counts = {
        name: [int(one.rsplit(" ", 1)[1]) for one in rest.split(", ")]
        for name, _, rest in (line.partition(": ") for line in said.stdout.splitlines()[:2])
    }
    assert sum(counts["domain"]) >= 3000
    assert len(counts["domain"]) >= 50
    assert len([count for count in counts["language"] if count >= 60]) >= 8


# The one that ships


@pytest.fixture(scope="module")
def shipped() -> Judge:
    try:
        return Judge.load()
    except EditkitError as error:
        if isinstance(error, ModelUnavailable) and error.name != "judge":
            pytest.skip(f"the encoder cannot be fetched here: {error}")
        raise


def test_the_shipped_file_is_small_and_says_what_it_is() -> None:
    with resources.as_file(resources.files("editkit.scope") / "judge.safetensors") as path:
        assert path.stat().st_size <= 3_000_000
        with safe_open(path, framework="pt") as file:
            said = JudgeCard.model_validate_json(file.metadata()["card"])
    assert said.encoder == "all-minilm-l6-v2"
    assert list(said.thresholds) == ["strict", "balanced", "broad"]
    limits = list(said.thresholds.values())
    assert 1 > limits[0] > limits[1] > limits[2] > 0
    fires = [said.fires[name] for name in said.thresholds]
    assert fires == sorted(fires)
    assert said.training["blocks"] > 2000


PLAIN = (
    (
        "How high is the Matterhorn?",
        ["what's the height of the matterhorn", "matterhorn height", "How hihg is teh Matterhorn?"],
        ["Who first climbed the Matterhorn?", "How high is the Eiger?", "matterhorn weather",
         "Write a poem about the Matterhorn."],
    ),
    (
        "What does the Lumo desk lamp cost?",
        ["price of the lumo desk lamp", "How much is the Lumo desk lamp?"],
        ["What does the Lumo floor lamp cost?", "What colours does the Lumo desk lamp come in?",
         "How do I return the Lumo desk lamp?"],
    ),
)  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize(("prompt", "same", "other"), PLAIN)
def test_plain_pairs_are_told_apart(
    shipped: Judge, prompt: str, same: list[str], other: list[str]
) -> None:
    edit = shipped.encode([prompt])[0]
    judged = shipped.encode([*same, *other], near=[edit])
    scores = shipped.score(edit, judged)
    assert (scores[: len(same)] >= shipped.thresholds["balanced"]).all(), scores
    assert (scores[len(same) :] < shipped.thresholds["balanced"]).all(), scores


@pytest.mark.real
def test_how_a_text_is_encoded_makes_no_difference(shipped: Judge) -> None:
    said = "Wie teuer ist das Führungszeugnis in Lüdenrade?"
    wide = "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in said)
    forms = [
        unicodedata.normalize("NFD", said), unicodedata.normalize("NFC", said), said.upper(), wide,
        "\u200b".join(said), f"\u202a{said}\u202c", f"  {said}!\n", said.rstrip("?"),
    ]  # fmt: skip
    edit, other, *judged = shipped.encode([said, "Wer ist Bürgermeister in Lüdenrade?", *forms])
    assert list(shipped.score(edit, judged)) == [1] * len(forms)
    against = [shipped.score(one, [other])[0] for one in judged]
    assert against == pytest.approx([shipped.score(edit, [other])[0]] * len(forms), abs=1e-5)


@pytest.mark.real
def test_every_script_and_length_is_judged_alone_as_among_others(shipped: Judge) -> None:
    said: list[Any] = [
        "מה המחיר של המנורה?", "ما هو سعر المصباح؟", "电池容量是多少", "What is the price of 电池?",
        "How much is the Лампа?",
        "ランプの値段は？", "Сколько стоит лампа?", "x", "🙂", "price " * 2000, "",
        ["Tell me about the Lumo lamp.", "It is a lamp.", "and its price?"],
    ]  # fmt: skip
    judged = shipped.encode(said)
    assert [one.is_cut for one in judged] == [one == "price " * 2000 for one in said]
    for prompt in judged:
        scores = shipped.score(prompt, judged)
        assert np.isfinite(scores).all()
        alone = [shipped.score(prompt, shipped.encode([one]))[0] for one in said]
        back = [shipped.score(one, [prompt])[0] for one in judged]
        assert scores == pytest.approx(alone, abs=1e-5)
        assert scores == pytest.approx(back, abs=1e-5)
