"""Learning one rank-one edit: the key of its subject, and the value that gives the target.

At a linear map W with inputs x, and C the second moment of x over ordinary text, the map

    W' = W + L (C^-1 k)^T,    L = (v - W k) / ((C^-1 k)^T k)

is the one that reads v at the key k and changes least elsewhere (eq. 2 of the paper). k is the mean
input at the last token of the subject, over the prompt behind several beginnings. v is learned by
gradient descent. Here W stays as it is: L (C^-1 k)^T x is added beside it in the rows where the
edit fires. So v is learned with that path in place, and what is verified is what was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Encoded
from editkit.engines.learning import LearningEngine, Site
from editkit_rankone.config import RankOneConfig

__all__ = ["Problem", "SecondMoment", "Solution", "solve"]


class SecondMoment:
    """The second moment of a map's inputs, C = X^T X / n + r I; only its inverse is asked for.

    X has fewer rows than columns, so the inverse is taken of the smaller X X^T (Woodbury).

    Args:
        states: ``(n, d)`` inputs over ordinary text.
        ridge: r, as a share of the mean of the diagonal.
    """

    def __init__(self, states: torch.Tensor, ridge: float) -> None:
        self._states = states.double()
        count = len(states)
        self._ridge = max(ridge * float(self._states.square().mean()), 1e-12)
        gram = self._states @ self._states.T
        gram.diagonal().add_(count * self._ridge)
        self._factor = torch.linalg.cholesky(gram)

    def inverse_times(self, key: torch.Tensor) -> torch.Tensor:
        """Returns C^-1 k for a key ``(d,)``."""
        key = key.double()
        inner = torch.cholesky_solve((self._states @ key)[:, None], self._factor)[:, 0]
        return (key - self._states.T @ inner) / self._ridge


@dataclass(frozen=True)
class Problem:
    """What one edit asks for.

    Attributes:
        contexts: Its prompt first, then the prompt behind some beginnings, and rephrasings.
        subjects: For those with a beginning, and the prompt itself, the place of the subject.
        essence: A prompt about the subject; what the model says to it should stay.
    """

    contexts: tuple[Encoded, ...]
    subjects: tuple[int, ...]
    essence: Encoded | None


@dataclass(frozen=True)
class Solution:
    """What one edit learned.

    Attributes:
        down: ``(d,)``, (C^-1 k) / ((C^-1 k)^T k).
        up: ``(m,)``, v - W k.
        steps: Optimizer steps.
        margin: Smallest lead of a target token in the prompt itself, in logits.
        loss: Mean negative log likelihood of a target token over the contexts, nats.
    """

    down: npt.NDArray[np.float32]
    up: npt.NDArray[np.float32]
    steps: int
    margin: float
    loss: float


def solve(
    engine: LearningEngine,
    site: Site,
    moment: SecondMoment,
    problem: Problem,
    config: RankOneConfig,
) -> Solution:
    """Returns the map of one edit; the model is left exactly as it was.

    Args:
        engine: The running model.
        site: Where the map is added.
        moment: Of the inputs there.
        problem: The edit.
        config: How it is learned.
    """
    key, scale = _key(engine, site, problem)
    direction = moment.inverse_times(key)
    down = (direction / (direction @ key.double())).float().to(engine.device)
    asked = [*problem.contexts, *filter(None, [problem.essence])]
    with engine.paused(), torch.enable_grad():
        return _Descent(engine, site, asked, len(problem.contexts), down, scale, config).run()


def _key(engine: LearningEngine, site: Site, problem: Problem) -> tuple[torch.Tensor, float]:
    """Returns the subject's key ``(d,)``, and the RMS of what the map gives for it."""
    prompts = [one.prompt for one in problem.contexts[: len(problem.subjects)]]
    found = engine.states(site.module, prompts)
    key = torch.stack(
        [states[at] for states, at in zip(found, problem.subjects, strict=True)]
    ).mean(dim=0)
    weight = next(site.module.parameters(), None)
    dtype = torch.float32 if weight is None else weight.dtype
    with torch.no_grad(), engine.paused():
        given = site.module(key[None, None].to(device=engine.device, dtype=dtype))
    return key, max(float(given.float().square().mean().sqrt()), 1e-6)


class _Descent:
    """Gradient descent on one value."""

    def __init__(
        self,
        engine: LearningEngine,
        site: Site,
        asked: Sequence[Encoded],
        count: int,
        down: torch.Tensor,
        scale: float,
        config: RankOneConfig,
    ) -> None:
        self._engine, self._site, self._config = engine, site, config
        self._batch = engine.lay_out(asked)
        self._count = count
        self._has_essence = len(asked) > count
        self._down = down
        self._scale = scale

    def run(self) -> Solution:
        config = self._config
        moved = torch.zeros(self._site.width, device=self._engine.device, requires_grad=True)
        optimizer = torch.optim.Adam([moved], lr=config.learning_rate)
        plain: torch.Tensor | None = None
        best = (-float("inf"), float("inf"), 0, moved.detach().clone())
        for step in range(config.max_steps + 1):
            logits = self._logits(moved * self._scale)
            nats, leads = self._judged(logits)
            if self._has_essence and plain is None:  # nothing was moved yet
                plain = logits[-1, 0].detach().log_softmax(dim=0)
            # The prompt itself has to hold; of values that do, the one that the others like best.
            lead, loss = float(leads[0].detach()), float(nats.detach().mean())
            if (min(lead, config.margin), -loss) > (min(best[0], config.margin), -best[1]):
                best = (lead, loss, step, moved.detach().clone())
            if step == config.max_steps or bool((leads > config.margin).all()):
                break
            total = nats.mean() + config.decay * moved.square().mean()
            if plain is not None:
                now = logits[-1, 0].log_softmax(dim=0)
                total = total + config.kl * (plain.exp() * (plain - now)).sum()
            # Of the value alone: the model's parameters get no gradients.
            (moved.grad,) = torch.autograd.grad(total, [moved])
            optimizer.step()
            with torch.no_grad():
                length = float(moved.square().mean().sqrt())
                if length > config.clamp:
                    moved *= config.clamp / length
        lead, loss, steps, value = best
        up = (value * self._scale).cpu().numpy()
        return Solution(self._down.cpu().numpy(), up, steps, lead, loss)

    def _logits(self, up: torch.Tensor) -> torch.Tensor:
        def change(_: int, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            added = (inputs.to(self._down.dtype) @ self._down)[..., None] * up
            return output + added.to(output.dtype)

        with self._engine.adjust([self._site.module], change):
            return self._batch.logits()

    def _judged(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns negative log likelihood and smallest lead of each context's target."""
        logits = logits[: self._count]
        target = self._batch.target[: self._count].to(logits.device)
        valid = self._batch.valid[: self._count].to(logits.device)
        wanted = logits.gather(2, target[..., None])[..., 0]
        surprise = (logits.logsumexp(dim=2) - wanted) * valid
        others = logits.scatter(2, target[..., None], -torch.inf).amax(dim=2)
        leads = (wanted - others).masked_fill(~valid, torch.inf).amin(dim=1)
        return surprise.sum(dim=1) / valid.sum(dim=1), leads
