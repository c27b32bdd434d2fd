"""Training of experts: gradient steps on some edits, and measuring which edits hold."""

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
"""Logits beyond the margin that the loss aims for: the last ones would take many steps."""

_LOOKED_AT = 32
"""Wordings measured per forward pass."""


@dataclass(frozen=True, eq=False)
class Example:
    """One edit to learn or to keep.

    Attributes:
        edit_id: The edit.
        wordings: Its wordings with its target, the prompt's first.
        queries: ``(w, d)`` float32, the routers' inputs for them.
    """

    edit_id: str
    wordings: tuple[Encoded, ...]
    queries: torch.Tensor


ExpertWeights = list[torch.Tensor]
"""The down projections of all layers, then the up projections."""


@dataclass(frozen=True, eq=False)
class WordingRow:
    """One wording of an edit, with the edit's index."""

    edit_id: str
    wording: Encoded
    query: torch.Tensor
    index: int


def rows_of(examples: Sequence[Example]) -> list[WordingRow]:
    """Returns all wordings of examples, in order."""
    return [
        WordingRow(one.edit_id, wording, query, index)
        for index, one in enumerate(examples)
        for wording, query in zip(one.wordings, one.queries, strict=True)
    ]


class Trial:
    """Experts in training, and routers if they are trained jointly."""

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
        """Resets the optimizer."""
        learned = [*self._down, *self._up, *([self._routers] if self._is_joint else [])]
        self._learned = learned
        self._optimizer = torch.optim.Adam(learned, lr=self._config.learning_rate)

    def experts(self) -> ExpertWeights:
        """Returns a copy of the experts."""
        return [one.detach().clone() for one in (*self._down, *self._up)]

    def take(self, experts: ExpertWeights) -> None:
        """Restores experts from a copy."""
        with torch.no_grad():
            for mine, theirs in zip((*self._down, *self._up), experts, strict=True):
                mine.copy_(theirs)

    def round(self) -> None:
        """Rounds the experts to the nearest grid points, if the config has a resolution."""
        if self._config.resolution is None:
            return
        fine = 2.0**self._config.resolution
        with torch.no_grad():
            for tensor in (*self._down, *self._up):
                tensor.mul_(fine).round_().div_(fine)

    def state(self) -> ElderState:
        """Returns the current state."""
        return dataclasses.replace(
            self._known,
            lora_A=tuple(one.detach().clone() for one in self._down),
            lora_B=tuple(one.detach().clone() for one in self._up),
            routers=self._routers.detach().clone(),
        )

    def step(self, rows: Sequence[WordingRow], rate: float, share: float) -> list[float]:
        """Takes one step on some rows; returns their leads before the step.

        Args:
            rows: The rows.
            rate: Learning rate of the round.
            share: Fraction of the round's steps that are done.
        """
        config = self._config
        problem = self._problem(rows)
        with torch.enable_grad():
            # A likelihood needs all tokens; a lead needs only the few that compete.
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
        """Returns the leads of the rows' targets over the whole vocabulary."""
        found: list[float] = []
        with torch.no_grad():
            for start in range(0, len(rows), _LOOKED_AT):
                part = rows[start : start + _LOOKED_AT]
                problem = self._lay_out(part)
                logits, _ = self._logits(problem, part, in_full=True)
                _, _, leads = losses(logits, problem.batch.target, problem.batch.valid, 0.0)
                found += leads.tolist()
        return found

    def _problem(self, rows: Sequence[WordingRow]) -> TrainingBatch:
        asked = tuple(row.wording for row in rows)
        if asked not in self._problems:
            self._problems = {asked: self._lay_out(rows)}
        return self._problems[asked]

    def _lay_out(self, rows: Sequence[WordingRow]) -> TrainingBatch:
        return self._notebook.problem(self._notebook.of([row.wording for row in rows]))

    def _logits(
        self, problem: TrainingBatch, rows: Sequence[WordingRow], *, in_full: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the logits of the rows' targets, and their guided losses."""
        known = self._known
        chosen = self._allocations[[row.index for row in rows]]
        weights, guided = torch.full(chosen.shape, 1 / known.top_k), torch.zeros(len(rows))
        if self._is_joint or known.weighting == "scores":
            asked = torch.stack([row.query for row in rows])
            found = routing.scores(self._routers, routing.unit_rms(asked))
            guided = routing.guided_loss(found, chosen)
            if self._is_joint:  # the experts that an input uses after training
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
