"""How far edits reach, before anything is learned: which prompts fire which edit's key.

    python benchmarks/scope.py [--model NAME ...] [--key pooled sentence]

All edits of a set in one codebook, prompt only. For each scope: *right*, rephrasings that fire an
edit with their target; *wrong*, those that fire another; and the share that fires any edit of

  probes     zsRE: questions of Natural Questions; CounterFact: neighbours of the edited facts
  other      the subject of an edit in the template of another relation: a question that an edit of
             one fact should leave alone, and the price of reaching loose rephrasings
  general    the sentences of `editkit.scope.general`

Of keys of sentences the encoder is `all-minilm-l6-v2`.

`zsre` and `counterfact` are for measuring, the other two were tuned on.
"""

from __future__ import annotations

import argparse
import functools
import platform
import random
import time
from typing import Any

import numpy as np
import quality
import torch
import transformers

from editkit.config import GraceConfig
from editkit.models.load import load_model
from editkit.models.sentences import SentenceEncoder
from editkit.scope import PooledKeys, PromptKeys, SentenceKeys
from editkit.scope.general import TEXT
from editkit.scope.information import of_model


def others(edits: list[dict[str, Any]]) -> list[str]:
    """For each edit its subject in the template of an edit with another kind of target.

    Two edits are of one relation where their templates, or their targets before and after, are
    linked by a chain of equal ones.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    templates = [edit["prompt"].replace(edit["subject"], "{}") for edit in edits]
    for edit, template in zip(edits, templates, strict=True):
        answers = [edit["target"], edit.get("ground_truth"), template]
        for name in filter(None, answers):
            parent[root(f"{name}")] = root(edit["target"])
    relations = [root(edit["target"]) for edit in edits]
    draw = random.Random(0)
    found = []
    for edit, relation in zip(edits, relations, strict=True):
        choice = [
            template
            for template, other in draw.sample(list(zip(templates, relations, strict=True)), 50)
            if other != relation and "{}" in template
        ]
        if choice:
            found.append(choice[0].replace("{}", edit["subject"]))
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=["smollm2-135m", "gemma3-270m"])
    parser.add_argument(
        "--key", nargs="*", choices=["pooled", "sentence"], default=["pooled", "sentence"]
    )
    asked: Any = parser.parse_args()
    print(
        f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    sentences = SentenceEncoder("all-minilm-l6-v2") if "sentence" in asked.key else None
    for name in asked.model:
        loaded = load_model(name)
        known = functools.partial(
            of_model, loaded.model, loaded.tokenizer, fingerprint=loaded.fingerprint, is_kept=True
        )
        pooled = PooledKeys(loaded.model, loaded.tokenizer, known)
        for kind in asked.key:
            keys: PromptKeys = pooled
            if kind == "sentence":
                assert sentences is not None
                keys = SentenceKeys(pooled, sentences)
            print(f"\n{name}, {kind} keys")
            print("set                 edits  scope      right  wrong  probes  other  general")
            for which in ("zsre", "counterfact", "zsre_train", "counterfact_tuning"):
                cost = measure(which, kind, keys, loaded.tokenizer)
            print(f"{1e3 * cost:.2f} ms a key")


def measure(which: str, kind: Any, keys: PromptKeys, tokenizer: Any) -> float:
    """Prints the lines of one set; returns seconds a key."""

    def table(texts: list[str]) -> np.ndarray:
        return np.stack([keys.key(tokenizer(text)["input_ids"]) for text in texts])

    edits = quality.rows(which, None)
    started = time.perf_counter()
    book = table([edit["prompt"] for edit in edits])
    cost = (time.perf_counter() - started) / len(edits)
    targets = np.array([edit["target"] for edit in edits])
    rephrased = [edit["rephrases"][0] for edit in edits]
    cosines = book @ table(rephrased).T
    nearest = cosines.argmax(axis=0)
    best, is_right = cosines.max(axis=0), targets[nearest] == targets
    asked_of = {
        "probes": [edit["locality_prompt"] for edit in edits],
        "other": others(edits),
        "general": TEXT.splitlines(),
    }
    reached = {name: (book @ table(texts).T).max(axis=0) for name, texts in asked_of.items()}
    for scope in ("strict", "balanced", "broad"):
        least = 1 - GraceConfig(scope=scope).initial_radius(kind) ** 2 / 2
        fired = best >= least
        shares = [(fired & is_right).mean(), (fired & ~is_right).mean()]
        shares += [(found >= least).mean() for found in reached.values()]
        print(
            f"{which:18s} {len(edits):6d}  {scope:9s} "
            + "  ".join(f"{share:.3f}" for share in shares),
            flush=True,
        )
    return cost


if __name__ == "__main__":
    main()
