"""GRACE: one learned hidden state per edit, put in place where the edit's key is met.

Hartvigsen et al., "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors",
NeurIPS 2023, arXiv 2211.11031.

With h(x) the hidden state entering the site at the query position of x (the last prompt token), the
site's output there becomes (eq. 1 of the paper)

    v_i*   if ||h(x) - k_i*||_2 <= eps_i*, else f(h(x)),

and the value of a new edit (k = h(x), y) is learned by gradient descent on the model's loss for
y with everything else frozen: v = argmin_v -log p(y | x; f := v at the query position).

Differs from the paper:

- the scope is decided once a sequence, at prefill, never again at decoded tokens;
- i* is the nearest row whose ball *contains* h(x); the nearest row of all may have a smaller
  radius;
- learning is a separate call on plain tensors, stops as soon as every target token leads by a
  margin, and is seeded;
- the loss is over the target and the token that ends a generation, so an edit learns to stop.

Why it is fast: nothing below the site depends on the value, so those activations are computed once;
the prompt's keys and values are cached, so each step runs only the query token and the target
through the blocks from the site on; and values of different edits are independent, so a batch is
one problem.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from editkit import hooks
from editkit.config import GraceConfig
from editkit.methods.codebook import Codebook
from editkit.payload import GracePayload
from editkit.prompts import Encoded
from editkit.sites import Site

__all__ = ["EMPTY", "GraceView", "LearnedValue", "learn", "query"]


@dataclass(frozen=True)
class LearnedValue:
    """What one edit learned.

    Attributes:
        key: ``(d,)`` float32 on the CPU.
        value: ``(m,)`` float32 on the CPU.
        steps: Optimizer steps until it was first good enough.
        margin: Smallest lead of a target token over all others, in logits.
        loss: Mean negative log likelihood of a target token, nats.
    """

    key: torch.Tensor
    value: torch.Tensor
    steps: int
    margin: float
    loss: float


class GraceView:
    """The codebook of one view, on the device where the site is. Immutable.

    Args:
        version: Name of the version it belongs to.
        book: The folded codebook.
        payloads: Payload of every row's owner, by edit id.
        device: Where the site is.
    """

    def __init__(
        self,
        version: str,
        book: Codebook,
        payloads: dict[str, GracePayload],
        device: torch.device,
    ) -> None:
        self.version = version
        self.book = book
        self._ids = [row.entry.edit_id for row in book.rows]
        if book.rows:
            values = [torch.from_numpy(payloads[edit_id].value) for edit_id in self._ids]
            self._values = torch.stack(values).to(device)  # (n, m)
            self._keys = torch.from_numpy(book.keys).to(device)  # (n, d)
            self._radii = torch.tensor(
                [row.radius for row in book.rows], dtype=torch.float32, device=device
            )

    def __len__(self) -> int:
        return len(self._ids)

    def distances(self, queries: torch.Tensor) -> torch.Tensor:
        """Returns L2 distances in float32, ``(rows, n)``.

        Differences are taken before squaring: the expansion that is faster for many keys does not
        give zero for equal vectors.
        """
        wide = queries.to(device=self._keys.device, dtype=torch.float32)
        return torch.stack([torch.linalg.vector_norm(self._keys - row, dim=1) for row in wide])

    def select(self, queries: torch.Tensor) -> list[int]:
        """Returns for each query the nearest row whose ball contains it, -1 for none.

        Of rows at the same distance the newest wins.
        """
        with torch.no_grad():
            distances = self.distances(queries).flip(1)
            inside = distances <= self._radii.flip(0)
            nearest = distances.masked_fill(~inside, torch.inf).min(dim=1)
            chosen = len(self) - 1 - nearest.indices
            return [
                int(row) if hit else -1
                for row, hit in zip(chosen.tolist(), inside.any(dim=1).tolist(), strict=True)
            ]

    def values(self, chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns the values of rows, ``(rows, m)``, in the dtype of ``like``."""
        return self._values[list(chosen)].to(device=like.device, dtype=like.dtype)

    def edit_id(self, chosen: int) -> str:
        """Returns the id of the edit that owns a row."""
        return self._ids[chosen]

    def radius(self, row: int) -> float:
        """Returns the radius of a row, L2."""
        return self.book.rows[row].radius


