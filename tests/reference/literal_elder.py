"""ELDER as the paper writes it, slowly: one sequence, one layer, one token, one expert at a time.

Expected values in the tests come from here. Nothing of the product is imported.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


def unit_rms(query: Sequence[float]) -> list[float]:
    """A query at unit root mean square."""
    size = math.sqrt(sum(x * x for x in query) / len(query))
    return [x / max(size, 1e-6) for x in query]


def scores(routers: torch.Tensor, query: torch.Tensor) -> list[list[float]]:
    """softmax(W_l q) for every layer l, q at unit root mean square."""
    asked = unit_rms(query.tolist())
    found = []
    for layer in routers.tolist():
        logits = [sum(w * x for w, x in zip(row, asked, strict=True)) for row in layer]
        parts = [math.exp(logit - max(logits)) for logit in logits]
        found.append([part / sum(parts) for part in parts])
    return found


def top(found: Sequence[float], k: int) -> list[int]:
    """The k best experts of a layer, ascending; of equal ones the lower index."""
    left, best = list(range(len(found))), []
    for _ in range(k):
        winner = left[0]
        for expert in left:
            if found[expert] > found[winner]:
                winner = expert
        left.remove(winner)
        best.append(winner)
    return sorted(best)


def code(allocation: Sequence[Sequence[int]], experts: int) -> list[int]:
    """An allocation as L N bits."""
    return [int(expert in layer) for layer in allocation for expert in range(experts)]


def hamming(one: Sequence[int], other: Sequence[int]) -> int:
    """In how many bits two codes differ."""
    return sum(a != b for a, b in zip(one, other, strict=True))


def defer(asked: Sequence[int], stored: Sequence[Sequence[int]], threshold: int) -> int:
    """Algorithm 1: the nearest edit (the newest of equals) if below the threshold, -1 otherwise."""
    nearest, found = math.inf, -1
    for index, bits in enumerate(stored):
        distance = hamming(asked, bits)
        if distance <= nearest:
            nearest, found = distance, index
    return found if nearest < threshold else -1


def guided_loss(found: Sequence[Sequence[float]], allocation: Sequence[Sequence[int]]) -> float:
    """- sum log s_{l, j} over an allocation."""
    return -sum(
        math.log(found[layer][expert])
        for layer, experts in enumerate(allocation)
        for expert in experts
    )


def added(
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    experts: Sequence[int],
    weights: Sequence[float],
    token: torch.Tensor,
) -> torch.Tensor:
    """Sum of s_i (alpha / r) B_i A_i v over the chosen experts; weights hold both factors."""
    found = torch.zeros(lora_b.shape[1])
    for expert, weight in zip(experts, weights, strict=True):
        found = found + weight * (lora_b[expert] @ (lora_a[expert] @ token.float()))
    return found


@dataclass
class Elder:
    """All that ELDER is, of an untouched model; the choices are the paper's."""

    model: Any
    entry: torch.nn.Module  # the first block with an adapted layer
    layers: list[torch.nn.Module]
    lora_a: list[torch.Tensor]  # (N, r, in) each
    lora_b: list[torch.Tensor]  # (N, out, r) each
    routers: torch.Tensor  # (L, N, d)
    codes: list[list[int]]
    k: int
    scaling: float
    threshold: int
    weighting: str = "scores"
    experts: str = "own"
    span: str = "sequence"

    def query(self, ids: Sequence[int]) -> torch.Tensor:
        """What enters the first adapted block at the last token, of the model as it came."""
        seen: list[torch.Tensor] = []
        handle = self.entry.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            with torch.no_grad():
                self.model(torch.tensor([list(ids)]), use_cache=False)
        finally:
            handle.remove()
        return seen[0][0, -1].float()

    def decide(
        self, query: torch.Tensor, *, is_training: bool = False
    ) -> tuple[int, list[list[int]], list[list[float]]]:
        """The edit (-1: deferred), and the experts with their weights in each layer."""
        found = scores(self.routers, query)
        own = [top(layer, self.k) for layer in found]
        count = self.routers.shape[1]
        edit = 0 if is_training else defer(code(own, count), self.codes, self.threshold)
        taken = own
        if self.experts == "nearest" and edit >= 0 and not is_training:
            bits = self.codes[edit]
            taken = [
                [expert for expert in range(count) if bits[layer * count + expert]]
                for layer in range(len(self.layers))
            ]
        weights = [
            [
                self.scaling * (layer[expert] if self.weighting == "scores" else 1 / self.k)
                for expert in chosen
            ]
            for layer, chosen in zip(found, taken, strict=True)
        ]
        return edit, taken, weights

    @contextlib.contextmanager
    def mixing(
        self, taken: Sequence[Sequence[int]], weights: Sequence[Sequence[float]], start: int
    ) -> Iterator[None]:
        """Replaces the layers' forward by y = W_0 v + b + the mixture, from a position on."""

        def replace(layer: int, module: torch.nn.Module) -> None:
            original = module.forward

            def forward(inputs: torch.Tensor) -> torch.Tensor:
                plain = original(inputs)
                rows = []
                for at in range(inputs.shape[1]):
                    row = plain[0, at]
                    if at >= start:
                        row = row + added(
                            self.lora_a[layer],
                            self.lora_b[layer],
                            taken[layer],
                            weights[layer],
                            inputs[0, at],
                        ).to(row.dtype)
                    rows.append(row)
                return torch.stack(rows)[None]

            module.forward = forward

        for index, module in enumerate(self.layers):
            replace(index, module)
        try:
            yield
        finally:
            for module in self.layers:
                del module.forward

    def logits(
        self,
        ids: Sequence[int],
        *,
        prompt: int | None = None,
        query: torch.Tensor | None = None,
        is_training: bool = False,
    ) -> torch.Tensor:
        """Logits ``(length, vocabulary)`` of a sequence, of which so many tokens are the prompt."""
        length = prompt or len(ids)
        query = self.query(ids[:length]) if query is None else query
        edit, taken, weights = self.decide(query, is_training=is_training)
        with contextlib.ExitStack() as stack:
            if edit >= 0:
                start = 0 if self.span == "sequence" else length - 1
                stack.enter_context(self.mixing(taken, weights, start))
            with torch.no_grad():
                return self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]

    def greedy(
        self, prompt: Sequence[int], *, tokens: int, query: torch.Tensor | None = None
    ) -> list[int]:
        """Greedy tokens, each from a full forward pass; what the prompt decided stays."""
        ids = list(prompt)
        for _ in range(tokens):
            ids.append(int(self.logits(ids, prompt=len(prompt), query=query)[-1].argmax()))
        return ids[len(prompt) :]
