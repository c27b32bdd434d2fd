"""GRACE: one learned hidden state per edit, which replaces the site's output near its key.

Hartvigsen et al., "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors",
NeurIPS 2023, arXiv 2211.11031.

With h(x) the site's input at the query position of x (the last prompt token), the site's output
there becomes (eq. 1 of the paper)

    v_i*   if ||h(x) - k_i*||_2 <= eps_i*, else f(h(x)),

and the value of a new edit (k = h(x), y) is learned by gradient descent on the model's loss for
y with everything else frozen: v = argmin_v -log p(y | x; f := v at the query position). Here a
value is learned for x and for a few other contexts at once, so that it gives y wherever the scope
lets it fire: under another template, in small letters, after something else was said.

Differs from the paper:

- the scope is decided once per sequence, at prefill, and not again at decoded tokens;
- i* is the nearest row whose ball *contains* h(x); the nearest row overall may have a smaller
  radius;
- learning is a separate call on plain tensors, stops as soon as every target token leads by a
  margin, and is seeded;
- the loss is over the target and the end token, so an edit learns to stop.

It is fast because nothing below the site depends on the value, so those activations are computed
once; the prompt's keys and values are cached, so each step runs only the query token and the target
through the blocks from the site on; and values of different edits are independent, so a batch is
one problem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from editkit.config import Position
from editkit.engines.base import Encoded
from editkit.engines.transformers import training
from editkit.engines.transformers.batches import Batch, lay_out, supported
from editkit.engines.transformers.site import Site
from editkit.methods.grace.config import GraceConfig
from editkit.methods.losses import losses, margins
from editkit.methods.shortlist import LARGE, Shortlist, output_layer

__all__ = ["LearnedValue", "learn", "optimize", "query"]


@dataclass(frozen=True)
class LearnedValue:
    """The key and value learned for one edit.

    Attributes:
        key: ``(d,)`` float32 on the CPU.
        value: ``(m,)`` float32 on the CPU.
        steps: Optimizer steps until it was first good enough.
        margin: Smallest lead of a target token over all others, in logits.
        loss: Mean negative log-likelihood of a target token, nats.
        leads: The smallest lead in each context, the edit's own prompt first.
    """

    key: torch.Tensor
    value: torch.Tensor
    steps: int
    margin: float
    loss: float
    leads: tuple[float, ...] = ()

    @property
    def carries(self) -> dict[str, int]:
        """In how many contexts, and of how many, the value gives its target."""
        return {"right": sum(lead > 0 for lead in self.leads), "of": len(self.leads)}


_SHRINK_AT = 0.75
"""Fraction of open rows at which a batch is reduced to them."""

_SMALLER = 0.5
"""Factor on the step size after a restart."""

_ELSEWHERE = 2.0
"""Lead that is wanted in contexts other than the edit's prompt, logits."""

_SPARE = 1.0
"""Logits beyond the margin that the loss aims for: the last ones would take many steps."""

_MORE_STEPS = 4
"""Steps for other contexts, beside half of those that the edit's own prompt took."""

_STEPS_A_TOKEN = 2
"""Steps per target token before a value may be restarted."""

_RESIDUAL_SHARE = 0.3
"""Minimum step unit of a value, as a fraction of the residual stream's RMS.

Usually the site's own output is larger. But in many decoders the first token is an attention sink:
its residual stream is a thousand times the site's output, and steps of that size would be lost.
"""


def query(
    model: Any, site: Site, prompt: Sequence[int], *, position: Position | None = None
) -> torch.Tensor:
    """Returns the site's input at a prompt's query position, ``(d,)`` float32.

    Args:
        model: The model.
        site: The edit site.
        prompt: Token ids.
        position: Token of the prompt that is the query; by default the model family's.
    """
    ids = torch.tensor([list(prompt)], device=model.device)
    host = site.layout.host
    with torch.no_grad(), training.capture(site.module) as found:
        host(input_ids=ids, **supported(host, use_cache=False, logits_to_keep=1))
    at = -1 if (position or site.layout.position) == "last" else 0
    state: torch.Tensor = found[0][0][0, at]
    return state.float()