_SHRINK_AT = 0.75
"""Share of open rows at which a batch is cut down to them."""

EMPTY = GraceView("v0", Codebook(), {}, torch.device("cpu"))


def query(model: Any, site: Site, prompt: Sequence[int]) -> torch.Tensor:
    """Returns the hidden state entering the site at the last prompt token, ``(d,)`` float32."""
    ids = torch.tensor([list(prompt)], device=model.device)
    with torch.no_grad(), hooks.capture(site.module) as found:
        model(input_ids=ids, **_supported(model, use_cache=False, logits_to_keep=1))
    return found[0][0][0, -1].float()


def learn(
    model: Any, site: Site, requests: Sequence[Encoded], config: GraceConfig
) -> list[LearnedValue]:
    """Returns key and value of each request; the model is left exactly as it was.

    Args:
        model: A decoder-only model. Its weights and their gradients are not touched.
        site: Where the values go.
        requests: Prompts and targets as tokens; they do not influence each other.
        config: Learning settings.
    """
    batch = _Batch(model, requests)
    was_training = model.training
    model.eval()
    try:
        return _optimize(batch, site, config)
    finally:
        model.train(was_training)


class _Batch:
    """Requests laid out so that every query is in the same column.

    Prefixes (prompts without their last token) are padded on the left and live in the KV cache;
    suffixes (query token and target without its last token) are padded on the right, so column 0
    of the suffix is the query in every row.
    """

    def __init__(self, model: Any, requests: Sequence[Encoded]) -> None:
        self.model = model
        prefixes = [list(request.prompt[:-1]) for request in requests]
        suffixes = [[request.prompt[-1], *request.target[:-1]] for request in requests]
        targets = [list(request.target) for request in requests]
        front, back = max(map(len, prefixes)), max(map(len, suffixes))
        device = model.device
        self.prefix = torch.tensor([[0] * (front - len(p)) + p for p in prefixes], device=device)
        prefix_mask = torch.tensor(
            [[0] * (front - len(p)) + [1] * len(p) for p in prefixes], device=device
        )
        self.suffix = torch.tensor([s + [0] * (back - len(s)) for s in suffixes], device=device)
        self.valid = torch.tensor(
            [[True] * len(s) + [False] * (back - len(s)) for s in suffixes], device=device
        )
        self.target = torch.tensor([t + [0] * (back - len(t)) for t in targets], device=device)
        self.mask = torch.cat([prefix_mask, self.valid.long()], dim=1)
        self.positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)  # (rows, front + back)
        self.front = front
        # Without padding, no mask: attention then takes its faster path, as in a plain prefill.
        self.is_padded = bool((self.mask == 0).any())
        self.cache: Any = None

    def __len__(self) -> int:
        return len(self.suffix)

    def select(self, rows: torch.Tensor) -> _Batch:
        """Returns the batch of some of the rows."""
        chosen = copy.copy(self)
        for name in ("prefix", "suffix", "valid", "target", "mask", "positions"):
            setattr(chosen, name, getattr(self, name)[rows])
        chosen.cache = _branched(self.cache)
        if chosen.cache is not None:
            chosen.cache.batch_select_indices(rows)
        return chosen

    def fill_cache(self) -> None:
        """Runs the prefixes once."""
        if self.front == 0:
            return
        output = self.model(
            input_ids=self.prefix,
            **_supported(
                self.model,
                attention_mask=self.mask[:, : self.front] if self.is_padded else None,
                position_ids=self.positions[:, : self.front] if self.is_padded else None,
                logits_to_keep=1,
                use_cache=True,
            ),
        )
        self.cache = output.past_key_values

    def logits(self) -> torch.Tensor:
        """Runs the suffixes on the cached prefixes; ``(rows, length, vocabulary)`` float32."""
        logits: torch.Tensor = self.model(
            input_ids=self.suffix,
            past_key_values=_branched(self.cache),
            **_supported(
                self.model,
                attention_mask=self.mask if self.is_padded else None,
                position_ids=self.positions[:, self.front :] if self.is_padded else None,
                use_cache=self.cache is not None,
            ),
        ).logits
        return logits.float()


