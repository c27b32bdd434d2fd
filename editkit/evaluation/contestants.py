"""The interface of an evaluated method, and its implementation for the kit's methods.

Every method runs on a kit: an editing method adds edits and answers through it; a method that
trains the model's weights uses the kit's model and leaves its history empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import editkit
from editkit.errors import UnsupportedModel
from editkit.kit import Kit
from editkit.methods.spec import Variant
from editkit.models.load import ModelSpec
from editkit_store.records import Delivery, EditRequest, Score

__all__ = ["SLACK", "Answer", "Contestant", "Nearest", "Question", "RecordedEdits"]

_TOGETHER = 64
"""Maximum number of edits added at once."""

SLACK = 6
"""Tokens that an answer may have beyond its target before it counts as not ended."""


@dataclass(frozen=True)
class Question:
    """A question: a prompt, or a conversation that ends with it.

    Attributes:
        delivery: Whether the answer may be held to a target: of methods, only what the model says
            by itself is compared.
    """

    prompt: str
    chat: Any = None
    delivery: Delivery = "free"

    @classmethod
    def of(cls, request: EditRequest) -> Question:
        """Returns the question of an edit."""
        return cls(request.prompt, request.chat)


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        text: The whole answer, surrounding whitespace removed.
        fired: Index of the edit that applied, from 0 in the order of editing.
        delivered: How its target came into the answer, if it is known; see ``Generation``.
    """

    text: str
    fired: int | None = None
    delivered: str | None = None


@dataclass(frozen=True)
class Nearest:
    """The edit nearest to a prompt.

    Attributes:
        edit: Index of the edit, from 0 in the order of editing.
        distance: Distance of the prompt from its key, L2.
        radius: Radius of its scope.
    """

    edit: int
    distance: float
    radius: float


class Contestant:
    """The unedited model, and the base of every method.

    Args:
        name: Name of the method.
        model: As for ``editkit.open``.
        folder: Where the method stores what it learned, to resume after an interruption.
        options: For ``editkit.open``.
    """

    def __init__(self, name: str, model: ModelSpec, folder: Path, **options: Any) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.kit: Kit = editkit.open(folder / "history.db", model=model, **options)
        self.done = 0  # edits so far

    def settings(self) -> dict[str, str]:
        """Returns a description of its settings."""
        return {}

    together = 8
    """Number of edits made at once."""

    def edit(self, requests: Sequence[EditRequest]) -> list[str]:
        """Makes edits, in order.

        Args:
            requests: The edits.

        Returns:
            The model's answer to each right after they were made.
        """
        self.done += len(requests)
        return self._right_after(requests)

    def answers(self, questions: Sequence[Question], limit: int) -> list[Answer]:
        """Returns the model's greedy answers.

        Args:
            questions: The questions, in one batch.
            limit: Maximum number of tokens of an answer.
        """
        encoder = self.kit.encoder
        found = self.kit.generate_tokens(
            [
                encoder.prompt(one.prompt) if one.chat is None else encoder.chat(one.chat)
                for one in questions
            ],
            max_new_tokens=limit,
            delivery=[one.delivery for one in questions],
        )
        return [Answer(one.text, self._case(one.fired), one.delivered) for one in found]

    def scores(self, prompts: Sequence[str], targets: Sequence[str]) -> list[Score]:
        """Returns the likelihoods of targets after their prompts."""
        return self.kit.scores(prompts, targets)

    def nearest(self, questions: Sequence[Question]) -> Sequence[Nearest | None]:
        """Returns the edit nearest to each question; None where there is none."""
        return [None] * len(questions)

    @property
    def fires(self) -> bool:
        """Whether the method decides for each prompt if an edit applies."""
        return False

    @property
    def keys(self) -> int | None:
        """Number of keys that prompts are compared with; None for a method without keys."""
        return None

    def save(self) -> None:
        """Saves what was learned so far to its folder."""

    def restore(self, cases: Sequence[EditRequest]) -> None:
        """Restores the saved state, which was learned from these edits."""
        self.done = len(cases)

    def close(self) -> None:
        """Restores the model and closes the kit."""
        self.kit.close()

    def _right_after(self, requests: Sequence[EditRequest]) -> list[str]:
        lengths = [len(self.kit.tokenizer(request.target)["input_ids"]) for request in requests]
        questions = [Question.of(request) for request in requests]
        return [one.text for one in self.answers(questions, max(lengths) + SLACK)]

    def _case(self, fired: Sequence[str]) -> int | None:
        return None


