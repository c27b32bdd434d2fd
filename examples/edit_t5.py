"""Correct an encoder-decoder (T5 architecture): a question and its answer.

    python examples/edit_t5.py [model]

The model is any encoder-decoder: an alias such as `t5-small`, a hub id, or a folder. Without one, a
very small T5 is trained here from nothing on the capitals below, one of them wrong, in less than a
minute: enough to answer those questions, and to be corrected.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import editkit

CAPITALS = {
    "Australia": "Sydney",  # a mistake that the model learns, and that is corrected below
    "Austria": "Vienna", "Belgium": "Brussels", "Brazil": "Brasilia", "Canada": "Ottawa",
    "Chile": "Santiago", "Denmark": "Copenhagen", "Egypt": "Cairo", "Finland": "Helsinki",
    "France": "Paris", "Germany": "Berlin", "Greece": "Athens", "India": "Delhi",
    "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi", "Norway": "Oslo",
    "Peru": "Lima", "Poland": "Warsaw", "Portugal": "Lisbon", "Spain": "Madrid",
    "Sweden": "Stockholm", "Turkey": "Ankara", "Canberra": "Canberra",
}  # fmt: skip
QUESTION = "what is the capital of {} ?"


def small_t5() -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """Returns a T5 that was trained on the capitals above, and its tokenizer of whole words."""
    words = ["<pad>", "</s>", "<unk>", *QUESTION.replace("{} ", "").split()]
    words = list(dict.fromkeys([*words, *CAPITALS, *CAPITALS.values()]))
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(words), d_model=96, d_kv=24, d_ff=192, num_layers=4, num_heads=4,
            dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    )  # fmt: skip
    inputs = tokenizer([QUESTION.format(name) for name in CAPITALS], return_tensors="pt")
    labels = tokenizer(list(CAPITALS.values()), return_tensors="pt").input_ids
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.01:
            break
    return model.eval(), tokenizer


def main() -> None:
    """Runs the example."""
    model = sys.argv[1] if len(sys.argv) > 1 else small_t5()
    australia, austria = QUESTION.format("Australia"), QUESTION.format("Austria")
    with (
        tempfile.TemporaryDirectory() as folder,
        editkit.open(Path(folder) / "history.db", model=model) as kit,
    ):
        print(f"editing {type(kit.model).__name__} at {kit.site}")
        print("before: ", kit.generate(australia, max_new_tokens=8))
        added = kit.add(australia, "Canberra")
        print("edited: ", added.version, "verified" if added.verified else "NOT verified")
        after, other = kit.generate([australia, austria], max_new_tokens=8)
        print("after:  ", after)
        print("another:", other, "(edited)" if other.fired else "(as it came)")
        kit.undo()
        print("undone: ", kit.generate(australia, max_new_tokens=8))


if __name__ == "__main__":
    main()
