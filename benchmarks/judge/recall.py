"""Trains what recall needs, and puts it into a judge's file.

    python benchmarks/judge/recall.py JUDGE.safetensors [--steps 400]

Learned are a weight for each word piece and two projections, so that other wordings of a question
lie near its prompt (``editkit.scope.recall``), by a contrastive loss over the prompts of a batch:
whole domains, so that prompts about the same things tell each other apart, and some of others.
Printed is, of held-out domains, how often a prompt is among the nearest of all blocks.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import blocks
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from editkit.models.sentences import load_encoder
from editkit.scope.asking import question
from editkit.scope.encoder import GRAMS, Reader, spelling
from editkit.scope.recall import Recall

MEANING, SPELLING = 192, 64  # lengths of the two parts of a key
HELD_LANGUAGES = ("ja", "pl")
Text = str | tuple[str, ...]


class Texts:
    """Texts as word pieces, with how their words are spelled."""

    def __init__(self, texts: list[Text], reader: Reader) -> None:
        self.readings = {text: reader.read(question(text)) for text in dict.fromkeys(texts)}
        words = {word for one in self.readings.values() for word in one.words if word}
        self._numbers = {word: number for number, word in enumerate(sorted(words))}
        self._spelled = torch.from_numpy(np.stack([spelling(word) for word in sorted(words)]))

    def batch(self, texts: list[Text]) -> tuple[torch.Tensor, ...]:
        """Returns ids, kinds, spellings, and which text each piece is of."""
        ids, kinds, words, rows = [], [], [], []
        for row, text in enumerate(texts):
            reading = self.readings[text]
            for piece, kind, word in zip(*reading[:3], strict=True):
                if word:
                    ids.append(piece)
                    kinds.append(float(kind))
                    words.append(self._numbers[word])
                    rows.append(row)
        return (
            torch.tensor(ids), torch.tensor(kinds), self._spelled[words], torch.tensor(rows),
        )  # fmt: skip


class Net(torch.nn.Module):
    """What is learned."""

    def __init__(self, embeddings: torch.Tensor, often: torch.Tensor) -> None:
        super().__init__()
        self.pieces = F.normalize(embeddings - embeddings.mean(0), dim=1)
        sample = self.pieces[torch.randperm(len(embeddings))[:5000]]
        self.meaning = torch.nn.Parameter(
            torch.linalg.svd(sample, full_matrices=False)[2][:MEANING].T
        )
        self.spelling = torch.nn.Parameter(torch.randn(GRAMS, SPELLING) * 2 / GRAMS**0.5)
        rare = (torch.log((often.sum() + 1) / (often + 3)) / 12).clamp(0.05, 1.2)
        self.raw = torch.nn.Parameter(torch.log(torch.expm1(rare)))
        self.shares = torch.nn.Parameter(torch.zeros(2))
        self.scale = torch.nn.Parameter(torch.tensor(2.7))

    def forward(self, batch: tuple[torch.Tensor, ...], count: int, drop: float = 0.0) -> Any:
        """Returns the keys of texts."""
        ids, kinds, spelled, rows = batch
        share, before = torch.sigmoid(self.shares)
        weights = F.softplus(self.raw)[ids] * (1 - kinds * (1 - before))
        if drop:
            weights = weights * (torch.rand(len(weights)) > drop)
        meant = torch.zeros(count, MEANING).index_add(
            0, rows, weights[:, None] * (self.pieces[ids] @ self.meaning)
        )
        letters = torch.zeros(count, SPELLING).index_add(
            0, rows, weights[:, None] * (spelled @ self.spelling)
        )
        parts = share.sqrt() * F.normalize(meant, dim=1), (1 - share).sqrt() * F.normalize(letters)
        return torch.cat(parts, dim=1)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns what the file holds."""
        found = {
            "meaning": self.meaning, "spelling": self.spelling,
            "weights": F.softplus(self.raw), "shares": torch.sigmoid(self.shares),
        }  # fmt: skip
        return {name: value.detach().half().contiguous() for name, value in found.items()}