class RecordedEdits(Contestant):
    """A method whose edits are in the kit's history, used through the public API of the kit.

    Args:
        name: Name of the contestant.
        model: As for ``editkit.open``.
        folder: Folder of its history.
        method: The method.
        variant: Its settings.

    Raises:
        UnsupportedModel: The variant sets a scope, but the method has no scopes on this model.
    """

    def __init__(
        self,
        name: str,
        model: ModelSpec,
        folder: Path,
        *,
        method: str,
        variant: Variant,
        **options: Any,
    ) -> None:
        settings = {method: dict(variant.settings)} if variant.settings else {}
        options |= {"preset": variant.preset, "methods": settings}
        options["judge"] = variant.judge or options.get("judge")
        super().__init__(name, model, folder, **options)
        self._cases: dict[str, int] = {}
        self._variant = variant
        self._method = self.kit.methods.of(method)
        self.together = min(_TOGETHER, 4 * self._method.batch)
        reads_text = self.kit.judge != "none"
        if "scope" in variant.settings and not (reads_text or self._method.has_scopes):
            self.kit.close()
            raise UnsupportedModel(
                f"'{name}' does not support this model: its edits are looked up by hidden states, "
                "and scopes need keys made of words",
                hint=f"use '{method}'",
            )

    def settings(self) -> dict[str, str]:
        """Returns the preset, what decides, and the method's settings."""
        return {
            "preset": self._variant.preset,
            "judge": self.kit.judge,
            **self._method.settings(),
        }

    def edit(self, requests: Sequence[EditRequest]) -> list[str]:
        """Adds the edits, learned in batches; those that do not verify are not active."""
        # The idempotency key identifies edits that were added before an interruption.
        keyed = [
            request.model_copy(
                update={"idempotency_key": f"case {self.done + index}", "method": self._method.name}
            )
            for index, request in enumerate(requests)
        ]
        added = self.kit.add_many(
            keyed, on_failure="keep" if self._variant.keeps_failed else "record"
        )
        for one in added:
            self._cases[one.edit.id] = self.done
            self.done += 1
        return [one.answer for one in added]

    def nearest(self, questions: Sequence[Question]) -> Sequence[Nearest | None]:
        """Returns the edit nearest to each question; None where none is a candidate."""
        found: list[Nearest | None] = []
        for one in questions:
            subject: dict[str, Any] = (
                {"prompt": one.prompt} if one.chat is None else {"chat": one.chat}
            )
            explained = self.kit.explain(**subject, k=1)
            best = next(iter(explained.candidates), None)
            if best is None:
                found.append(None)
            else:
                found.append(Nearest(self._cases[best.edit_id], best.distance, best.radius))
        return found

    @property
    def fires(self) -> bool:
        """True: an edit applies within its radius."""
        return True

    @property
    def keys(self) -> int | None:
        """Number of keys that prompts are compared with, if the method has any."""
        part = self._method.engine.view.part(self._method.name)
        return None if part is None else part.key_count or None

    def restore(self, cases: Sequence[EditRequest]) -> None:
        """Reads the history."""
        for index in range(len(cases)):
            edit_id = self.kit.store.history.with_key(f"case {index}")
            if edit_id is not None:
                self._cases[edit_id] = index
        self.done = len(cases)

    def _case(self, fired: Sequence[str]) -> int | None:
        return self._cases.get(fired[0]) if fired else None
