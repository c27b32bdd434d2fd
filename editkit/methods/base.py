"""The interface of an editing method: how a running model learns to give a target.

A method learns edits, applies those of a version (its *part* of a view), and names the modules that
they change (its *patch*). Requests, verification, the history, undo, replay and serving are the
same for all methods. README.md in this folder is a tutorial for a new method.
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
    from editkit.config import PresetName, ScopeName
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
"""Extra tokens that verification generates beyond the target, waiting for the answer to end."""

Met = Callable[[int, torch.Tensor], None]
"""Called with the index of a request and its query ``(d,)`` float32, before it is learned."""


@dataclass(frozen=True)
class MethodContext:
    """The environment that a method is opened in.

    Attributes:
        engine: The running model.
        store: The history.
        preset: ``default``, or ``paper`` for the published constants.
        settings: The user's settings on top of the preset: an object of the method's own, or a
            mapping of names to values.
        arguments: Settings that were passed as separate arguments; see ``MethodSpec.arguments``.
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
    """What the model learned for one request; methods subclass it.

    Attributes:
        encoded: The request as tokens.
        seconds: Its share of the batch's wall-clock seconds.
        steps: Optimizer steps.
    """

    encoded: Encoded
    seconds: float
    steps: int


@dataclass(frozen=True)
class LearnedEdit:
    """The outcome of learning and verifying one edit.

    Attributes:
        artifact: The record to store.
        payload: Its bytes, ``None`` for an attempt that is not kept.
        view: The view with the edit, on which it was verified.
        answer: The model's answer in free greedy generation.
        seconds: Wall-clock seconds for learning (its share of the batch) and verification.
        steps: Optimizer steps.
        snapshot: The new state of the weights that edits share, if it changed them.
        lost: Ids of earlier edits that no longer hold.
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
    """The state that edits share, after removing one of them.

    Attributes:
        snapshot: The state, None if it holds no edits.
        edits: Edits that were learned again.
        lost: Edits that do not hold.
    """

    snapshot: Snapshot | None
    edits: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """How the active edits of a version differ from those of another version with a known part.

    Attributes:
        part: The method's part at the other version.
        came: Ids of edits that are active only at this version.
        went: Ids of edits that are active only at the other version.
    """

    part: Part | None
    came: Sequence[str] = ()
    went: Sequence[str] = ()


class EditMethod(ABC):
    """An editing method on one running model.

    Args:
        context: Its environment. Nothing is read or computed until ``reload``.

    Attributes:
        name: Name of the method, as registered.
        package: Distribution that provides it, if not editkit.
        batch: Number of edits learned together.
        site: Dotted path of the module that its edits change, if it is a single one.
        scope: How far its edits reach that do not say so themselves, if the user chose.
        has_scopes: Whether edits have scopes of their own, on this model.
        place: Description of where it learns, for a method with several possible places.
        elsewhere: Edits that were learned at another place: description of the place by id.
        replaces_alone: Whether an edit that replaces an active one of the same prompt must be
            learned in a batch of its own.
    """

    name: str
    package: str | None = None
    batch: int = 16
    site: str | None = None
    scope: ScopeName | None = None
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
        """Key under which the store keeps the weights that this model's edits share.

        A method with such weights puts their digest into ``metrics`` as ``snapshot``.
        """
        return f"{self.engine.fingerprint}/{self.name}"

    def settings(self) -> dict[str, str]:
        """Returns descriptions of the settings that differ from the defaults."""
        return {}

    # Learned edits ----------------------------------------------------------------------------

    @abstractmethod
    def reload(self) -> None:
        """Reads from the store what the model has learned.

        Raises:
            StoreDamaged, InvalidRecord: An artifact cannot be read.
            ArtifactsMissing: An artifact does not fit the model.
        """

    @abstractmethod
    def __contains__(self, edit_id: str) -> bool:
        """Returns whether the model has learned an edit with this method."""

    @abstractmethod
    def part(self, edit_ids: Sequence[str], version: int) -> tuple[Part | None, list[str]]:
        """Returns the part of some edits at a version, and the learned edits that it cannot hold.

        Args:
            edit_ids: Ids of active edits, oldest first; those that are not learned are left out.
            version: The version.
        """

    def part_at(self, version: int, change: Change) -> tuple[Part | None, list[str]]:
        """Returns the part of a version's active edits, as ``part`` does.

        Args:
            version: The version.
            change: How it differs from another version with a known part, so that the time can be
                proportional to the difference.
        """
        return self.part(self.store.history.active_ids(version), version)

    @property
    def patch(self) -> Patch | None:
        """Which modules its edits change, and how they are looked up; None if not known yet."""
        return None

    # Lookup -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def keys(self) -> Keys | None:
        """Computes the prompt keys that look up its edits; None if hidden states do."""

    @abstractmethod
    def query(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns the lookup key of a prompt, given as token ids, ``(d,)`` float32."""

    def words(self, prompt: Sequence[int]) -> tuple[list[str], list[str]] | None:
        """Returns the names and the other words in a prompt's key, if it is made of words."""
        return None

    # Learning ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises if the method does not support the model.

        Raises:
            UnsupportedModel: The method does not support the model.
        """
        return

    @abstractmethod
    def learn(
        self, edits: Sequence[tuple[Edit, Encoded]], *, version: int, met: Met | None = None
    ) -> Sequence[Any]:
        """Learns edits; returns for each a ``Lesson`` of the method's own.

        Args:
            edits: The edits, as records and as tokens.
            version: The version that they are added to.
            met: Called for each edit before it is learned.
        """

    @abstractmethod
    def joined(self, part: Part | None, edit: Edit, lesson: Any) -> Part:
        """Returns a part with one more edit, and keeps the edit in memory."""

    @abstractmethod
    def forget(self, edit_id: str) -> None:
        """Discards what was learned for an edit that is not kept."""

    @abstractmethod
    def to_bytes(self, edit: Edit, lesson: Any) -> bytes:
        """Serializes what was learned for ``reload``; deterministic."""

    def metrics(self, edit: Edit, lesson: Any) -> dict[str, Any]:
        """Returns plain data about how an edit was learned, for its artifact record."""
        return {"steps": lesson.steps}

    def verify(self, lessons: Sequence[Any], *views: View) -> list[Generated]:
        """Returns the model's answers with the edits applied, in free greedy generation.

        Args:
            lessons: What was learned.
            *views: One view, or one per lesson.
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
        """Returns accepted drafts, and generates the other answers."""
        found = list(drafted)
        left = [index for index, one in enumerate(found) if one is None]
        if left:
            answers = self.engine.generate(
                [requests[index].prompt for index in left],
                views=[views[index] for index in left] if len(views) > 1 else views,
                max_new_tokens=max(len(requests[index].target) for index in left) + SLACK,
            )
            for index, answer in zip(left, answers, strict=True):
                found[index] = answer
        return [one for one in found if one is not None]

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
        """Returns the outcome of a learned edit, given the model's answer with it.

        Args:
            edit: The edit.
            lesson: What it learned.
            view: The view that it was verified in.
            generated: The answer on that view.
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
        if self.package is not None:  # for the hint where the method is not installed
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
        """Returns the artifact record of an edit on this model.

        Args:
            edit: The edit.
            payload: What it learned; None if that is not kept.
            metrics: How it was learned.
            is_verified: Whether the model gives its target.
            conflicts: Earlier edits whose scopes overlap its own, with the distances of their keys.
            radius: Radius of its scope, L2.
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
        """Returns how far an active edit reaches, if that is known."""
        return None

    def ordered(self, part: Part | None, edit_ids: Sequence[str]) -> Part | None:
        """Returns a part with its edits in the given order, if order matters."""
        return part

    def revert(
        self, edit_id: str, *, version: int, defer_only: bool, progress: Progress
    ) -> Relearned | None:
        """Returns the shared state without an edit; None if nothing changes.

        Args:
            edit_id: The edit, of any method.
            version: The version.
            defer_only: Learn nothing; only take the edit out of every prompt's reach.
            progress: Reports every edit that is learned again.

        Raises:
            ArtifactsMissing: With ``defer_only``, the older edit that would become active again
                was forgotten.
        """
        return None


def finite(number: float) -> float | None:
    """Returns a finite number, or None for infinity and NaN, which JSON does not have."""
    return number if abs(number) < float("inf") else None
