"""What an editing method is: how a running model is made to give a target.

A method learns edits, says what its edits at a version do (its *part* of a view), and where in the
model that goes (its *patch*). Requests, verification, the history, undo, replay and serving are the
same for all methods. The page beside this file, README.md, leads through a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from editkit.engines.base import Encoded, Generated, Keys, Part, Patch, View
from editkit_store.digest import digest_bytes
from editkit_store.records import Artifact, Edit, EditReach

if TYPE_CHECKING:
    from editkit.config import PresetName
    from editkit.engines.learning import LearningEngine
    from editkit.models.progress import Progress
    from editkit_store import Store
    from editkit_store.artifacts.snapshots import Snapshot

__all__ = [
    "SLACK",
    "Change",
    "EditMethod",
    "LearnedEdit",
    "Lesson",
    "Met",
    "MethodContext",
    "Relearned",
    "finite",
]

SLACK = 4
"""Tokens that verification may generate beyond the target before it gives up on an ending."""

Met = Callable[[int, torch.Tensor], None]
"""Called with the index of a request and its query ``(d,)`` float32 before it is learned."""


@dataclass(frozen=True)
class MethodContext:
    """What a method is opened on.

    Attributes:
        engine: The running model, with all that learning needs.
        store: The history.
        preset: ``default``, or ``paper`` for the published constants.
        settings: What was asked for on top of the preset: an object of the method's own, or a
            mapping of names to values.
        arguments: Settings that came as arguments of their own; see ``MethodSpec.arguments``.
        allow_pickle: Whether pickled weights may be read; see ``load_model``.
    """

    engine: LearningEngine
    store: Store
    preset: PresetName = "default"
    settings: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    allow_pickle: bool | None = None


@dataclass(frozen=True)
class Lesson:
    """What one request learned; methods add what they need to it.

    Attributes:
        encoded: The request as tokens.
        seconds: Its share of the wall-clock seconds.
        steps: Optimizer steps.
    """

    encoded: Encoded
    seconds: float
    steps: int


@dataclass(frozen=True)
class LearnedEdit:
    """What became of one edit.

    Attributes:
        artifact: The record to store.
        payload: Its bytes, ``None`` for an attempt that is not kept.
        view: The view with the edit in it, on which it was verified.
        answer: What free greedy generation gave.
        seconds: Wall-clock seconds for learning (its share of the batch) and verification.
        steps: Optimizer steps.
        snapshot: What the weights that edits share are with it, where it changed them.
        lost: Ids of earlier edits that do not hold since.
    """

    artifact: Artifact
    payload: bytes | None
    view: View
    answer: str
    seconds: float
    steps: int
    snapshot: Snapshot | None = None
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relearned:
    """What edits share without one of them.

    Attributes:
        snapshot: What it is, None where it knows nothing.
        edits: Those that were learned again.
        lost: Edits that do not hold.
    """

    snapshot: Snapshot | None
    edits: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """How the active edits of a version differ from those of another whose part is at hand.

    Attributes:
        part: What the method's edits do there.
        came: Ids of edits that are active at the version and not there.
        went: Ids of edits of which the contrary holds.
    """

    part: Part | None
    came: Sequence[str] = ()
    went: Sequence[str] = ()


class EditMethod(ABC):
    """A method on one running model.

    Args:
        context: What it is opened on. Nothing is read or computed until ``reload``.

    Attributes:
        name: What users call it; as registered.
        package: Distribution that it comes from, if that is another than editkit.
        batch: Edits learned together.
        site: Dotted path of the module that its edits go to, where it is one.
        has_scopes: Whether an edit's own scope says how far it reaches, on this model.
        place: Where it learns, in words, for a method that could learn elsewhere too.
        elsewhere: Edits that were learned where the method is not now: by id, the place in words.
        replaces_alone: Whether an edit that replaces an active one of its prompt has to be learned
            by itself.
    """

    name: str
    package: str | None = None
    batch: int = 16
    site: str | None = None
    has_scopes: bool = False
    place: str = ""
    elsewhere: Mapping[str, str]
    replaces_alone: bool = False

    def __init__(self, context: MethodContext) -> None:
        self.engine = context.engine
        self.store = context.store
        self.elsewhere = {}

    @property
    def shared_by(self) -> str:
        """Name under which the store keeps the weights that this model's edits share.

        A method with such weights names their digest as ``snapshot`` in ``metrics``.
        """
        return f"{self.engine.fingerprint}/{self.name}"

    def settings(self) -> dict[str, str]:
        """Returns how it is set where that is not by default, in words."""
        return {}

    # What is known ----------------------------------------------------------------------------

    @abstractmethod
    def reload(self) -> None:
        """Reads from the store what the model has learned.

        Raises:
            StoreDamaged, InvalidRecord: An artifact cannot be read.
            ArtifactsMissing: It does not fit the model.
        """

    @abstractmethod
    def __contains__(self, edit_id: str) -> bool:
        """Returns whether the model has learned an edit by this method."""

    @abstractmethod
    def part(self, edit_ids: Sequence[str], version: int) -> tuple[Part | None, list[str]]:
        """Returns what edits do at a version, and those of them that are known and cannot be done.

        Args:
            edit_ids: Ids of active edits, oldest first; those that are not known are left out.
            version: The version.
        """

    def part_at(self, version: int, change: Change) -> tuple[Part | None, list[str]]:
        """Returns what the active edits of a version do, as ``part`` does.

        Args:
            version: The version.
            change: How it differs from another whose part is at hand: the answer may then take time
                in proportion to that.
        """
        return self.part(self.store.history.active_ids(version), version)

    @property
    def patch(self) -> Patch | None:
        """Where its edits go in the model, and what they are looked up by; None for nowhere yet."""
        return None

    # How prompts are looked up ----------------------------------------------------------------

    @property
    @abstractmethod
    def keys(self) -> Keys | None:
        """What gives the keys of prompts that its edits are looked up by; None of states."""

    @abstractmethod
    def query(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns what a prompt, given as token ids, is looked up by, ``(d,)`` float32."""

    def words(self, prompt: Sequence[int]) -> tuple[list[str], list[str]] | None:
        """Returns the names and the other words that a prompt's key is made of, if it is."""
        return None

    # Learning ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuses a model that the method is not for.

        Raises:
            UnsupportedModel: It is.
        """
        return

    @abstractmethod
    def learn(
        self, edits: Sequence[tuple[Edit, Encoded]], *, version: int, met: Met | None = None
    ) -> Sequence[Any]:
        """Returns what each edit learned, a ``Lesson`` of the method's own.

        Args:
            edits: The edits, as records and as tokens.
            version: The version whose edits are there.
            met: Called for each of them before it is learned.
        """

    @abstractmethod
    def joined(self, part: Part | None, edit: Edit, lesson: Any) -> Part:
        """Returns a part with one more edit, which is remembered from now on."""

    @abstractmethod
    def forget(self, edit_id: str) -> None:
        """Forgets what an edit learned, which is not kept."""

    @abstractmethod
    def to_bytes(self, edit: Edit, lesson: Any) -> bytes:
        """Returns what an edit learned as bytes, which ``reload`` reads; equal ones for equal."""

    def metrics(self, edit: Edit, lesson: Any) -> dict[str, Any]:
        """Returns plain data about how an edit was learned, for the record of it."""
        return {"steps": lesson.steps}

    def verify(self, lessons: Sequence[Any], *views: View) -> list[Generated]:
        """Returns what the model says with what was learned in place, in free greedy generation.

        Args:
            lessons: What was learned.
            *views: One view, or one a lesson.
        """
        requests = [lesson.encoded for lesson in lessons]
        drafted = self.engine.drafted(self.engine.lay_out(requests), requests, views)
        return self.completed(requests, drafted, views)

    def completed(
        self,
        requests: Sequence[Encoded],
        drafted: Sequence[Generated | None],
        views: Sequence[View],
    ) -> list[Generated]:
        """Returns drafts where they stand, and generates where they do not."""
        said = list(drafted)
        left = [index for index, one in enumerate(said) if one is None]
        if left:
            answers = self.engine.generate(
                [requests[index].prompt for index in left],
                views=[views[index] for index in left] if len(views) > 1 else views,
                max_new_tokens=max(len(requests[index].target) for index in left) + SLACK,
            )
            for index, answer in zip(left, answers, strict=True):
                said[index] = answer
        return [one for one in said if one is not None]

    def finalize(
        self,
        edit: Edit,
        lesson: Any,
        view: View,
        generated: Generated,
        *,
        keep: bool = False,
        more: float = 0.0,
    ) -> LearnedEdit:
        """Returns what becomes of a learned edit, given what the model answers with it in place.

        Args:
            edit: The edit.
            lesson: What it learned.
            view: The view that it was verified in.
            generated: The answer there.
            keep: Keep the artifact even if the answer is not the target.
            more: Seconds that its verification took.
        """
        is_verified = generated.text == lesson.encoded.text
        payload = self.to_bytes(edit, lesson) if is_verified or keep else None
        if payload is None:
            self.forget(edit.id)
        seconds = lesson.seconds + more
        metrics = {**self.metrics(edit, lesson), "seconds": seconds, "answer": generated.text}
        if "snapshot" in metrics and self.shared_by != self.engine.fingerprint:
            metrics["shared_by"] = self.shared_by
        if self.package is not None:  # whoever lacks the method is told where to get it
            metrics["package"] = self.package
        artifact = self.artifact(edit, payload, metrics, is_verified=is_verified)
        return LearnedEdit(artifact, payload, view, generated.text, seconds, lesson.steps)

    def artifact(
        self,
        edit: Edit,
        payload: bytes | None,
        metrics: Mapping[str, Any],
        *,
        is_verified: bool,
        conflicts: dict[str, float] | None = None,
        radius: float | None = None,
    ) -> Artifact:
        """Returns the record of what an edit became here.

        Args:
            edit: The edit.
            payload: What it learned; None where that is not kept.
            metrics: How it was learned.
            is_verified: Whether the model gives its target.
            conflicts: Earlier edits whose scopes meet its own, with the distances of their keys.
            radius: How far it reaches, L2.
        """
        is_usable = payload is not None
        return Artifact(
            edit_id=edit.id,
            fingerprint=self.engine.fingerprint,
            model=self.engine.name,
            method=self.name,
            verified=is_verified,
            usable=is_usable,
            digest=None if payload is None else digest_bytes(payload),
            metrics=dict(metrics),
            conflicts=(conflicts or {}) if is_usable else None,
            radius=radius if is_usable else None,
        )

    def reach(self, edit: Edit, lesson: Any, part: Part) -> EditReach | None:
        """Returns how far an active edit reaches, where that is known."""
        return None

    def ordered(self, part: Part | None, edit_ids: Sequence[str]) -> Part | None:
        """Returns a part with its edits in an order, where that counts."""
        return part

    def revert(
        self, edit_id: str, *, version: int, defer_only: bool, progress: Progress
    ) -> Relearned | None:
        """Returns what edits share as if an edit had never been; None where nothing changes.

        Args:
            edit_id: The edit, of any method.
            version: The version.
            defer_only: Learn nothing: from now on no prompt reaches the edit, that is all.
            progress: Told about every edit that is learned again.

        Raises:
            ArtifactsMissing: With ``defer_only``, an older edit would come back that is forgotten.
        """
        return None


def finite(number: float) -> float | None:
    """Returns a number that JSON has; infinity and NaN mean that nothing was learned."""
    return number if abs(number) < float("inf") else None
