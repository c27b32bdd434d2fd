"""A tiny model that learns by ELDER, and says what it has learned."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from tiny import tiny_tokenizer

from editkit.engines.base import View
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.generator import Generator
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.elder.config import ElderConfig, TrainConfig
from editkit.methods.elder.learner import ElderLearner
from editkit.methods.elder.learning import Example, LearnedState
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.state import ElderState
from editkit.models.layout import layout_of
from editkit.scope.information import of_model
from editkit.scope.pooled import PooledKeys
from editkit_store.records import EditRequest

FACTS = [
    ("a", ("red cat", "cat, red"), "blue"),
    ("b", ("tall tree",), "two"),
    ("c", ("see Oslo", "Oslo: see"), "yes"),
]
SHAPE = {"query": "state", "radius": None, "threshold": 1, "r": 4}
EAGER = {"learning_rate": 2e-2, "steps": 80}


class Pupil:
    """A tiny model that learns, and answers with what it knows."""

    def __init__(self, model: Any, *, preset: Any = "default", shape: Any = (), **train: Any):
        self.model = model
        self.encoder = Encoder(model, tiny_tokenizer())
        layout = layout_of(model)
        keys = None
        if dict(shape).get("query") == "pooled":
            known = functools.partial(
                of_model, model, tiny_tokenizer(), fingerprint="tiny", is_kept=False
            )
            keys = PooledKeys(model, tiny_tokenizer(), known)
        self.learner = ElderLearner(
            model,
            layout,
            encoder=self.encoder,
            keys=keys,
            config=ElderConfig.of(preset, **{**SHAPE, **dict(shape)}),
            train=TrainConfig.of(preset, **train),
            paused=lambda: self.attachment.paused(),
        )
        self.state = self.learner.blank()
        self.attachment = Attachment(model, layout, self.view(), {"elder": self.learner.patch})
        self.generator = Generator(model, self.encoder, self.attachment)

    def view(self) -> View:
        return View("v", (ElderPart(self.state),))

    def lessons(self, *facts: tuple[str, tuple[str, ...], str]) -> list[Example]:
        return self.learner.examples(
            [
                (
                    name,
                    [
                        self.encoder.request(EditRequest(prompt=one, target=target))
                        for one in wordings
                    ],
                )
                for name, wordings, target in facts
            ]
        )

    def learn(self, new: list[Example], old: list[Example]) -> LearnedState:
        found = self.learner.learn(self.state, new, old)
        self.state = found.state
        self.attachment.view = self.view()
        return found

    def says(self, prompt: str) -> str:
        return self.generator.run([self.encoder.prompt(prompt)], max_new_tokens=8)[0].text


def tensors(state: ElderState) -> list[torch.Tensor]:
    return [*state.lora_A, *state.lora_B, state.routers]


def noisy(state: ElderState) -> ElderState:
    """Experts and routers that all say something."""
    noise = torch.Generator().manual_seed(3)
    return dataclasses.replace(
        state,
        lora_B=tuple(0.3 * torch.randn(one.shape, generator=noise) for one in state.lora_B),
        routers=0.3 * torch.randn(state.routers.shape, generator=noise),
    )
