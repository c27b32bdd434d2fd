"""Experts on their way: steps of gradient descent on some edits, and a look at what holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from editkit.engines.base import Encoded
from editkit.engines.transformers.lora import lora_output
from editkit.methods.elder import routing
from editkit.methods.elder.config import TrainConfig
from editkit.methods.elder.mixture import selected
from editkit.methods.elder.notes import Notebook, TrainingBatch
from editkit.methods.elder.state import ElderState
from editkit.methods.losses import losses

__all__ = ["Example", "ExpertWeights", "Trial", "WordingRow", "rows_of"]

_SPARE = 1.0
"""Logits beyond the margin to strive for: the last of them would come slowly."""

_LOOKED_AT = 32
"""Wordings looked at together."""


@dataclass(frozen=True, eq=False)
class Example:
    """One edit to learn or to keep.

    Attributes:
        edit_id: The edit.
        wordings: Its wordings with its target, the prompt's first.
        queries: ``(w, d)`` float32, what the routers see of them.
    """

    edit_id: str
    wordings: tuple[Encoded, ...]
    queries: torch.Tensor


ExpertWeights = list[torch.Tensor]
"""Down projections of all layers, and then the up projections."""


@dataclass(frozen=True, eq=False)
class WordingRow:
    """A wording of the edit with that index."""

    edit_id: str
    wording: Encoded
    query: torch.Tensor
    index: int


def rows_of(examples: Sequence[Example]) -> list[WordingRow]:
    """Returns all wordings of examples, in their order."""
    return [
        WordingRow(one.edit_id, wording, query, index)
        for index, one in enumerate(examples)
        for wording, query in zip(one.wordings, one.queries, strict=True)
    ]


class Trial:
    """Experts (and routers, where they learn with them) on their way."""

    def __init__(
        self,
        notebook: Notebook,
        modules: Sequence[nn.Module],
        state: ElderState,
        allocations: npt.NDArray[np.int64],
        config: TrainConfig,
    ) -> None:
        self._notebook = notebook
        self._modules = modules
        self._known = state
        self._allocations = torch.from_numpy(allocations)
        self._config = config
        self._down = [one.clone().requires_grad_(True) for one in state.lora_A]
        self._up = [one.clone().requires_grad_(True) for one in state.lora_B]
        self._is_joint = config.routers == "joint"
        self._routers = state.routers.clone().requires_grad_(self._is_joint)
        self._problems: dict[tuple[Encoded, ...], TrainingBatch] = {}
        self.loss = math.nan

    def begin(self) -> None:
        """Forgets what the optimizer gathered."""
        learned = [*self._down, *self._up, *([self._routers] if self._is_joint else [])]
        self._learned = learned
        self._optimizer = torch.optim.Adam(learned, lr=self._config.learning_rate)

    def experts(self) -> ExpertWeights:
        """Returns a copy of the experts as they are."""
        return [one.detach().clone() for one in (*self._down, *self._up)]

    def take(self, experts: ExpertWeights) -> None:
        """Makes experts what they were."""
        with torch.no_grad():
            for mine, theirs in zip((*self._down, *self._up), experts, strict=True):
                mine.copy_(theirs)

    def round(self) -> None:
        """Takes the experts to the nearest points of the grid, where the config asks for one."""
        if self._config.resolution is None:
            return
        fine = 2.0**self._config.resolution
        with torch.no_grad():
            for tensor in (*self._down, *self._up):
                tensor.mul_(fine).round_().div_(fine)

    def state(self) -> ElderState:
        """Returns what was learned so far."""
        return dataclasses.replace(
            self._known,
            lora_A=tuple(one.detach().clone() for one in self._down),
            lora_B=tuple(one.detach().clone() for one in self._up),
            routers=self._routers.detach().clone(),
        )

    def step(self, rows: Sequence[WordingRow], rate: float, share: float) -> list[float]:
        """Takes one step on some rows; returns the leads that they had before it.

        Args:
            rows: The rows.
            rate: Learning rate of the round.
            share: Of the round's steps that are over.
        """
        config = self._config
        problem = self._problem(rows)
        with torch.enable_grad():
            # A likelihood is one among all tokens; a lead is over the few that compete.
            in_full = config.margin is None
            logits, guided = self._logits(problem, rows, in_full=in_full)
            ahead = 0.0 if config.margin is None else config.margin + _SPARE
            target = problem.batch.target
            if problem.shortlist is not None and not in_full:
                target = problem.shortlist.index(target)
            loss, _, leads = losses(logits, target, problem.batch.valid, ahead)
            total = loss.mean()
            if self._is_joint:
                total = total + config.guide * guided.mean()
            grads = torch.autograd.grad(total, self._learned)
        self.loss = float(loss.detach().mean())
        if config.margin is not None and float(leads.min()) > config.margin:
            return leads.tolist()
        for tensor, grad in zip(self._learned, grads, strict=True):
            tensor.grad = grad
        self._optimizer.param_groups[0]["lr"] = rate * (1 - config.decay * share)
        self._optimizer.step()
        return leads.tolist()

    def leads(self, rows: Sequence[WordingRow]) -> list[float]:
        """Returns by how much the targets of rows lead, over the whole vocabulary."""
        found: list[float] = []
        with torch.no_grad():
            for start in range(0, len(rows), _LOOKED_AT):
                part = rows[start : start + _LOOKED_AT]
                problem = self._laid_out(part)
                logits, _ = self._logits(problem, part, in_full=True)
                _, _, leads = losses(logits, problem.batch.target, problem.batch.valid, 0.0)
                found += leads.tolist()
        return found

    def _problem(self, rows: Sequence[WordingRow]) -> TrainingBatch:
        asked = tuple(row.wording for row in rows)
        if asked not in self._problems:
            self._problems = {asked: self._laid_out(rows)}
        return self._problems[asked]

    def _laid_out(self, rows: Sequence[WordingRow]) -> TrainingBatch:
        return self._notebook.problem(self._notebook.of([row.wording for row in rows]))

    def _logits(
        self, problem: TrainingBatch, rows: Sequence[WordingRow], *, in_full: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the rows' targets, and their guided losses."""
        known = self._known
        chosen = self._allocations[[row.index for row in rows]]
        weights, guided = torch.full(chosen.shape, 1 / known.top_k), torch.zeros(len(rows))
        if self._is_joint or known.weighting == "scores":
            asked = torch.stack([row.query for row in rows])
            found = routing.scores(self._routers, routing.unit_rms(asked))
            guided = routing.guided_loss(found, chosen)
            if self._is_joint:  # what an input takes once all this is over
                chosen = routing.chosen(found.detach(), known.top_k)
            if known.weighting == "scores":
                weights = found.gather(2, chosen)
        weights = weights * known.scaling

        def change(layer: int, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            device = output.device
            down, up = selected(
                self._down[layer].to(device),
                self._up[layer].to(device),
                chosen[:, layer].to(device),
                weights[:, layer].to(device),
            )
            added = lora_output(inputs, down, up)
            if problem.on is not None:
                added = added * problem.on.to(device)
            return output + added.to(output.dtype)

        logits = self._notebook.logits(problem, self._modules, change, in_full=in_full)
        return logits, guided
