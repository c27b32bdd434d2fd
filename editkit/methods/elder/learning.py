"""ELDER's training of a batch of edits on top of those learned before.

The paper's procedure (``TrainConfig.of("paper")``) is gradient descent on

    L = L_model + lambda L_guide

over the batch alone, for a fixed number of steps. Nothing protects earlier edits, so they are
forgotten. The defaults differ from the paper as follows, each by a field of ``TrainConfig``:

- the routers are fitted to the queries of all edits, including earlier ones and unrelated text,
  before the experts are trained: queries do not depend on the experts, so this needs no model;
- earlier edits are rehearsed with the batch, those with the smallest leads first; afterwards all of
  them are checked, and lost ones are learned again;
- the loss is how much the target's tokens fall short of a margin (``methods.losses``), so that an
  edit that is already learned has no gradient, and training ends when all are learned;
- allocations are drawn far apart, and an input in scope uses its edit's experts with equal weights,
  so that an edit's effect does not change when the routers are trained further;
- the threshold is lowered to where held-out text is no nearer;
- experts are rounded to a grid after each round, before the edits are checked;
- the mixture applies from the query on (``methods.elder.notes`` explains what that saves).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from editkit.engines.base import Encoded
from editkit.methods.elder import routers, routing
from editkit.methods.elder.config import TrainConfig
from editkit.methods.elder.notes import Notebook
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.trial import Example, ExpertWeights, Trial, WordingRow, rows_of

__all__ = ["Course", "Example", "LearnedState", "initial"]

_REPAIRS = 16
"""Maximum steps of a round that relearns lost edits."""

_GENTLER = 0.5
"""Factor on the learning rate in such a round."""

_PATIENCE = 2
"""Consecutive rounds without improvement before giving up."""

_HELD = 0.5
"""Lead in logits at which a target counts as held."""

_AGAIN = 8
"""Steps after which the wordings to rehearse are chosen again."""

_FALSE = 0.01
"""Fraction of held-out text that may be nearer than the threshold."""


@dataclass(frozen=True)
class LearnedState:
    """The result of learning a batch.

    Attributes:
        state: The new state.
        leads: By edit, the smallest lead of a target token over all others and over its wordings,
            in logits; for earlier edits only if they were checked.
        steps: Optimizer steps.
        loss: Loss at the last step.
        separation: Hamming distances in bits, None if not measured: the largest from a wording to
            the code of its own edit, and the one to any code within which 1% of held-out text lies
            (and in reach). A threshold separates edits from other text if it fits between them.
    """

    state: ElderState
    leads: dict[str, float]
    steps: int
    loss: float
    separation: tuple[int, int] | None = None


def initial(
    modules: Sequence[tuple[int, int]],
    *,
    width: int,
    num_experts: int,
    rank: int,
    seed: int,
    like: ElderState,
) -> ElderState:
    """Returns an empty state.

    Args:
        modules: Input and output width of each adapted layer.
        width: Length of a query.
        num_experts: N.
        rank: r.
        seed: Seed of the experts' down projections.
        like: A state to take all other fields from.
    """
    noise = torch.Generator().manual_seed(seed)
    down, up = [], []
    for inputs, outputs in modules:
        drawn = torch.rand(num_experts, rank, inputs, generator=noise)
        down.append((2 * drawn - 1) / math.sqrt(inputs))
        up.append(torch.zeros(num_experts, outputs, rank))
    return dataclasses.replace(
        like,
        lora_A=tuple(down),
        lora_B=tuple(up),
        routers=torch.zeros(len(modules), num_experts, width),
        codes=np.zeros((0, -(-len(modules) * num_experts // 8)), np.uint8),
        edit_ids=(),
        queries=np.zeros((0, width), np.float32),
        owners=np.zeros(0, np.int64),
    )


@dataclass
class Course:
    """Learns batch after batch on one model.

    Attributes:
        notebook: Cached activations of the model.
        modules: The adapted layers.
        config: Training settings.
        probes: Returns queries of unrelated text, ``(n, d)`` float32.
        held_out: Likewise for held-out text, which the routers are not fitted to.
        limit: The largest threshold, bits.
        leads: Known leads of the edits' wordings, for choosing what to rehearse.
    """

    notebook: Notebook
    modules: Sequence[nn.Module]
    config: TrainConfig
    probes: Callable[[], torch.Tensor]
    held_out: Callable[[], torch.Tensor]
    limit: int
    leads: dict[tuple[str, Encoded], float] = field(default_factory=dict)
    _seen: tuple[torch.Tensor, ...] | None = None  # the experts that the leads belong to

    def learn(
        self,
        state: ElderState,
        new: Sequence[Example],
        old: Sequence[Example],
        *,
        unrelated: torch.Tensor | None = None,
        told: Callable[[int], None] | None = None,
    ) -> LearnedState:
        """Learns a batch on top of a state, which is not changed.

        Args:
            state: The learned state.
            new: The batch.
            old: The state's edits, in its order.
            unrelated: ``(n, d)`` float32, more queries of prompts whose answers should not change.
            told: Called after each step with the number of steps so far.
        """
        self._begin(state)
        taken = {code.tobytes() for code in state.codes}
        nobody = routers.nobody(state.layers, state.top_k)
        taken.add(routing.packed(nobody, state.num_experts)[0].tobytes())
        drawn = routing.allocate(
            len(new),
            layers=state.layers,
            experts=state.num_experts,
            k=state.top_k,
            taken=taken,
            seed=self.config.seed + len(state.codes),
        )
        known = routing.allocations_of(state.codes, state.layers, state.num_experts)
        allocations = np.concatenate([known.reshape(-1, *drawn.shape[1:]), drawn])
        examples = [*old, *new]
        queries = torch.cat([one.queries for one in examples]).float()
        owners = np.repeat(np.arange(len(examples)), [len(one.queries) for one in examples])
        state = dataclasses.replace(
            state,
            codes=routing.packed(allocations, state.num_experts),
            edit_ids=tuple(one.edit_id for one in examples),
            queries=queries.numpy(),
            owners=owners,
        )
        if self.config.routers == "fitted":
            state = self._fit_routers(state, allocations, unrelated)
        rows = rows_of(examples)
        trial = Trial(self.notebook, self.modules, state, allocations, self.config)
        steps = self._rounds(trial, rows, len(old), told)
        state = trial.state()
        if self.config.recode and state.experts == "own":
            _, _, codes = state.encoded(torch.stack([one.queries[0] for one in examples]))
            state = dataclasses.replace(state, codes=codes)
        separation = None
        if self.config.calibrate:
            state, separation = self._calibrate(state)
        self._seen = state.lora_A
        return LearnedState(state, self._edit_leads(rows), steps, trial.loss, separation)

    def look(self, state: ElderState, examples: Sequence[Example]) -> dict[str, float]:
        """Measures the leads of edits, as in ``LearnedState``, without learning.

        Args:
            state: The learned state.
            examples: The state's edits, in its order.
        """
        self._begin(state)
        self._seen = state.lora_A
        allocations = routing.allocations_of(state.codes, state.layers, state.num_experts)
        trial = Trial(self.notebook, self.modules, state, allocations, self.config)
        rows = rows_of(examples)
        self._record_leads(rows, trial.leads(rows))
        return self._edit_leads(rows)

    def _begin(self, state: ElderState) -> None:
        """Discards leads that were measured with experts other than a state's."""
        if self._seen is not state.lora_A:
            self.leads.clear()

    def _record_leads(self, rows: Sequence[WordingRow], leads: Sequence[float]) -> None:
        for row, lead in zip(rows, leads, strict=True):
            self.leads[row.edit_id, row.wording] = lead

    def _edit_leads(self, rows: Sequence[WordingRow]) -> dict[str, float]:
        """Returns the smallest known lead of each edit."""
        found: dict[str, float] = {}
        for row in rows:
            lead = self.leads.get((row.edit_id, row.wording))
            if lead is not None:
                found[row.edit_id] = min(found.get(row.edit_id, math.inf), lead)
        return found

    def _calibrate(self, state: ElderState) -> tuple[ElderState, tuple[int, int]]:
        """Calibrates the threshold on held-out text; see ``LearnedState.separation``."""
        assert state.queries is not None
        text = self.held_out()
        with torch.no_grad():
            _, _, mine = state.encoded(torch.from_numpy(state.queries))
            _, _, theirs = state.encoded(text)
        own = routing.distances(mine, state.codes)[np.arange(len(mine)), state.owners]
        other = routing.distances(theirs, state.codes).min(axis=1, initial=self.limit)
        if state.radius is not None:  # text out of reach is deferred regardless of its code
            apart = ElderPart(state).between(text.numpy()).min(axis=1, initial=math.inf)
            other[apart > state.radius] = self.limit
        near = int(np.quantile(other, _FALSE, method="lower"))
        # Covering all wordings of the edits takes priority over excluding similar text.
        threshold = min(self.limit, max(near, int(own.max(initial=0)) + 1))
        return dataclasses.replace(state, threshold=threshold), (int(own.max(initial=0)), near)

    def _fit_routers(
        self,
        state: ElderState,
        allocations: npt.NDArray[np.int64],
        more: torch.Tensor | None,
    ) -> ElderState:
        assert state.queries is not None
        assert state.owners is not None
        unrelated = None
        if self.config.probes:
            parts = [self.probes(), *([] if more is None else [more])]
            unrelated = routing.unit_rms(torch.cat(parts))
        found = routers.fit(
            routing.unit_rms(torch.from_numpy(state.queries)),
            torch.from_numpy(allocations[state.owners]),
            experts=state.num_experts,
            unrelated=unrelated,
            steps=self.config.fitting_steps,
        )
        # Rounded to half precision to save space: every batch fits them anew.
        return dataclasses.replace(state, routers=found.half().float())

    def _rounds(
        self,
        trial: Trial,
        rows: Sequence[WordingRow],
        known: int,
        told: Callable[[int], None] | None,
    ) -> int:
        """Learns the new rows, then those that were lost, until all hold; returns the steps.

        Stops when rounds no longer help, and keeps the experts of the round that lost least. An
        earlier edit that did not hold before is rehearsed, but training does not wait for it.
        """
        config = self.config
        batch = [row for row in rows if row.index >= known]
        earlier = [row for row in rows if row.index < known]
        stuck = {row for row in earlier if -math.inf < self._lead(row) < _HELD}
        lost, steps, fewest, idle = batch, 0, math.inf, 0
        best: tuple[ExpertWeights, list[float]] | None = None
        for number in range(config.rounds + 1):
            limit = config.steps if number == 0 else min(_REPAIRS, config.steps)
            scale = 1.0 if number == 0 else _GENTLER
            beside: list[WordingRow] = []
            trial.begin()
            for step in range(limit):
                if config.rehearsed and step % _AGAIN == 0:
                    beside = sorted(earlier, key=self._lead)[: config.rehearsed]
                asked = list(dict.fromkeys([*lost, *beside]))
                leads = trial.step(asked, config.learning_rate * scale, step / limit)
                self._record_leads(asked, leads)
                awaited = [lead for row, lead in zip(asked, leads, strict=True) if row not in stuck]
                if config.margin is not None and min(awaited) > config.margin:
                    break
                steps += 1
                if told is not None:
                    told(steps)
            trial.round()
            if not config.rounds:
                return steps
            leads = trial.leads(rows)
            self._record_leads(rows, leads)
            lost = [row for row in rows if self._lead(row) < _HELD and row not in stuck]
            idle += 1
            if len(lost) < fewest:
                fewest, idle, best = len(lost), 0, (trial.experts(), leads)
            if not lost or idle == _PATIENCE:
                break
            lost += [row for row in batch if row not in lost][:_AGAIN]
        if best is not None and idle:
            trial.take(best[0])
            self._record_leads(rows, best[1])
        return steps

    def _lead(self, row: WordingRow) -> float:
        return self.leads.get((row.edit_id, row.wording), -math.inf)
