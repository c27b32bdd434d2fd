"""GRACE as the paper writes it, slowly: plain loops, full forward and backward passes, no cache.

Expected values in the tests come from here. Nothing of the product is imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch


def fold(
    edits: Sequence[tuple[Sequence[float], Any, float]],
) -> list[tuple[int, float]]:
    """Algorithm 1 over ``(key, target, radius)``: ``(index of the owner, radius)`` of every row."""
    rows: list[tuple[int, float]] = []
    for index, (key, target, initial) in enumerate(edits):
        if not rows:
            rows.append((index, initial))
            continue
        distances = [math.dist(key, edits[owner][0]) for owner, _ in rows]
        nearest = distances.index(min(distances))
        owner, radius = rows[nearest]
        distance = distances[nearest]
        if distance > initial + radius:
            rows.append((index, initial))
        elif edits[owner][1] == target:
            rows[nearest] = (owner, max(radius, distance))
        else:
            rows[nearest] = (owner, max(0.0, distance / 2 - 1e-5))
            rows.append((index, distance / 2))
    return rows


def select(rows: Sequence[tuple[Sequence[float], float]], query: Sequence[float]) -> int:
    """The nearest row whose ball contains the query, the newest of equals; -1 for none."""
    best, found = math.inf, -1
    for index, (key, radius) in enumerate(rows):
        distance = math.dist(key, query)
        if distance <= radius and distance <= best:
            best, found = distance, index
    return found


def learn(
    model: Any,
    module: torch.nn.Module,
    prompt: Sequence[int],
    target: Sequence[int],
    *,
    start: torch.Tensor,
    lr: float,
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Key, value after so many Adam steps, and the loss at that value."""
    ids = torch.tensor([[*prompt, *target[:-1]]])
    at = len(prompt) - 1
    value = start.clone().requires_grad_(True)
    seen: list[torch.Tensor] = []

    def hook(_: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        seen.append(args[0][0, at].detach().clone())
        return torch.cat([output[:, :at], value[None, None, :], output[:, at + 1 :]], dim=1)

    def loss() -> torch.Tensor:
        logits = model(input_ids=ids, use_cache=False).logits[0, at:].float()
        return torch.nn.functional.cross_entropy(logits, torch.tensor(list(target)))

    handle = module.register_forward_hook(hook)
    try:
        optimizer = torch.optim.Adam([value], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        with torch.no_grad():
            final = float(loss())
    finally:
        handle.remove()
    return seen[0], value.detach(), final


def greedy(
    model: Any,
    module: torch.nn.Module,
    prompt: Sequence[int],
    value: torch.Tensor | None,
    *,
    tokens: int,
) -> list[int]:
    """Greedy tokens, each from a full forward pass, with ``value`` at the last prompt token."""
    ids, at = list(prompt), len(prompt) - 1

    def hook(_: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        if value is None:
            return output
        changed = output.clone()
        changed[0, at] = value
        return changed

    handle = module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            for _ in range(tokens):
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
                ids.append(int(logits[0, -1].argmax()))
    finally:
        handle.remove()
    return ids[len(prompt) :]