def learn(
    model: Any, site: Site, requests: Sequence[Encoded], config: GraceConfig
) -> list[LearnedValue]:
    """Learns key and value of each request; the model is not changed.

    Args:
        model: The model. Its weights and their gradients are not touched.
        site: The edit site.
        requests: Prompts and targets as tokens; they are learned independently.
        config: Learning settings.
    """
    batch = lay_out(
        model, site.layout, requests, replacement=config.replacement, position=config.position
    )
    return optimize(batch, site, config)


def optimize(
    batch: Batch,
    site: Site,
    config: GraceConfig,
    *,
    owners: Sequence[int] | None = None,
    keys: torch.Tensor | None = None,
    met: Callable[[torch.Tensor], None] | None = None,
) -> list[LearnedValue]:
    """Learns key and value of each edit of a batch; see ``learn``.

    Args:
        batch: The requests as a batch: the prompts of all edits, then other contexts of them.
        site: The edit site.
        config: Learning settings.
        owners: For each row the edit whose value it shares; by default each is an edit.
        keys: ``(edits, d)`` float32; by default the site's inputs at the queries (eq. 1).
        met: Called with the keys, ``(edits, d)`` float32, before anything is learned; an exception
            stops the learning.
    """
    mine = torch.tensor([*range(len(batch))] if owners is None else list(owners))
    was_training = batch.model.training
    batch.model.eval()
    try:
        found = _Optimization(batch, site, config, mine).run(keys, met)
        lost = [row for row, learned in enumerate(found) if learned.margin <= 0]
        if lost and config.max_steps > max(config.restarts, default=config.max_steps):
            # About one in five hundred zsRE edits fails here, and which one depends on rounding in
            # its batch, so failed ones get a second attempt.
            rows = torch.isin(mine, torch.tensor(lost)).nonzero()[:, 0]
            smaller = config.model_copy(update={"learning_rate": config.learning_rate * _SMALLER})
            chosen = None if keys is None else keys[torch.tensor(lost)]
            theirs = torch.searchsorted(torch.tensor(lost), mine[rows])
            again = _Optimization(batch.select(rows), site, smaller, theirs).run(chosen, None)
            for row, learned in zip(lost, again, strict=True):
                if learned.margin > 0:
                    steps = config.max_steps + learned.steps
                    found[row] = dataclasses.replace(learned, steps=steps)
        return found
    finally:
        batch.model.train(was_training)