def main() -> None:
    """Trains, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    folder = Path(__file__).parent / "blocks"
    known = [block for path in sorted(folder.glob("*.txt")) for _, block in blocks.parse(path)]
    for block in known:
        block["same"] = [one if isinstance(one, str) else tuple(one) for one in block["same"]]
    encoder = load_encoder("all-minilm-l6-v2")
    texts = Texts(
        [one for block in known for one in (block["prompt"], *block["same"])],
        Reader(encoder.tokenizer),
    )
    english = sorted({block["domain"] for block in known if block["language"] == "en"})
    held_domains = set(random.sample(english, 10))
    held = [
        block["language"] in HELD_LANGUAGES
        or (block["language"] == "en" and block["domain"] in held_domains)
        for block in known
    ]
    embeddings = encoder.model.get_input_embeddings().weight.detach().float()
    often = torch.zeros(len(embeddings))
    for reading in texts.readings.values():
        often[list(set(reading.ids))] += 1
    net = Net(embeddings, often)
    optimizer = torch.optim.Adam(
        [
            {"params": [net.meaning, net.spelling], "lr": 2e-3},
            {"params": [net.raw, net.shares, net.scale], "lr": 2e-2},
        ]
    )
    train = [at for at in range(len(known)) if not held[at]]
    domains: dict[str, list[int]] = {}
    for at in train:
        domains.setdefault(known[at]["domain"], []).append(at)
    began = time.monotonic()
    for step in range(asked.steps):
        chosen = [
            at
            for name in random.sample(sorted(domains), 3)
            for at in random.sample(domains[name], min(60, len(domains[name])))
        ]
        chosen = list(dict.fromkeys([*chosen, *random.sample(train, 150)]))
        prompts = net(texts.batch([known[at]["prompt"] for at in chosen]), len(chosen))
        owners = [row for row in range(len(chosen)) for _ in range(2)]
        wordings = [random.choice(known[chosen[row]]["same"]) for row in owners]
        queries = net(texts.batch(wordings), len(owners), drop=0.1)
        loss = F.cross_entropy(
            queries @ prompts.T * net.scale.exp().clamp(max=40), torch.tensor(owners)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.01 ** (1 / asked.steps) if step > asked.steps // 2 else 1
        if step % 50 == 49:
            seconds = time.monotonic() - began
            print(f"step {step + 1} loss {loss.item():.3f} {seconds:.0f} s", flush=True)
    tensors = net.tensors()
    measure(Recall(tensors, embeddings), known, held, texts)
    with safe_open(asked.file, framework="pt") as file:
        about = file.metadata()
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kept = {name: value for name, value in kept.items() if not name.startswith("recall.")}
    kept |= {f"recall.{name}": value for name, value in tensors.items()}
    scratch = asked.file.with_name(asked.file.name + ".new")
    save_file(kept, scratch, about)
    scratch.replace(asked.file)


def measure(recall: Recall, known: list[dict[str, Any]], held: list[bool], texts: Texts) -> None:
    """Prints how often a prompt is found among the nearest of all blocks, and how near it is."""
    keys = np.stack([recall.key(texts.readings[block["prompt"]]) for block in known])
    apart: dict[str, list[int]] = {}
    cosines, strangers = [], []
    for at, block in enumerate(known):
        if held[at]:
            others = np.array([one["domain"] != block["domain"] for one in known])
            for wording, kind in zip(block["same"], block["same_kinds"], strict=True):
                near = keys @ recall.key(texts.readings[wording])
                apart.setdefault(kind, []).append(int((near > near[at]).sum()))
                cosines.append(near[at])
                strangers.append(float(np.sort(near[others])[-1]))
    ranks = np.array([rank for found in apart.values() for rank in found])
    share = ", ".join(f"{k}: {(ranks < k).mean():.3f}" for k in (1, 8, 16, 32))
    print(f"held out, among the nearest of {len(known)}: {share}")
    print({kind: round(float(np.mean(np.array(r) < 16)), 2) for kind, r in apart.items()})
    print("cosine, percentiles 1 2 5 10 50:", np.percentile(cosines, [1, 2, 5, 10, 50]).round(2))
    print("nearest of other domains, 10 50 90:", np.percentile(strangers, [10, 50, 90]).round(2))


if __name__ == "__main__":
    main()
