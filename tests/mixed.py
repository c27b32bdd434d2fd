"""Kits on tiny models whose adaptors learn fast, and prompts that are far from each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_llama, tiny_tokenizer

import editkit
from editkit.kit import Kit

CAT, TREE, SEA = "The red cat is", "tall tree", "see Oslo"
OTHERS = ("milk and bread", "Who are you?", "gold")
EAGER = {"learning_rate": 2e-2, "steps": 80}


def opened(path: Path, model: Any = None, **options: Any) -> Kit:
    """A kit on a tiny model whose adaptors learn fast."""
    options.setdefault("train", EAGER)
    options.setdefault("elder", {"r": 4})
    return editkit.open(path, model=(model or tiny_llama(), tiny_tokenizer()), **options)


def logits(kit: Kit, *prompts: str, version: str | None = None) -> list[torch.Tensor]:
    """What a view gives for prompts, each alone: the logits of the next token."""
    found = []
    for prompt in prompts:
        view = kit._running.view(version)
        with torch.no_grad(), kit._running.engine.running(view):
            found.append(kit.model(torch.tensor([kit.encoder.prompt(prompt)])).logits[0, -1])
    return found


def same(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
