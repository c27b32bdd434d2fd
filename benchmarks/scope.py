"""How far edits reach, before anything is learned: which prompts fire which edit's key.

    python benchmarks/scope.py [--model NAME ...] [--key pooled sentence]

All edits of a set in one codebook, prompt only. For each scope: *right*, rephrasings that fire an
edit with their target; *wrong*, those that fire another; and the share that fires any edit of

  probes     zsRE: questions of Natural Questions; CounterFact: neighbours of the edited facts
  other      the subject of an edit in the template of another relation: a question that an edit of
             one fact should leave alone, and the price of reaching loose rephrasings
  general    the sentences of `editkit.scope.general`

*radius* is a radius alone, at the balanced scope; the others look twice, as running models do
(`editkit.scope.confirm`). Of keys of sentences the encoder is `all-minilm-l6-v2`.

`zsre` and `counterfact` are for measuring, those of training and tuning were tuned on. Of *product*
sets every prompt, rephrasing and probe names one product: 300 questions of zsRE with "In AcmeDB, "
in front. Of *products* it is one of three.
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

from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.config import GraceConfig
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.part import GracePart
from editkit.methods.grace.payload import GracePayload
from editkit.models.load import load_model
from editkit.models.sentences import SentenceEncoder
from editkit.scope.general import TEXT
from editkit.scope.information import of_model
from editkit.scope.keys import PromptKeys
from editkit.scope.pooled import PooledKeys
from editkit.scope.sentences import SentenceKeys


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
            for which, edits in sets().items():
                cost = measure(which, edits, kind, keys, loaded.tokenizer)
            print(f"{1e3 * cost:.2f} ms a key")


def sets() -> dict[str, list[dict[str, Any]]]:
    """Returns the edits of each set."""
    names = ("zsre", "counterfact", "zsre_train", "counterfact_tuning")
    found = {name: quality.rows(name, None) for name in names}
    for name in ("zsre", "zsre_train"):
        found[f"{name} product"] = about(found[name][:300], ["AcmeDB"])
    found["zsre products"] = about(found["zsre"][:300], ["AcmeDB", "the Zenmail app", "Foobric 3"])
    return found


def about(edits: list[dict[str, Any]], products: list[str]) -> list[dict[str, Any]]:
    """Returns edits as of a store about products: every text names one of them."""

    def named(text: str, number: int) -> str:
        return f"In {products[number % len(products)]}, {text[0].lower()}{text[1:]}"

    return [
        {
            **edit,
            "prompt": named(edit["prompt"], number),
            "rephrases": [named(edit["rephrases"][0], number)],
            "locality_prompt": named(edit["locality_prompt"], 7 * number + 1),
        }
        for number, edit in enumerate(edits)
    ]


def measure(
    which: str, edits: list[dict[str, Any]], kind: Any, keys: PromptKeys, tokenizer: Any
) -> float:
    """Prints the lines of one set; returns seconds a key."""

    def table(texts: list[str]) -> torch.Tensor:
        return torch.tensor(np.stack([keys.key(tokenizer(text)["input_ids"]) for text in texts]))

    started = time.perf_counter()
    book = table([edit["prompt"] for edit in edits])
    cost = (time.perf_counter() - started) / len(edits)
    asked_of = {
        "rephrases": table([edit["rephrases"][0] for edit in edits]),
        "probes": table([edit["locality_prompt"] for edit in edits]),
        "other": table(others(edits)),
        "general": table(TEXT.splitlines()),
    }
    targets = [edit["target"] for edit in edits]
    for scope in ("radius", "strict", "balanced", "broad"):
        is_confirmed = scope != "radius"
        name: Any = scope if is_confirmed else "balanced"
        view = viewed(book, targets, GraceConfig(scope=name).initial_radius(kind), is_confirmed)
        fired = {what: np.array(view.select(queries).fired) for what, queries in asked_of.items()}
        meant = np.array(targets)
        is_right = meant[fired["rephrases"]] == meant
        hits = fired.pop("rephrases") >= 0
        shares = [(hits & is_right).mean(), (hits & ~is_right).mean()]
        shares += [(found >= 0).mean() for found in fired.values()]
        print(
            f"{which:18s} {len(edits):6d}  {scope:9s} "
            + "  ".join(f"{share:.3f}" for share in shares),
            flush=True,
        )
    return cost


def viewed(book: torch.Tensor, targets: list[str], radius: float, is_confirmed: bool) -> GracePart:
    """Returns a view with an edit for each key ``(n, d)``, as a running model follows it."""
    numbers = {target: number for number, target in enumerate(dict.fromkeys(targets))}
    value = np.zeros(1, np.float32)
    memory = Memory()
    memory.put(
        [
            GracePayload(
                Entry(str(row), key, (numbers[target],), radius, "nearest"), value, "site",
                key="pooled", is_confirmed=is_confirmed,
            )
            for row, (key, target) in enumerate(zip(book.numpy(), targets, strict=True))
        ]
    )  # fmt: skip
    return GracePart(memory, np.arange(len(book)))


if __name__ == "__main__":
    main()
