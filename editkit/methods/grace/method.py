"""Learning edits and verifying them: the path that `add` and `replay` share."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from editkit.config import GraceConfig, KeyName
from editkit.engines.transformers.generator import Generated, Generator
from editkit.engines.transformers.site import Site
from editkit.engines.transformers.tokens import Encoded, Encoder
from editkit.history.views import Views
from editkit.methods.base import SLACK, Met, Outcome, finite
from editkit.methods.batches import Batch, lay_out
from editkit.methods.elder.state import ElderView
from editkit.methods.grace import learning as grace
from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.learning import LearnedValue
from editkit.methods.grace.payload import GracePayload
from editkit.methods.grace.view import GraceView
from editkit.scope.keys import PromptKeys
from editkit.scope.reach import Reaches
from editkit_store.digest import digest_bytes
from editkit_store.records import Artifact, Edit, EditReach

__all__ = ["BATCH", "Learner", "Lesson"]

_FIRST_TOKEN = 0.2
"""Share of the radius for a prompt of one token.

The first token of many decoders is an attention sink, whose state hardly depends on which token it
is: in SmolLM2 the keys of two such prompts are 3 to 6% of their norm apart, so that the full radius
would reach them all.
"""


BATCH = 64
"""Edits learned together: a replay commits them together, `add_many` one by one."""

_ROWS = BATCH
_TOKENS = 2048
"""Size of one optimization problem: edits, and tokens with padding. A batch takes as many steps as
its slowest edit, so large ones waste least; the tokens bound the memory."""

_DRAFTED = 16
"""Edits tried together."""


@dataclass(frozen=True)
class Lesson:
    """What one request learned.

    Attributes:
        encoded: The request as tokens.
        value: What it learned.
        seconds: Its share of the wall-clock seconds.
        batch: The requests learned together, with what the model computed on their prompts.
        row: Where the request is in it.
    """

    encoded: Encoded
    value: LearnedValue
    seconds: float
    batch: Batch
    row: int


class Learner:
    """Learns edits on one model at one site by GRACE, and verifies them by free generation.

    Attributes:
        name: Name that the model was loaded by.
        fingerprint: The model's identity.
        is_pooled: Edits are looked up by pooled keys alone.
        has_keys: They are looked up by keys of prompts, not by hidden states.
    """

    batch = BATCH

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        fingerprint: str,
        site: Site,
        config: GraceConfig,
        encoder: Encoder,
        generator: Generator,
        views: Views,
        keys: PromptKeys | None = None,
    ) -> None:
        self._model = model
        self.name = name
        self.fingerprint = fingerprint
        self._site = site
        self._config = config
        self._encoder = encoder
        self._generator = generator
        self._views = views
        self._keys = keys
        self._key = "state" if keys is None else keys.kind
        self._kind = cast(KeyName, self._key.partition(":")[0])
        self._reaches = Reaches(encoder, self.key, keys)
        self.is_pooled = self._kind == "pooled"
        self.has_keys = keys is not None

    def check(self) -> None:
        """Every model that can be opened can learn."""

    def key(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns what a prompt is looked up by, ``(d,)`` float32; of a state, a pass to its site.

        Args:
            prompt: Token ids.
        """
        if self._keys is not None:
            with self._generator.paused():
                return torch.from_numpy(self._keys.key(prompt))
        return grace.query(self._model, self._site, prompt, position=self._config.position)

    def learn(
        self,
        edits: Sequence[tuple[Edit, Encoded]],
        *,
        version: int = 0,
        met: Met | None = None,
    ) -> list[Lesson]:
        """Returns what each edit learned; see ``Teacher.learn``. No other edit counts for that."""
        encoded = [one for _, one in edits]
        lessons: dict[int, Lesson] = {}
        # An edit that is there must not fire while another one is learned: the new one will be the
        # only one in its sequence, and what it is learned with are prompts, targets behind them.
        with self._generator.paused():
            for indices in _grouped(encoded):
                started = time.monotonic()
                batch = lay_out(
                    self._model,
                    self._site.layout,
                    [encoded[index] for index in indices],
                    replacement=self._config.replacement,
                    position=self._config.position,
                )
                keys = None
                if self._keys is not None:
                    keys = torch.stack([self.key(encoded[index].prompt) for index in indices])
                values = grace.optimize(
                    batch, self._site, self._config, keys=keys, met=_each(indices, met)
                )
                share = (time.monotonic() - started) / len(indices)
                for row, (index, value) in enumerate(zip(indices, values, strict=True)):
                    lessons[index] = Lesson(encoded[index], value, share, batch, row)
        return [lessons[index] for index in range(len(encoded))]

    def joined(
        self, view: GraceView, edit: Edit, lesson: Lesson, older: Sequence[str], version: str
    ) -> GraceView:
        """Returns a view with one more edit, and without older ones of its prompt."""
        memory, mixture = self._views.memory, view.mixture
        if isinstance(mixture, ElderView):
            mixture = mixture.without(older)
        rows = view.rows[~np.isin(view.rows, memory.rows(older))]
        return self._views.folded(np.append(rows, self.remember(edit, lesson)), version, mixture)

    def tried(self, lessons: Sequence[Lesson], *views: GraceView) -> list[Generated]:
        """Returns what the model says with what was learned in place; see ``Teacher.tried``."""
        answers: dict[int, Generated] = {}
        for indices in _alike(lessons):
            batch, rows = lessons[indices[0]].batch, [lessons[i].row for i in indices]
            if rows != list(range(len(batch))):
                batch = batch.select(torch.tensor(rows))
            seen = [views[i] for i in indices] if len(views) > 1 else views
            drafted = self._generator.drafted(batch, [lessons[i].encoded for i in indices], seen)
            answers.update((i, said) for i, said in zip(indices, drafted, strict=True) if said)
        left = [index for index in range(len(lessons)) if index not in answers]
        seen = [views[i] for i in left] if len(views) > 1 else views
        said = self.answers([lessons[i].encoded for i in left], *seen) if left else []
        answers.update(zip(left, said, strict=True))
        return [answers[index] for index in range(len(lessons))]

    def forget(self, edit_id: str) -> None:
        """Takes out of the memory what an edit learned."""
        self._views.memory.discard(edit_id)

    def remember(self, edit: Edit, lesson: Lesson, *, owns_row: bool = False) -> int:
        """Puts what an edit learned into the memory; returns its row.

        Args:
            edit: The edit.
            lesson: What it learned.
            owns_row: Never share another edit's row.
        """
        payload = self._payload(edit, lesson.encoded, lesson.value, owns_row=owns_row)
        return self._views.memory.put([payload])[0]

    def settle(
        self,
        edit: Edit,
        lesson: Lesson,
        view: GraceView,
        generated: Generated,
        *,
        keep: bool = False,
        more: float = 0.0,
    ) -> Outcome:
        """Returns what becomes of a learned edit; see ``Teacher.settle``."""
        encoded, value = lesson.encoded, lesson.value
        memory = self._views.memory
        row = memory.row(edit.id)
        if not view.owns_row(row) and generated.text != encoded.text:
            # Another edit's value, learned from another prompt, does not do for this one.
            new = self.remember(edit, lesson, owns_row=True)
            rows = np.where(view.rows == row, new, view.rows)
            view = self._views.folded(rows, view.version, view.mixture)
            row, (generated,) = new, self.tried([lesson], view)
        verified = generated.text == encoded.text
        usable = verified or keep
        payload = memory.payload(row)
        data = payload.to_bytes() if usable else None
        conflicts = memory.conflicts(row) if usable else None
        if not usable:
            memory.discard(edit.id)
        metrics = {
            "steps": value.steps,
            "margin": finite(value.margin),
            "loss": finite(value.loss),
            "seconds": lesson.seconds + more,
            "answer": generated.text,
            "site": self._site.path,
            "config": self._config.model_dump(mode="json"),
        }
        radius = payload.entry.radius if usable else None
        artifact = self._artifact(edit.id, verified, usable, data, metrics, conflicts, radius)
        seconds = lesson.seconds + more
        return Outcome(artifact, data, view, generated.text, seconds, value.steps)

    def reach(self, edit: Edit, lesson: Lesson, view: GraceView) -> EditReach:
        """Returns how far an active edit reaches in a view."""
        return self._reaches.of(edit, lesson.encoded.prompt, view)

    def answers(self, requests: Sequence[Encoded], *views: GraceView) -> list[Generated]:
        """Returns what the model says (now, or on views), for about the length of the targets.

        Args:
            requests: Prompts to ask, and targets whose length is the measure.
            *views: One view, or one a request; by default the current one.
        """
        limit = max((len(request.target) for request in requests), default=0) + SLACK
        prompts = [request.prompt for request in requests]
        return self._generator.run(prompts, views=views, max_new_tokens=limit)

    def _payload(
        self, edit: Edit, encoded: Encoded, value: LearnedValue, *, owns_row: bool
    ) -> GracePayload:
        entry = Entry(
            edit_id=edit.id,
            key=value.key.numpy(),
            target=encoded.target,
            radius=self._radius(edit, value, encoded),
            rule=self._config.rule_for(self._kind),
            owns_row=owns_row,
        )
        return GracePayload(
            entry,
            value.value.numpy(),
            self._site.path,
            self._config.replacement,
            self._config.position or self._site.layout.position,
            self._key,
            is_confirmed=not edit.rephrases,
        )

    def _radius(self, edit: Edit, value: LearnedValue, encoded: Encoded) -> float:
        radius = self._config.initial_radius(self._kind, edit.scope)
        if self._config.units == "activation" and self._keys is None:
            radius *= float(value.key.norm())
            if len(encoded.prompt) == 1 and self._encoder.family == "decoder":
                radius *= _FIRST_TOKEN
        radius = self._reaches.radius(edit, value.key, radius)
        return float(np.float32(radius))  # as it is stored and compared

    def _artifact(
        self,
        edit_id: str,
        verified: bool,
        usable: bool,
        data: bytes | None,
        metrics: dict[str, Any],
        conflicts: dict[str, float] | None = None,
        radius: float | None = None,
    ) -> Artifact:
        return Artifact(
            edit_id=edit_id,
            fingerprint=self.fingerprint,
            model=self.name,
            method="grace",
            verified=verified,
            usable=usable,
            digest=digest_bytes(data) if data is not None else None,
            metrics=metrics,
            conflicts=conflicts,
            radius=radius,
        )


def _grouped(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Yields the indices of requests to learn together: of about one length, to pad little."""
    lengths = [len(request.prompt) + len(request.target) for request in encoded]
    group: list[int] = []
    for index in sorted(range(len(encoded)), key=lambda index: lengths[index]):
        if group and (len(group) == _ROWS or (len(group) + 1) * lengths[index] > _TOKENS):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _alike(lessons: Sequence[Lesson]) -> Iterator[list[int]]:
    """Yields the indices of lessons to try together: of one batch, with targets of one length."""

    def batch(index: int) -> int:
        return id(lessons[index].batch)

    order = sorted(
        range(len(lessons)), key=lambda index: (batch(index), len(lessons[index].encoded.target))
    )
    for _, found in itertools.groupby(order, batch):
        indices = list(found)
        for at in range(0, len(indices), _DRAFTED):
            yield indices[at : at + _DRAFTED]


def _each(
    indices: Sequence[int], met: Callable[[int, torch.Tensor], None] | None
) -> Callable[[torch.Tensor], None] | None:
    if met is None:
        return None

    def tell(keys: torch.Tensor) -> None:
        for index, key in zip(indices, keys, strict=True):
            met(index, key)

    return tell