class _Optimization:
    """Gradient descent on the values of a batch; ``owners`` are the edits that rows belong to."""

    def __init__(self, batch: Batch, site: Site, config: GraceConfig, owners: torch.Tensor) -> None:
        self._batch, self._site, self._config = batch, site, config
        self._owners = owners.to(batch.valid.device)  # (rows,)
        self._edits = int(owners.max()) + 1
        self._lengths = batch.valid.sum(dim=1)  # tokens of the rows' targets, (rows,)
        self._wanted = margins(self._lengths, config.margin)  # (rows,)
        # The edit's own prompt needs the lead that its rephrasings eat up; other contexts are such.
        is_other = torch.arange(len(batch), device=self._wanted.device) >= self._edits
        self._wanted = torch.where(is_other, self._wanted.clamp(max=_ELSEWHERE), self._wanted)
        self._resumed: Any = None
        self._stream = torch.zeros(1, 1)  # RMS of the residual stream at the queries, (rows, 1)
        self._shortlist: Shortlist | None = None
        # Of the last pass with a shortlist: the head's input, and whether the model returned the
        # head's output unchanged.
        self._hidden = torch.zeros(0)
        self._is_bare = True

    def run(
        self, keys: torch.Tensor | None, met: Callable[[torch.Tensor], None] | None
    ) -> list[LearnedValue]:
        config = self._config
        states, outputs = (one[: self._edits] for one in self._begin())
        keys = states if keys is None else keys
        if met is not None:
            met(keys)
        count, device = len(keys), outputs.device
        start = outputs
        if config.initial_value == "random":
            # One generator per edit: a value does not depend on the batch it is in.
            seeded = [torch.Generator().manual_seed(config.seed) for _ in range(count)]
            start = torch.stack([torch.rand(outputs.shape[1], generator=g) for g in seeded])
            start = start.to(device)
        # Adam's steps have the size of its learning rate regardless of the gradient, so the unit
        # scales the steps of the value.
        unit = torch.ones(count, 1, device=device)
        if config.units == "activation":
            stream = self._stream[: len(outputs)] if len(self._stream) > 1 else self._stream
            unit = torch.maximum(_rms(outputs), _RESIDUAL_SHARE * stream).clamp(min=1e-6)
        moved = torch.zeros_like(start, requires_grad=True)  # (rows, m)
        best = start.clone()
        best_margin = torch.full((count,), -torch.inf, device=device)
        # What a value has beyond the lead that is wanted: at the prompt, and in the worst context.
        best_spare, best_elsewhere = best_margin.clone(), best_margin.clone()
        met_at = torch.full_like(best_margin, config.max_steps + 1, dtype=torch.long)
        best_loss = torch.full_like(best_margin, torch.inf)
        steps = torch.zeros(count, dtype=torch.long, device=device)
        optimizer = torch.optim.Adam([moved], lr=config.learning_rate, betas=config.betas)
        owners = self._owners.to(device)
        best_leads = torch.full((len(owners),), -torch.inf, device=device)
        rows = torch.arange(len(owners), device=device)  # those still in the batch
        lengths = torch.zeros(count, dtype=self._lengths.dtype, device=device)
        lengths.scatter_reduce_(0, owners, self._lengths.to(device), "amax")
        for step in range(config.max_steps + 1):
            theirs = owners[rows]
            with torch.enable_grad():
                value = start[theirs] + unit[theirs] * moved[theirs]
                losses, surprise, margins = self._losses(value)
            with torch.no_grad():
                margins = self._checked_margins(margins)
                own = rows < count
                mine = theirs[own]
                beyond = margins - self._wanted
                spare = torch.full_like(best_spare, -torch.inf)
                spare[mine] = beyond[own].to(spare)
                elsewhere = _worst(beyond[~own], theirs[~own], count)
                # The own prompt comes first; a value that is enough there is only given up for one
                # that is enough there too and better elsewhere.
                better = (spare > best_spare) & (best_spare <= 0)
                better |= (spare > 0) & (elsewhere > best_elsewhere) & (best_elsewhere <= 0)
                best[better] = (start + unit * moved).detach()[better]
                best_spare[better], best_elsewhere[better] = spare[better], elsewhere[better]
                gained = better[mine]
                best_margin[mine[gained]] = margins[own][gained].to(best_margin)
                best_loss[mine[gained]] = surprise[own][gained].to(best_loss)
                steps[better] = step
                met_at[(best_spare > 0) & (met_at > step)] = step
                taken = better[theirs]
                best_leads[rows[taken]] = margins[taken].to(best_leads)
                # Other contexts are worth some more steps, and no more than that.
                late = step >= met_at + met_at // 2 + _MORE_STEPS
                is_open = (best_spare <= 0) | ((best_elsewhere <= 0) & ~late)
            open_rows = is_open[theirs]
            if step == config.max_steps or not bool(open_rows.any()):
                break
            if step in config.restarts:
                # Equal steps in every dimension can end where no further step helps. A long target
                # gets more steps before it is restarted.
                lost = ((best_margin <= 0) & (lengths * _STEPS_A_TOKEN <= step)).nonzero()[:, 0]
                _restart(optimizer, moved, lost)
                unit[lost] *= _SMALLER
                best_margin[lost] = best_spare[lost] = best_elsewhere[lost] = -torch.inf
                if len(lost):
                    continue
            # Gradients of the values only: the model's parameters get none, whatever their flags.
            # Other contexts count once the own prompt is well: they could keep it from that.
            counted = losses * (own | (best_spare > 0)[theirs]).to(losses)
            (moved.grad,) = torch.autograd.grad(counted.sum(), [moved])
            left = 1 - config.decay * step / config.max_steps
            optimizer.param_groups[0]["lr"] = config.learning_rate * left
            optimizer.step()
            # Finished edits leave the batch, so that only the slow ones keep costing time.
            if int(open_rows.sum()) <= _SHRINK_AT * len(rows):
                kept = open_rows.nonzero()[:, 0]
                self._batch = self._batch.select(kept)
                length = self._batch.replaced.shape[1]
                self._resumed = _selected(self._resumed, kept, len(rows), length)
                rows, self._lengths = rows[kept], self._lengths[kept]
                self._wanted = self._wanted[kept]
        return [
            LearnedValue(
                key=keys[row].cpu(),
                value=best[row].cpu(),
                steps=int(steps[row]),
                margin=float(best_margin[row]),
                loss=float(best_loss[row]),
                leads=tuple(best_leads[owners == row].tolist()),
            )
            for row in range(count)
        ]

    def _begin(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the unedited model once; returns the site's input and output at the queries."""
        batch, site = self._batch, self._site
        captured = [site.module]
        if site.block:
            captured.append(site.blocks[site.block - 1])
        with torch.no_grad():
            logits, found = batch.begin(*captured)
        inputs, outputs = found[0]
        at = (torch.arange(len(batch)), batch.columns.cpu())
        if site.block:
            self._resumed = found[1][1]
            stream = self._resumed[0] if isinstance(self._resumed, tuple) else self._resumed
            self._stream = _rms(stream[at].float()).to(outputs.device)
        head = output_layer(batch.model)
        if self._config.shortlist and head is not None and head.out_features > LARGE:
            self._shortlist = Shortlist(head, self._config.shortlist)
            self._shortlist.fill(logits, batch.target)
        return inputs[at].float(), outputs[at].float()

    def _logits(self, value: torch.Tensor) -> torch.Tensor:
        block = self._site.block if self._resumed is not None else 0
        with (
            training.resume_above(self._site.blocks, block, self._resumed),
            training.substitute(self._site.module, self._batch.replaced, value),
        ):
            return self._batch.logits()

    def _losses(self, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns ``losses`` with ``value`` applied."""
        has_margin = self._config.objective == "margin"
        ahead = (self._wanted + _SPARE)[:, None] if has_margin else 0.0
        if self._shortlist is None:
            return losses(self._logits(value), self._batch.target, self._batch.valid, ahead)
        with self._shortlist.narrowed() as passed:
            logits = self._logits(value)
        self._hidden, raw = passed[-1]
        self._is_bare = torch.equal(raw[:, -logits.shape[1] :].float(), logits.detach())
        target = self._shortlist.index(self._batch.target)
        return losses(logits, target, self._batch.valid, ahead)

    def _checked_margins(self, margins: torch.Tensor) -> torch.Tensor:
        """Returns the margins, checked against the whole vocabulary where they are large enough."""
        passing = margins > self._wanted
        if self._shortlist is None or not bool(passing.any()):
            return margins
        rows = passing.nonzero()[:, 0]
        target, valid, hidden = self._batch.target, self._batch.valid, self._hidden
        hidden = hidden[:, -target.shape[1] :][rows.to(hidden.device)]
        there = rows.to(target.device)
        leads, is_known = self._shortlist.leads(hidden, target[there], valid[there])
        if not self._is_bare:
            # Post-processing of the logits after the head (softcapping, scaling) keeps their order
            # but not their differences. If a rival was not on the list, the value must pass again.
            least = self._wanted[rows].to(leads)
            leads = torch.where(is_known, margins[rows].to(leads), least)
        margins = margins.clone()
        margins[rows] = leads.to(margins)
        return margins


def _restart(optimizer: torch.optim.Adam, moved: torch.Tensor, rows: torch.Tensor) -> None:
    """Resets values to their start, and the optimizer's state for them."""
    with torch.no_grad():
        moved[rows] = 0
        for kept in optimizer.state[moved].values():
            if kept.shape == moved.shape:
                kept[rows] = 0


def _worst(values: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Returns the smallest value of each edit's rows, ``(count,)``; infinity for one without."""
    found = torch.full((count,), torch.inf, dtype=values.dtype, device=values.device)
    return found.scatter_reduce_(0, owners.to(values.device), values, "amin")


def _rms(states: torch.Tensor) -> torch.Tensor:
    """Returns the root mean square of each row of ``(rows, n)``, ``(rows, 1)``."""
    return states.square().mean(dim=1, keepdim=True).sqrt()


def _selected(output: Any, rows: torch.Tensor, count: int, length: int) -> Any:
    """Returns some rows and the first columns of a block's output.

    Args:
        output: ``(count, columns, h)``, or a tuple that starts with it.
        rows: Rows to keep.
        count: Number of rows of the output.
        length: Columns to keep.
    """
    if isinstance(output, tuple):
        first, *others = output
        rest = [
            part[rows.to(part.device)]
            if isinstance(part, torch.Tensor) and part.dim() > 1 and len(part) == count
            else part
            for part in others
        ]
        return (_selected(first, rows, count, length), *rest)
    return output[rows.to(output.device), :length]
