"""ELDER on one running model: learning, verification, and the mixture at any version.

The store keeps every edit, so active edits are rehearsed with each batch as needed; see
``methods.elder.learning``. A batch stores its experts as one snapshot; each of its versions uses
the codes of its own edits.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from editkit.engines.base import Encoded, Generated, Keys, Part, Patch, View
from editkit.errors import ArtifactsMissing, UnsupportedModel
from editkit.methods.base import (
    SLACK,
    Change,
    EditMethod,
    LearnedEdit,
    Met,
    MethodContext,
    Relearned,
    finite,
)
from editkit.methods.elder.config import ElderConfig, TrainConfig
from editkit.methods.elder.learner import ElderLearner
from editkit.methods.elder.learning import Example, LearnedState
from editkit.methods.elder.outcome import ElderLesson, LearnedBatch
from editkit.methods.elder.part import ElderPart
from editkit.methods.elder.places import patch_for
from editkit.methods.elder.restore import Adaptors, part_of
from editkit.methods.elder.saved import QueryRows, payload_of, snapshot_of
from editkit.methods.elder.shape import ElderShape
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.tensors import METHOD
from editkit.models.progress import Progress
from editkit.scope.reach import Reaches
from editkit_store.artifacts.snapshots import Snapshot, digest_of
from editkit_store.errors import EditkitError
from editkit_store.history import prompt_digest
from editkit_store.records import DEFAULT_METHOD, Edit, EditReach

__all__ = ["ElderMethod"]

_CLEAR = 0.25
"""Lead in logits that rounding cannot reverse."""


class ElderMethod(EditMethod):
    """Learns a mixture of LoRAs that all edits share.

    Args:
        context: Its environment. Settings are an ``ElderConfig`` or a mapping of its fields;
            ``train``, among them or as a separate argument, is a ``TrainConfig`` or a mapping of
            its fields. Existing adaptors of a history keep their shape.

    Raises:
        ValueError: A setting is out of range.
    """

    name = METHOD
    replaces_alone = True  # so that each version has adaptors that hold all of its edits

    def __init__(self, context: MethodContext) -> None:
        super().__init__(context)
        shape, self._train = _settings(context)
        self._shape = ElderShape(context.preset, shape)
        self._adaptors = Adaptors(self.store, self.engine.fingerprint)
        self._made: tuple[ElderConfig, ElderLearner] | None = None
        self._examples: dict[str, Example] = {}
        self._unrelated: dict[str, list[Encoded]] = {}
        self.batch = self._train.batch_size

    @property
    def shared_by(self) -> str:
        """Key of the adaptors in the store: the bare fingerprint, from when ELDER was alone."""
        return self.engine.fingerprint

    def check(self) -> None:
        """Raises if the model is not a decoder.

        Raises:
            UnsupportedModel: The model is not a decoder.
        """
        if self.engine.layout.family != "decoder":
            raise UnsupportedModel(
                f"ELDER only supports decoders, not {type(self.engine.model).__name__}",
                hint=f"use the method {DEFAULT_METHOD}",
            )

    # Learned edits ----------------------------------------------------------------------------

    def reload(self) -> None:
        """Reads from the store what the model has learned."""
        self._adaptors.reload()
        if self._made is not None:
            config, learner = self._made
            if not self._shape.fits(self._adaptors.settings, config, learner.paths):
                self._made = None
                self._examples.clear()
        settings = self._adaptors.settings
        if settings is not None and settings["query"] == "pooled":
            self.engine.prepare(self.engine.pooled)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._adaptors

    def part(self, edit_ids: Sequence[str], version: int) -> tuple[ElderPart | None, list[str]]:
        """Returns the mixture of edits at a version, and those that its adaptors do not hold."""
        return self._adaptors.of([one for one in edit_ids if one in self._adaptors], version)

    def part_at(self, version: int, change: Change) -> tuple[ElderPart | None, list[str]]:
        """Returns the mixture of a version; see ``EditMethod.part_at``."""
        return self._adaptors.at(version)

    @property
    def patch(self) -> Patch | None:
        """The patch of the adapted layers, once there are any.

        Raises:
            UnknownSite: The model lacks a layer that the adaptors use.
        """
        about = self._adaptors.settings
        if about is None:
            return None
        return patch_for(self.engine.model, self.engine.layout, about["paths"], self.keys)

    # Lookup -----------------------------------------------------------------------------------

    @property
    def keys(self) -> Keys | None:
        """Computes the keys of prompts; None if the routers use hidden states."""
        about = self._adaptors.settings
        query = self._shape.config().query if about is None else about["query"]
        return self.engine.pooled if query == "pooled" else None

    def query(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns the routers' input for a prompt, given as token ids, ``(d,)`` float32."""
        if self.keys is not None:
            with self.engine.paused():
                return torch.from_numpy(np.array(self.engine.pooled.key(prompt)))
        one = Encoded(tuple(prompt), self._ending, "")
        return self._learner()[1].examples([("", [one])])[0].queries[0]

    def words(self, prompt: Sequence[int]) -> tuple[list[str], list[str]] | None:
        """Returns the names and the other words in a prompt's key."""
        return None if self.keys is None else self.engine.pooled.said(prompt)

    @property
    def _ending(self) -> tuple[int, ...]:
        return self.engine.encoder.stop_ids[:1] or (0,)

    # Learning ---------------------------------------------------------------------------------

    def learn(
        self, edits: Sequence[tuple[Edit, Encoded]], *, version: int, met: Met | None = None
    ) -> list[ElderLesson]:
        """Learns edits on top of those of a version; see ``EditMethod.learn``.

        Args:
            edits: The edits, as records and as tokens. An edit that replaces an active one must
                be the only one.
            version: The version.
            met: Called for each edit before it is learned.

        Raises:
            UnsupportedMethod: The history's adaptors have a shape other than the requested one.
        """
        started = time.monotonic()
        learner = self._learner()[1]
        gone = {edit.id for edit, _ in edits}
        for edit, _ in edits:
            gone.update(self.store.history.same_prompt(prompt_digest(edit), version))
        active = [one for one in self._adaptors.active_at(version) if one not in gone]
        base = (self._adaptors.base(version) or learner.blank()).keeping(active)
        self._load_examples(active, base, version)
        for edit, encoded in edits:
            self._add_example(edit, encoded)
        if met is not None:
            for index, (edit, _) in enumerate(edits):
                met(index, self._examples[edit.id].queries[0])
        # Edits of the version that its adaptors do not hold are learned first.
        known = set(base.edit_ids)
        late = [one for one in active if one not in known]
        for start in range(0, len(late), self.batch):
            part = late[start : start + self.batch]
            base = self._batch(base, part, [*base.edit_ids, *part]).learned.state
        batch = self._batch(base, [edit.id for edit, _ in edits], active)
        share = (time.monotonic() - started) / max(1, len(edits))
        return [
            ElderLesson(
                encoded,
                share,
                batch.learned.steps,
                self._examples[edit.id].queries.numpy(),
                batch,
            )
            for edit, encoded in edits
        ]

    def joined(self, part: Part | None, edit: Edit, lesson: ElderLesson) -> ElderPart:
        """Returns a mixture with one more edit."""
        self._adaptors.queries[edit.id] = lesson.queries
        state = lesson.batch.learned.state
        active = lesson.batch.kept
        if isinstance(part, ElderPart) and part.state is state:
            active = part.edit_ids
        return part_of(state, [*active, edit.id])

    def forget(self, edit_id: str) -> None:
        """Discards what was learned for an edit."""
        self._adaptors.queries.pop(edit_id, None)
        self._examples.pop(edit_id, None)
        self._unrelated.pop(edit_id, None)

    def finalize(
        self,
        edit: Edit,
        lesson: ElderLesson,
        view: View,
        generated: Generated,
        *,
        keep: bool = False,
        more: float = 0.0,
    ) -> LearnedEdit:
        """Returns the outcome of a learned edit; see ``EditMethod.finalize``."""
        found = super().finalize(edit, lesson, view, generated, keep=keep, more=more)
        batch = lesson.batch
        return dataclasses.replace(found, snapshot=batch.snapshot, lost=batch.lost)

    def to_bytes(self, edit: Edit, lesson: ElderLesson) -> bytes:
        """Serializes the queries of an edit's wordings; the weights are in the snapshot."""
        return payload_of(lesson.queries)

    def metrics(self, edit: Edit, lesson: ElderLesson) -> dict[str, Any]:
        """Returns steps, margin, loss, lost edits, the snapshot's digest, and the settings."""
        batch = lesson.batch
        return {
            "steps": lesson.steps,
            "margin": finite(batch.learned.leads.get(edit.id, float("inf"))),
            "loss": finite(batch.learned.loss),
            "lost": list(batch.lost),
            "snapshot": digest_of(batch.snapshot),
            "config": self._train.model_dump(mode="json"),
        }

    def reach(self, edit: Edit, lesson: ElderLesson, part: Part) -> EditReach | None:
        """Returns how far an active edit reaches; None if codes alone decide."""
        if not isinstance(part, ElderPart) or part.state.radius is None:
            return None
        keys = self.engine.pooled
        reaches = Reaches(self.engine.encoder, lambda ids: torch.from_numpy(keys.key(ids)), keys)
        prompt, radius = lesson.encoded.prompt, part.state.radius
        return reaches.of(edit, prompt, part, radius=radius, owner=edit.id)

    # Reverting --------------------------------------------------------------------------------

    def revert(
        self, edit_id: str, *, version: int, defer_only: bool, progress: Progress
    ) -> Relearned | None:
        """Returns the adaptors without an edit; see ``EditMethod.revert``.

        They are the adaptors from before it, with all later edits learned again.
        """
        back = self._restored_by_revert(edit_id, version)
        forgotten = [one for one in back if not self._adaptors.knows(one, version)]
        if forgotten and defer_only:
            raise ArtifactsMissing(
                f"without edit '{edit_id}' the older '{back[0]}' would be active again, but the "
                "adaptors have forgotten it",
                missing=tuple(forgotten),
                fingerprint=self.engine.fingerprint,
                known=(self.engine.fingerprint,),
                hint="revert it without defer_only: the older edit is then learned again",
            )
        active = self._adaptors.active_at(version)
        if defer_only or not (edit_id in active or forgotten):
            return None
        wanted = self.store.history.in_order([*(one for one in active if one != edit_id), *back])
        return self._relearn(edit_id, wanted, version, progress)

    def _restored_by_revert(self, edit_id: str, version: int) -> list[str]:
        """Returns the ELDER edit that becomes active again when another is reverted."""
        history = self.store.history
        edit = history.edits([edit_id], at=version)[edit_id]
        peers = history.same_prompt(prompt_digest(edit), version)
        back = peers[1:2] if peers[:1] == [edit_id] else []
        return [one for one in back if one in self._adaptors]

    def _relearn(
        self, edit_id: str, wanted: Sequence[str], version: int, progress: Progress
    ) -> Relearned:
        """Returns the adaptors of some edits, relearned from the state before a given edit."""
        learner = self._learner()[1]
        digest = self._adaptors.before(edit_id, version)
        before = learner.blank() if digest is None else self._adaptors.state(digest)
        state = before.keeping(wanted)
        self._load_examples(wanted, state, version)
        known = set(state.edit_ids)
        later = [one for one in wanted if one not in known]
        snapshot = None
        if digest is not None:
            snapshot = self.store.snapshots.get(digest)
            if state is not before:
                snapshot = self._snapshot(state, snapshot.settings["separation"])
        lost: tuple[str, ...] = ()
        progress.start("Learning again", len(later), "edits")
        try:
            for start in range(0, len(later), self.batch):
                part = later[start : start + self.batch]
                done = self._batch(state, part, [*state.edit_ids, *part])
                state, snapshot, lost = done.learned.state, done.snapshot, done.lost
                progress.advance(len(part))
        finally:
            progress.done()
        return Relearned(snapshot, tuple(later), lost)

    # One batch --------------------------------------------------------------------------------

    def _batch(self, base: ElderState, new: Sequence[str], held: Sequence[str]) -> LearnedBatch:
        """Learns edits on top of a state; their examples, and the state's, must be loaded."""
        learner = self._learner()[1]
        old = [self._examples[one] for one in base.edit_ids]
        fresh = [self._examples[one] for one in new]
        unrelated = [
            prompt for one in (*old, *fresh) for prompt in self._unrelated.get(one.edit_id, ())
        ]
        learned = learner.learn(base, fresh, old, unrelated=unrelated)
        if not self._train.rounds:  # then earlier edits were not checked
            leads = learner.look(learned.state, [*old, *fresh])
            learned = dataclasses.replace(learned, leads=leads)
        snapshot = self._snapshot(learned.state, learned.separation)
        self._adaptors.remember(snapshot, learned.state)
        self.engine.patch(self.name, self.patch)
        return LearnedBatch(learned, snapshot, tuple(held), self._lost(learned, held))

    def _snapshot(self, state: ElderState, separation: tuple[int, int] | None = None) -> Snapshot:
        config, learner = self._learner()
        about = {
            "query": config.query,
            "resolution": self._train.resolution,
            "limit": config.threshold,
            "separation": None if separation is None else list(separation),
        }
        return snapshot_of(state, learner.paths, about=about)

    def _lost(self, learned: LearnedState, held: Sequence[str]) -> tuple[str, ...]:
        """Returns the edits that do not give their target; generates only if the lead is small."""
        doubtful = [one for one in held if learned.leads.get(one, np.inf) <= _CLEAR]
        if not doubtful:
            return ()
        for one in doubtful:  # includes edits of the current batch
            self._adaptors.queries.setdefault(one, self._examples[one].queries.numpy())
        view = View("trial", (part_of(learned.state, held),))
        requests = [self._examples[one].wordings[0] for one in doubtful]
        answers = self.engine.generate(
            [one.prompt for one in requests],
            views=[view],
            max_new_tokens=max(len(one.target) for one in requests) + SLACK,
        )
        pairs = zip(doubtful, requests, answers, strict=True)
        return tuple(edit_id for edit_id, one, answer in pairs if answer.text != one.text)

    def _learner(self) -> tuple[ElderConfig, ElderLearner]:
        if self._made is None:
            config = self._shape.beside(self._adaptors.settings)
            learner = ElderLearner(
                self.engine.model,
                self.engine.layout,
                encoder=self.engine.encoder,
                keys=self.engine.pooled if config.query == "pooled" else None,
                config=config,
                train=self._train,
                paused=self.engine.paused,
            )
            self._made = config, learner
        return self._made

    def _load_examples(self, edit_ids: Sequence[str], state: ElderState, version: int) -> None:
        """Loads the training examples of edits that were learned before."""
        missing = [one for one in edit_ids if one not in self._examples]
        records = self.store.history.edits(missing, at=version)
        place = {edit_id: index for index, edit_id in enumerate(state.edit_ids)}
        for edit_id in missing:
            queries = None
            if edit_id in place:
                assert state.queries is not None
                queries = state.queries[state.owners == place[edit_id]]
            self._add_example(records[edit_id], queries=queries)

    def _add_example(
        self, edit: Edit, encoded: Encoded | None = None, *, queries: QueryRows | None = None
    ) -> None:
        """Builds the training example of an edit."""
        wordings = self._wordings(edit, encoded)
        if queries is not None and len(queries) == len(wordings):
            example = Example(edit.id, wordings, torch.from_numpy(queries))
        else:
            (example,) = self._learner()[1].examples([(edit.id, wordings)])
        self._examples[edit.id] = example
        self._unrelated[edit.id] = self._locality(edit)

    def _wordings(self, edit: Edit, encoded: Encoded | None = None) -> tuple[Encoded, ...]:
        """Returns the prompt and rephrases of an edit with its target, without those too long."""
        encoder = self.engine.encoder
        found = [encoded or encoder.request(edit)]
        for rephrase in edit.rephrases:
            changes: dict[str, Any] = {"prompt": rephrase}
            if edit.chat is not None:
                last = edit.chat[-1].model_copy(update={"content": rephrase})
                changes["chat"] = (*edit.chat[:-1], last)
            try:
                found.append(encoder.request(edit.model_copy(update=changes)))
            except EditkitError:  # empty or too long
                continue
        return tuple(dict.fromkeys(found))

    def _locality(self, edit: Edit) -> list[Encoded]:
        found = []
        for prompt in edit.locality:
            try:
                ids = self.engine.encoder.prompt(prompt)
            except EditkitError:
                continue
            found.append(Encoded(ids, self._ending, ""))
        return found


def _settings(context: MethodContext) -> tuple[ElderConfig | Mapping[str, Any] | None, TrainConfig]:
    """Returns the requested shape of the adaptors and the training settings."""
    shape, train = context.settings, context.arguments.get("train")
    if isinstance(shape, Mapping):
        shape = dict(shape)
        train = shape.pop("train", train)
    if not isinstance(train, TrainConfig):
        train = TrainConfig.of(context.preset, **(train or {}))
    return shape or None, train