def _optimize(batch: _Batch, site: Site, config: GraceConfig) -> list[LearnedValue]:
    below = site.blocks[site.block - 1] if site.block else None
    with torch.no_grad():
        batch.fill_cache()
        watched = [site.module] if below is None else [site.module, below]
        with hooks.capture(*watched) as found:
            batch.logits()
    inputs, outputs = found[0]
    keys, start = inputs[:, 0].float(), outputs[:, 0].float()
    if config.initial_value == "random":
        # One generator an edit: an edit's value does not depend on what it was batched with.
        start = torch.stack(
            [
                torch.rand(start.shape[1], generator=torch.Generator().manual_seed(config.seed))
                for _ in range(len(batch))
            ]
        ).to(start.device)
    # Adam's steps have the size of its learning rate whatever the gradient, so the unit of the
    # learning rate is the unit in which the value is moved.
    unit = torch.ones(len(batch), 1, device=start.device)
    if config.units == "activation":
        unit = outputs[:, 0].float().square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    moved = torch.zeros_like(start, requires_grad=True)  # (rows, m)
    best = start.clone()
    best_margin = torch.full((len(batch),), -torch.inf, device=start.device)
    best_loss = torch.full_like(best_margin, torch.inf)
    steps = torch.zeros(len(batch), dtype=torch.long, device=start.device)
    optimizer = torch.optim.Adam([moved], lr=config.learning_rate)
    rows = torch.arange(len(batch), device=start.device)  # those still in the batch
    resumed = found[-1][1]
    for step in range(config.max_steps + 1):
        with torch.enable_grad():
            value = start[rows] + unit[rows] * moved[rows]
            with (
                hooks.resume_above(site.blocks, 0 if below is None else site.block, resumed),
                hooks.substitute(site.module, 0, value),
            ):
                logits = batch.logits()
            losses, margins = _losses(logits, batch)
        with torch.no_grad():
            better = (margins > best_margin[rows]) & (best_margin[rows] <= config.margin)
            gained = rows[better]
            best[gained] = value.detach()[better]
            best_margin[gained], best_loss[gained] = margins[better], losses.detach()[better]
            steps[gained] = step
        open_rows = best_margin[rows] <= config.margin
        if step == config.max_steps or not bool(open_rows.any()):
            break
        # Gradients of the values alone: the model's parameters get none, whatever their flags.
        (moved.grad,) = torch.autograd.grad(losses.sum(), [moved])
        optimizer.step()
        # A batch takes as long as its slowest edit; rows that are done should not pay for it.
        if int(open_rows.sum()) <= _SHRINK_AT * len(rows):
            kept = open_rows.nonzero()[:, 0]
            rows, batch, resumed = rows[kept], batch.select(kept), _selected(resumed, kept)
    return [
        LearnedValue(
            key=keys[row].cpu(),
            value=best[row].cpu(),
            steps=int(steps[row]),
            margin=float(best_margin[row]),
            loss=float(best_loss[row]),
        )
        for row in range(len(keys))
    ]


def _losses(logits: torch.Tensor, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss and smallest lead of a target token, each ``(rows,)``."""
    losses = functional.cross_entropy(logits.transpose(1, 2), batch.target, reduction="none")
    loss = (losses * batch.valid).sum(dim=1) / batch.valid.sum(dim=1)
    with torch.no_grad():
        wanted = logits.gather(2, batch.target[..., None])
        others = logits.scatter(2, batch.target[..., None], -torch.inf).amax(dim=2)
        leads = (wanted[..., 0] - others).masked_fill(~batch.valid, torch.inf)
    return loss, leads.amin(dim=1)


def _selected(output: Any, rows: torch.Tensor) -> Any:
    """Returns some rows of what a block gave: a tensor, or a tuple that begins with one."""
    if isinstance(output, tuple):
        return (output[0][rows], *output[1:])
    return output[rows]


def _branched(cache: Any) -> Any:
    """Returns a cache that continues ``cache`` without changing it; the tensors are shared."""
    if cache is None:
        return None
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    return branch


def _supported(model: nn.Module, **arguments: Any) -> dict[str, Any]:
    """Returns those arguments that are set and that the model's forward takes."""
    taken = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in arguments.items() if value is not None and name in taken}
