"""The baseline without model changes: a memory of corrections that is searched for each prompt.

It is the common alternative to editing: the corrections nearest to a prompt are put in front of it,
and the model should follow them. The memory uses the same keys and the same radius as GRACE's
codebook, so that the methods differ only in how a correction is applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.errors import UnsupportedModel
from editkit.evaluation.contestants import Answer, Contestant, Nearest, Question
from editkit.models.load import ModelSpec
from editkit.scope.radii import RADII
from editkit_store.records import EditRequest, Score

__all__ = ["PromptMemory"]

_SHOWN = 3
"""Maximum corrections in front of a prompt, the nearest one last."""

_END = "\n"
"""End of an answer: the examples have answers of one line."""


class PromptMemory(Contestant):
    """Corrections as examples in the prompt."""

    together = 64

    def __init__(self, name: str, model: ModelSpec, folder: Path, **options: Any) -> None:
        super().__init__(name, model, folder, **options)
        if self.kit.encoder.family != "decoder":
            self.kit.close()
            raise UnsupportedModel(
                "corrections in the prompt only work with decoders",
                hint="leave 'prompt-memory' out",
            )
        self._made: list[EditRequest] = []
        self._keys: npt.NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._radius = RADII["pooled"]["balanced"]

    def settings(self) -> dict[str, str]:
        """Returns how the memory is searched and shown."""
        return {
            "searched with": f"pooled keys, radius {self._radius:g}",
            "shown": f"at most {_SHOWN} corrections, as questions and answers before the prompt",
            "answer": "the first line",
        }

    def edit(self, requests: Sequence[EditRequest]) -> list[str]:
        """Adds corrections to the memory."""
        self._remember(requests)
        return super().edit(requests)

    def answers(self, questions: Sequence[Question], limit: int) -> list[Answer]:
        """Returns the first lines of the answers to prompts with corrections in front."""
        near = [self._shown(question.prompt) for question in questions]
        shown = [
            Question(self._prompt(question.prompt, found)) if found else question
            for question, found in zip(questions, near, strict=True)
        ]
        answers = super().answers(shown, limit)
        return [
            Answer(one.text.split(_END)[0].strip(), found[-1]) if found else one
            for one, found in zip(answers, near, strict=True)
        ]

    def scores(self, prompts: Sequence[str], targets: Sequence[str]) -> list[Score]:
        """Returns the likelihoods of targets after the prompts with their corrections."""
        return super().scores([self._prompt(p, self._shown(p)) for p in prompts], targets)

    def nearest(self, questions: Sequence[Question]) -> Sequence[Nearest | None]:
        """Returns the correction nearest to each question."""
        if not self._made:
            return super().nearest(questions)
        found = []
        for question in questions:
            apart = self._distances(question.prompt)
            best = int(apart.argmin())
            found.append(Nearest(best, float(apart[best]), self._radius))
        return found

    @property
    def fires(self) -> bool:
        """True: a correction is shown within the radius."""
        return True

    @property
    def keys(self) -> int | None:
        """Number of corrections in the memory."""
        return len(self._made)

    def save(self) -> None:
        """Does nothing: the corrections are the edits."""

    def restore(self, cases: Sequence[EditRequest]) -> None:
        """Adds the corrections to the memory again."""
        self._remember(cases)
        self.done = len(cases)

    def _remember(self, requests: Sequence[EditRequest]) -> None:
        new = np.stack([self._key(request.prompt) for request in requests])
        self._keys = new if not self._made else np.concatenate([self._keys, new])
        self._made += requests

    def _key(self, prompt: str) -> npt.NDArray[np.float32]:
        return self.kit.key(prompt)

    def _distances(self, prompt: str) -> npt.NDArray[np.float32]:
        return np.asarray(np.linalg.norm(self._keys - self._key(prompt), axis=1))

    def _shown(self, prompt: str) -> list[int]:
        """Returns the corrections to show, the nearest one last."""
        if not self._made:
            return []
        apart = self._distances(prompt)
        near = apart.argsort(kind="stable")[:_SHOWN]
        return [int(index) for index in near[::-1] if apart[index] <= self._radius]

    def _prompt(self, prompt: str, shown: Sequence[int]) -> str:
        if not shown:
            return prompt
        pairs = [(self._made[index].prompt, self._made[index].target) for index in shown]
        lines = [f"Question: {asked}\nAnswer: {answer}\n" for asked, answer in pairs]
        return "\n".join([*lines, f"Question: {prompt}\nAnswer:"])
