"""How ELDER learns a batch of edits on top of what it has learned before.

The paper's procedure (``TrainConfig.of("paper")``) is gradient descent on

    L = L_model + lambda L_guide

over the batch alone, for a fixed number of steps. Whatever came before is then forgotten: nothing
protects it. Differs from the paper by default, each by a field of ``TrainConfig``:

- the routers are fitted to the queries of all edits, earlier ones and unrelated text included,
  before the experts learn: their queries do not depend on the experts, so this needs no model;
- earlier edits are rehearsed beside the batch, those first whose target leads by least; afterwards
  all of them are looked at, and those that were lost are learned again;
- what is minimized is how much the target's tokens fall short of a margin (``methods.losses``), so
  that an edit that is learned already pulls at nothing, and learning ends when all are;
- allocations are drawn far apart, and in scope an input takes its edit's own experts with equal
  weights, so that what an edit does does not change when the routers go on learning;
- the threshold is brought down to where held-out text is no nearer than it;
- experts are rounded to a grid after each round, before anybody looks at what holds;
- the mixture applies from the query on (``methods.elder.notes`` says what that saves).
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

from editkit.config import TrainConfig
from editkit.methods.elder import routers, routing
from editkit.methods.elder.mixture import mixed, selected
from editkit.methods.elder.notes import Notebook, Problem
from editkit.methods.elder.state import ElderState, ElderView
from editkit.methods.losses import losses
from editkit.prompts import Encoded

__all__ = ["Course", "Learned", "Lesson", "initial"]

_SPARE = 1.0
"""Logits beyond the margin to strive for: the last of them would come slowly."""

_REPAIRS = 16
"""Steps of a round in which lost edits are learned again."""

_GENTLER = 0.5
"""Of the learning rate, in such a round."""

_PATIENCE = 2
"""Such rounds in a row that may lose as many as before."""

_HELD = 0.5
"""Logits by which a target must lead to count as held."""

_AGAIN = 8
"""Steps after which the wordings to rehearse are chosen anew."""

_FALSE = 0.01
"""Share of held-out text that may be nearer than the threshold."""

_LOOKED_AT = 32
"""Wordings looked at together."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """One edit to learn or to keep.

    Attributes:
        edit_id: The edit.
        wordings: Its wordings with its target, the prompt's first.
        queries: ``(w, d)`` float32, what the routers see of them.
    """

    edit_id: str
    wordings: tuple[Encoded, ...]
    queries: torch.Tensor


@dataclass(frozen=True)
class Learned:
    """What came of a batch.

    Attributes:
        state: What is known now.
        leads: By edit, the smallest lead of a target token over all others, over its wordings, in
            logits; of earlier edits where somebody looked.
        steps: Optimizer steps.
        loss: At the last of them.
        separation: Bits between codes; None where nobody measured. The farthest that a wording is
            from the code of its own edit, and the distance from any within which a hundredth of
            held-out text is (and in reach). The threshold separates them if it can lie between.
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
    """Returns a state that knows nothing.

    Args:
        modules: Input and output width of each adapted layer.
        width: Length of a query.
        num_experts: N.
        rank: r.
        seed: Of the experts' down projections.
        like: What else a state says is taken from there.
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
        notebook: The model's.
        modules: The adapted layers.
        config: How.
        probes: ``(n, d)`` float32, queries of unrelated text.
        held_out: Likewise of more of it, which no router is fitted to.
        limit: The largest threshold, bits.
        leads: What is known of the leads of edits' wordings, for choosing what to rehearse.
    """

    notebook: Notebook
    modules: Sequence[nn.Module]
    config: TrainConfig
    probes: Callable[[], torch.Tensor]
    held_out: Callable[[], torch.Tensor]
    limit: int
    leads: dict[tuple[str, Encoded], float] = field(default_factory=dict)

    def learn(
        self,
        state: ElderState,
        new: Sequence[Lesson],
        old: Sequence[Lesson],
        *,
        unrelated: torch.Tensor | None = None,
        told: Callable[[int], None] | None = None,
    ) -> Learned:
        """Returns what is known with a batch learned on top of a state, which stays as it is.

        Args:
            state: What is known.
            new: The batch.
            old: The state's edits, in its order.
            unrelated: ``(n, d)`` float32, queries of prompts that are to stay as they are, beside
                the probes.
            told: Called after each step with the number of steps so far.
        """
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
        lessons = [*old, *new]
        queries = torch.cat([lesson.queries for lesson in lessons]).float()
        owners = np.repeat(np.arange(len(lessons)), [len(one.queries) for one in lessons])
        state = dataclasses.replace(
            state,
            codes=routing.packed(allocations, state.num_experts),
            edit_ids=tuple(lesson.edit_id for lesson in lessons),
            queries=queries.numpy(),
            owners=owners,
        )
        if self.config.routers == "fitted":
            state = self._fitted(state, allocations, unrelated)
        rows = _rows(lessons)
        trial = _Trial(self.notebook, self.modules, state, allocations, self.config)
        steps = self._rounds(trial, rows, len(old), told)
        state = trial.state()
        if self.config.recode and state.experts == "own":
            _, _, codes = state.encoded(torch.stack([one.queries[0] for one in lessons]))
            state = dataclasses.replace(state, codes=codes)
        separation = None
        if self.config.calibrate:
            state, separation = self._calibrated(state)
        return Learned(state, self._told(rows), steps, trial.loss, separation)

    def look(self, state: ElderState, lessons: Sequence[Lesson]) -> dict[str, float]:
        """Returns the leads of edits as ``Learned`` has them, with nothing learned.

        Args:
            state: What is known.
            lessons: The state's edits, in its order.
        """
        allocations = routing.allocations_of(state.codes, state.layers, state.num_experts)
        trial = _Trial(self.notebook, self.modules, state, allocations, self.config)
        rows = _rows(lessons)
        self._note(rows, trial.leads(rows))
        return self._told(rows)

    def _note(self, rows: Sequence[_Row], leads: Sequence[float]) -> None:
        for row, lead in zip(rows, leads, strict=True):
            self.leads[row.edit_id, row.wording] = lead

    def _told(self, rows: Sequence[_Row]) -> dict[str, float]:
        """The smallest lead of each edit of whose wordings any is known."""
        found: dict[str, float] = {}
        for row in rows:
            lead = self.leads.get((row.edit_id, row.wording))
            if lead is not None:
                found[row.edit_id] = min(found.get(row.edit_id, math.inf), lead)
        return found

    def _calibrated(self, state: ElderState) -> tuple[ElderState, tuple[int, int]]:
        """Returns a state with the threshold that held-out text asks for; see ``Learned``."""
        assert state.queries is not None
        text = self.held_out()
        with torch.no_grad():
            _, _, mine = state.encoded(torch.from_numpy(state.queries))
            _, _, theirs = state.encoded(text)
        own = routing.distances(mine, state.codes)[np.arange(len(mine)), state.owners]
        other = routing.distances(theirs, state.codes).min(axis=1, initial=self.limit)
        if state.radius is not None:  # text out of reach is deferred whatever its code
            apart = ElderView(state).between(text.numpy()).min(axis=1, initial=math.inf)
            other[apart > state.radius] = self.limit
        near = int(np.quantile(other, _FALSE, method="lower"))
        # An edit that none of its wordings reaches is worth more than a prompt that looks like one.
        threshold = min(self.limit, max(near, int(own.max(initial=0)) + 1))
        return dataclasses.replace(state, threshold=threshold), (int(own.max(initial=0)), near)

    def _fitted(
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
        # They are made anew by every batch: half as many bytes to keep.
        return dataclasses.replace(state, routers=found.half().float())

    def _rounds(
        self, trial: _Trial, rows: Sequence[_Row], known: int, told: Callable[[int], None] | None
    ) -> int:
        """Learns the new rows, then those that this lost, until all hold; returns the steps.

        Rounds that help no more are not repeated, and the experts of the round that lost least are
        what remains. An earlier edit that did not hold before is learned along, not waited for.
        """
        config = self.config
        batch = [row for row in rows if row.index >= known]
        earlier = [row for row in rows if row.index < known]
        stuck = {row for row in earlier if -math.inf < self._lead(row) < _HELD}
        lost, steps, fewest, idle = batch, 0, math.inf, 0
        best: tuple[_Experts, list[float]] | None = None
        for number in range(config.rounds + 1):
            limit = config.steps if number == 0 else min(_REPAIRS, config.steps)
            scale = 1.0 if number == 0 else _GENTLER
            beside: list[_Row] = []
            trial.begin()
            for step in range(limit):
                if config.rehearsed and step % _AGAIN == 0:
                    beside = sorted(earlier, key=self._lead)[: config.rehearsed]
                asked = list(dict.fromkeys([*lost, *beside]))
                leads = trial.step(asked, config.learning_rate * scale, step / limit)
                self._note(asked, leads)
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
            self._note(rows, leads)
            lost = [row for row in rows if self._lead(row) < _HELD and row not in stuck]
            idle += 1
            if len(lost) < fewest:
                fewest, idle, best = len(lost), 0, (trial.experts(), leads)
            if not lost or idle == _PATIENCE:
                break
            lost += [row for row in batch if row not in lost][:_AGAIN]
        if best is not None and idle:
            trial.take(best[0])
            self._note(rows, best[1])
        return steps

    def _lead(self, row: _Row) -> float:
        return self.leads.get((row.edit_id, row.wording), -math.inf)


_Experts = list[torch.Tensor]


@dataclass(frozen=True, eq=False)
class _Row:
    """A wording of the edit with that index."""

    edit_id: str
    wording: Encoded
    query: torch.Tensor
    index: int


def _rows(lessons: Sequence[Lesson]) -> list[_Row]:
    return [
        _Row(one.edit_id, wording, query, index)
        for index, one in enumerate(lessons)
        for wording, query in zip(one.wordings, one.queries, strict=True)
    ]


class _Trial:
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
        self._problems: dict[tuple[Encoded, ...], Problem] = {}
        self.loss = math.nan

    def begin(self) -> None:
        """Forgets what the optimizer gathered."""
        learned = [*self._down, *self._up, *([self._routers] if self._is_joint else [])]
        self._learned = learned
        self._optimizer = torch.optim.Adam(learned, lr=self._config.learning_rate)

    def experts(self) -> _Experts:
        """Returns a copy of the experts as they are."""
        return [one.detach().clone() for one in (*self._down, *self._up)]

    def take(self, experts: _Experts) -> None:
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

    def step(self, rows: Sequence[_Row], rate: float, share: float) -> list[float]:
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

    def leads(self, rows: Sequence[_Row]) -> list[float]:
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

    def _problem(self, rows: Sequence[_Row]) -> Problem:
        asked = tuple(row.wording for row in rows)
        if asked not in self._problems:
            self._problems = {asked: self._laid_out(rows)}
        return self._problems[asked]

    def _laid_out(self, rows: Sequence[_Row]) -> Problem:
        return self._notebook.problem(self._notebook.of([row.wording for row in rows]))

    def _logits(
        self, problem: Problem, rows: Sequence[_Row], *, in_full: bool = False
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
            added = mixed(inputs, down, up)
            if problem.on is not None:
                added = added * problem.on.to(device)
            return output + added.to(output.dtype)

        logits = self._notebook.logits(problem, self._modules, change, in_full=in_full)
        return logits, guided
