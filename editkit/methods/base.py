"""What `add` and `replay` ask of an editing method: to learn edits, and to say what became of them.

GRACE's is ``learning.Learner``, ELDER's ``adapting.Adapting``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from editkit.engines.transformers.generator import Generated
from editkit.engines.transformers.tokens import Encoded, Encoder
from editkit.errors import UnsupportedMethod
from editkit.methods.grace.view import GraceView
from editkit_store.artifacts.snapshots import Snapshot
from editkit_store.records import Artifact, Edit, EditReach, EditRequest, MethodName

__all__ = ["SLACK", "Met", "Outcome", "Teacher", "Teachers", "finite"]

SLACK = 4
"""Tokens that verification may generate beyond the target before it gives up on an ending."""

Met = Callable[[int, torch.Tensor], None]
"""Told the key ``(d,)`` float32 of a request, given by its index, before it is learned."""


@dataclass(frozen=True)
class Outcome:
    """What became of one edit.

    Attributes:
        artifact: The record to store.
        payload: Its bytes, ``None`` for an attempt that is not kept.
        view: The view with the edit in it, on which it was verified.
        answer: What free greedy generation gave.
        seconds: Wall-clock seconds for learning (its share of the batch) and verification.
        steps: Optimizer steps.
        snapshot: What the model's adaptors are with it, where it changed them.
        lost: Ids of earlier edits that do not hold since.
    """

    artifact: Artifact
    payload: bytes | None
    view: GraceView
    answer: str
    seconds: float
    steps: int
    snapshot: Snapshot | None = None
    lost: tuple[str, ...] = ()


class Lesson(Protocol):
    """What one request learned."""

    @property
    def encoded(self) -> Encoded:
        """The request as tokens."""

    @property
    def seconds(self) -> float:
        """Its share of the wall-clock seconds."""


class Teacher(Protocol):
    """Learns edits on one model by one method. Lessons are those that it gave itself."""

    batch: int
    """Edits learned together."""

    @property
    def is_pooled(self) -> bool:
        """Whether prompts are looked up by pooled keys, which all methods with them share."""

    def key(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns what a prompt, given as token ids, is looked up by, ``(d,)`` float32."""

    def check(self) -> None:
        """Refuses a model that the method is not for.

        Raises:
            UnsupportedModel: It is.
        """

    def learn(
        self, edits: Sequence[tuple[Edit, Encoded]], *, version: int, met: Met | None = None
    ) -> Sequence[Any]:
        """Returns what each edit learned, on top of what a version has.

        Args:
            edits: The edits, as records and as tokens.
            version: The version.
            met: Told about each of them before it is learned.
        """

    def joined(
        self, view: GraceView, edit: Edit, lesson: Any, older: Sequence[str], version: str
    ) -> GraceView:
        """Returns a view with one more edit, and without older ones of its prompt."""

    def tried(self, lessons: Sequence[Any], *views: GraceView) -> list[Generated]:
        """Returns what the model says with what was learned in place: verification.

        Args:
            lessons: What was learned.
            *views: One view, or one a lesson.
        """

    def settle(
        self,
        edit: Edit,
        lesson: Any,
        view: GraceView,
        generated: Generated,
        *,
        keep: bool = False,
        more: float = 0.0,
    ) -> Outcome:
        """Returns what becomes of a learned edit, given what the model answers with it in place.

        Args:
            edit: The edit.
            lesson: What it learned.
            view: The view that it was tried in.
            generated: The answer there.
            keep: Keep the artifact even if the answer is not the target.
            more: Seconds that its verification took.
        """

    def reach(self, edit: Edit, lesson: Any, view: GraceView) -> EditReach | None:
        """Returns how far an active edit reaches in a view, where that is known."""

    def forget(self, edit_id: str) -> None:
        """Takes out of the memory what an edit learned."""


class Teachers:
    """The methods that a model can be taught by.

    Args:
        name: Name that the model was loaded by.
        fingerprint: Its identity.
        encoder: Its encoder.
        teachers: By the method.
    """

    def __init__(
        self, *, name: str, fingerprint: str, encoder: Encoder, teachers: dict[MethodName, Teacher]
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.encoder = encoder
        self._teachers = teachers

    def of(self, method: MethodName) -> Teacher:
        """Returns what teaches by a method.

        Raises:
            UnsupportedMethod: No such method.
            UnsupportedModel: It is not for this model.
        """
        found = self._teachers.get(method)
        if found is None:
            raise UnsupportedMethod(
                f"there is no method '{method}'", hint=f"methods: {', '.join(self._teachers)}"
            )
        found.check()
        return found

    def share_keys(self) -> bool:
        """Whether all methods look a prompt up by the same key."""
        return all(one.is_pooled for one in self._teachers.values())

    def encode(self, request: EditRequest) -> Encoded:
        """Returns a request as tokens, after refusing what cannot be learned here.

        Raises:
            UnsupportedMethod: No such method, or not for this kind of edit.
            UnsupportedModel: A method that is not for this model.
            InvalidRequest, EmptyTarget, PromptTooLong: See ``Encoder.request``.
        """
        self.of(request.method)
        return self.encoder.request(request)

    def refused(self, edit: Edit, reason: str) -> Artifact:
        """Returns the artifact of an edit that this model could not even try."""
        return Artifact(
            edit_id=edit.id,
            fingerprint=self.fingerprint,
            model=self.name,
            method=edit.method,
            verified=False,
            usable=False,
            metrics={"reason": reason},
        )


def finite(number: float) -> float | None:
    """Infinite and NaN have no JSON; they mean that nothing was learned."""
    return number if abs(number) < float("inf") else None
