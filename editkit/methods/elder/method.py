"""Learning edits by ELDER on one model, and verifying them.

The store remembers every edit, so all that are active are learned again beside a batch as far as
they need it; see ``methods.elder.learning``. What the experts are then is one snapshot for the
batch, of which each version has the codes of its own edits.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.generator import Generated, Generator
from editkit.engines.transformers.layout import Layout
from editkit.engines.transformers.tokens import Encoded, Encoder
from editkit.errors import UnsupportedModel
from editkit.methods.base import SLACK, Met, Outcome, finite
from editkit.methods.batches import lay_out
from editkit.methods.elder.outcome import Batch, Relearned, Taught
from editkit.methods.elder.restore import Adaptors, view_of
from editkit.methods.elder.saved import Queries, payload_of, snapshot_of
from editkit.methods.elder.shape import ElderShape, adapted
from editkit.methods.elder.state import ElderState, ElderView
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.view import GraceView
from editkit.models.progress import Progress
from editkit.scope.pooled import PooledKeys
from editkit.scope.reach import Reaches
from editkit_store import Store
from editkit_store.artifacts.snapshots import Snapshot, digest_of
from editkit_store.digest import digest_bytes
from editkit_store.errors import EditkitError
from editkit_store.history import prompt_digest
from editkit_store.records import Artifact, Edit, EditReach

if TYPE_CHECKING:  # PEFT takes seconds to load, and most histories do without
    from editkit.config import TrainConfig
    from editkit.methods.elder.config import ElderConfig
    from editkit.methods.elder.learner import ElderLearner
    from editkit.methods.elder.learning import Learned, Lesson

__all__ = ["Adapting"]

_CLEAR = 0.25
"""Lead in logits that no rounding turns."""


class Adapting:
    """Learns edits on one model by ELDER, and verifies them by free generation.

    Args:
        model: The model.
        name: Name that it was loaded by.
        fingerprint: Its identity.
        layout: Its layout.
        store: The history.
        encoder: How its prompts become tokens.
        generator: Asks it.
        attachment: What it follows.
        adaptors: What it has learned.
        pooled: Returns what gives pooled keys of its prompts.
        shape: Of what a new history's adaptors are to be.
        train: How they learn.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        fingerprint: str,
        layout: Layout,
        store: Store,
        encoder: Encoder,
        generator: Generator,
        attachment: Attachment,
        adaptors: Adaptors,
        pooled: Callable[[], PooledKeys],
        shape: ElderShape,
        train: TrainConfig,
    ) -> None:
        self._model = model
        self._name = name
        self._fingerprint = fingerprint
        self._layout = layout
        self._store = store
        self._encoder = encoder
        self._generator = generator
        self._attachment = attachment
        self._adaptors = adaptors
        self._pooled = pooled
        self._shape = shape
        self._train = train
        self._made: tuple[ElderConfig, ElderLearner] | None = None
        self._lessons: dict[str, Lesson] = {}
        self._unrelated: dict[str, list[Encoded]] = {}
        self._place: tuple[Any, ...] | None = None
        self.batch = train.batch_size

    def check(self) -> None:
        """Refuses a model that does not continue a prompt.

        Raises:
            UnsupportedModel: It does not.
        """
        if self._layout.family != "decoder":
            raise UnsupportedModel(
                f"ELDER is for models that continue a prompt, not for {type(self._model).__name__}",
                hint="use the method grace",
            )

    def attach(self) -> None:
        """Has the running model follow the mixtures of its views, if there is anything to mix.

        Raises:
            UnknownSite: The model lacks a layer that the adaptors were learned in.
        """
        about = self._adaptors.settings
        place = None if about is None else (tuple(about["paths"]), about["query"])
        if place == self._place:
            return
        found = None
        if about is not None:
            keys = self._pooled() if about["query"] == "pooled" else None
            _, found = adapted(self._model, self._layout, about["paths"], keys)
        self._attachment.adapt(found)
        self._place = place

    def reload(self) -> None:
        """Does so after its adaptors may have become others, of another shape even.

        Raises:
            UnknownSite: See ``attach``.
        """
        if self._made is not None:
            config, learner = self._made
            if not self._shape.fits(self._adaptors.settings, config, learner.paths):
                self._made = None
                self._lessons.clear()
        self.attach()

    def learn(
        self,
        edits: Sequence[tuple[Edit, Encoded]],
        *,
        version: int,
        met: Met | None = None,
    ) -> list[Taught]:
        """Returns what each edit learned, on top of what a version has; see ``Teacher.learn``.

        Args:
            edits: The edits, as records and as tokens. One that corrects the prompt of an active
                edit comes alone.
            version: The version.
            met: Told about each of them before it is learned.

        Raises:
            UnsupportedMethod: The history's adaptors have another shape than what was asked for.
        """
        started = time.monotonic()
        learner = self._learner()[1]
        gone = {edit.id for edit, _ in edits}
        for edit, _ in edits:
            gone.update(self._store.history.same_prompt(prompt_digest(edit), version))
        active = [one for one in self._adaptors.active_at(version) if one not in gone]
        base = (self._adaptors.base(version) or learner.blank()).keeping(active)
        self._read(active, base, version)
        for edit, encoded in edits:
            self._take(edit, encoded)
        if met is not None:
            for index, (edit, _) in enumerate(edits):
                met(index, self._lessons[edit.id].queries[0])
        # Edits of the version that its adaptors do not know are learned along the way.
        known = set(base.edit_ids)
        late = [one for one in active if one not in known]
        for start in range(0, len(late), self.batch):
            part = late[start : start + self.batch]
            base = self._taught(base, part, [*base.edit_ids, *part]).learned.state
        batch = self._taught(base, [edit.id for edit, _ in edits], active)
        share = (time.monotonic() - started) / max(1, len(edits))
        return [
            Taught(encoded, self._lessons[edit.id].queries.numpy(), share, batch)
            for edit, encoded in edits
        ]

    def restored(self, edit_id: str, *, version: int) -> list[str]:
        """Returns the edit of ELDER that would be active in the place of one that is taken back."""
        history = self._store.history
        edit = history.edits([edit_id], at=version)[edit_id]
        peers = history.same_prompt(prompt_digest(edit), version)
        back = peers[1:2] if peers[:1] == [edit_id] else []
        return [one for one in back if one in self._adaptors]

    def without(self, edit_id: str, *, version: int, bar: Progress) -> Relearned:
        """Returns the adaptors as if an edit had never been.

        They are those from before it, with all that came later learned again.

        Args:
            edit_id: An edit of the version.
            version: The version.
            bar: Told about every edit.
        """
        history, learner = self._store.history, self._learner()[1]
        wanted = [one for one in self._adaptors.active_at(version) if one != edit_id]
        wanted = history.in_order([*wanted, *self.restored(edit_id, version=version)])
        digest = self._adaptors.before(edit_id, version)
        before = learner.blank() if digest is None else self._adaptors.state(digest)
        state = before.keeping(wanted)
        self._read(wanted, state, version)
        known = set(state.edit_ids)
        later = [one for one in wanted if one not in known]
        snapshot = None
        if digest is not None:
            snapshot = self._store.snapshots.get(digest)
            if state is not before:
                snapshot = self._snapshot(state, snapshot.settings["separation"])
        lost: tuple[str, ...] = ()
        bar.start("Learning again", len(later), "edits")
        try:
            for start in range(0, len(later), self.batch):
                part = later[start : start + self.batch]
                done = self._taught(state, part, [*state.edit_ids, *part])
                state, snapshot, lost = done.learned.state, done.snapshot, done.lost
                bar.advance(len(part))
        finally:
            bar.done()
        return Relearned(snapshot, tuple(later), lost)

    def _taught(self, base: ElderState, new: Sequence[str], held: Sequence[str]) -> Batch:
        """Learns edits on top of a state; all of them, and its own, were read."""
        learner = self._learner()[1]
        old = [self._lessons[one] for one in base.edit_ids]
        fresh = [self._lessons[one] for one in new]
        unrelated = [
            prompt for one in (*old, *fresh) for prompt in self._unrelated.get(one.edit_id, ())
        ]
        learned = learner.learn(base, fresh, old, unrelated=unrelated)
        if not self._train.rounds:  # then nobody has looked
            leads = learner.look(learned.state, [*old, *fresh])
            learned = dataclasses.replace(learned, leads=leads)
        snapshot = self._snapshot(learned.state, learned.separation)
        self._adaptors.remember(snapshot, learned.state)
        self.attach()
        return Batch(learned, snapshot, tuple(held), self._lost(learned, held))

    def _snapshot(self, state: ElderState, separation: tuple[int, int] | None = None) -> Snapshot:
        config, learner = self._learner()
        about = {
            "query": config.query,
            "resolution": self._train.resolution,
            "limit": config.threshold,
            "separation": None if separation is None else list(separation),
        }
        return snapshot_of(state, learner.paths, about=about)

    def joined(
        self, view: GraceView, edit: Edit, lesson: Taught, older: Sequence[str], version: str
    ) -> GraceView:
        """Returns a view with one more edit, and without older ones of its prompt."""
        self._adaptors.queries[edit.id] = lesson.queries
        gone = set(older)
        state = lesson.batch.learned.state
        mixture = view.mixture
        active = lesson.batch.kept
        if isinstance(mixture, ElderView) and mixture.state is state:
            active = tuple(mixture.edit_ids)
        mine = [*(one for one in active if one not in gone), edit.id]
        rows = view.rows[~np.isin(view.rows, view.memory.rows(older))]
        return GraceView(version, view.memory, rows, view_of(state, mine))

    def tried(self, lessons: Sequence[Taught], *views: GraceView) -> list[Generated]:
        """Returns what the model says with what was learned in place; see ``Teacher.tried``."""
        requests = [lesson.encoded for lesson in lessons]
        batch = lay_out(self._model, self._layout, requests, replacement="prompt", position=None)
        said = self._generator.drafted(batch, requests, views)
        left = [index for index, one in enumerate(said) if one is None]
        if left:
            limit = max(len(requests[index].target) for index in left) + SLACK
            answers = self._generator.run(
                [requests[index].prompt for index in left],
                views=[views[index] for index in left] if len(views) > 1 else views,
                max_new_tokens=limit,
            )
            for index, answer in zip(left, answers, strict=True):
                said[index] = answer
        return [one for one in said if one is not None]

    def settle(
        self,
        edit: Edit,
        lesson: Taught,
        view: GraceView,
        generated: Generated,
        *,
        keep: bool = False,
        more: float = 0.0,
    ) -> Outcome:
        """Returns what becomes of a learned edit; see ``Teacher.settle``."""
        verified = generated.text == lesson.encoded.text
        usable = verified or keep
        data = payload_of(lesson.queries) if usable else None
        if not usable:
            self.forget(edit.id)
        batch = lesson.batch
        learned = batch.learned
        metrics = {
            "steps": learned.steps,
            "margin": finite(learned.leads.get(edit.id, float("inf"))),
            "loss": finite(learned.loss),
            "seconds": lesson.seconds + more,
            "answer": generated.text,
            "lost": list(batch.lost),
            "snapshot": digest_of(batch.snapshot),
            "config": self._train.model_dump(mode="json"),
        }
        artifact = Artifact(
            edit_id=edit.id,
            fingerprint=self._fingerprint,
            model=self._name,
            method="elder",
            verified=verified,
            usable=usable,
            digest=None if data is None else digest_bytes(data),
            metrics=metrics,
            conflicts={} if usable else None,
        )
        return Outcome(
            artifact,
            data,
            view,
            generated.text,
            lesson.seconds + more,
            learned.steps,
            batch.snapshot,
            batch.lost,
        )

    @property
    def is_pooled(self) -> bool:
        """Whether what routers see of a prompt is its pooled key."""
        about = self._adaptors.settings
        query = self._shape.config().query if about is None else about["query"]
        return bool(query == "pooled")

    def key(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns what routers see of a prompt, given as token ids, ``(d,)`` float32."""
        if self.is_pooled:
            return torch.from_numpy(np.array(self._pooled().key(prompt)))
        ending = self._encoder.stop_ids[:1] or (0,)
        one = Encoded(tuple(prompt), ending, "")
        return self._learner()[1].lessons([("", [one])])[0].queries[0]

    def reach(self, edit: Edit, lesson: Taught, view: GraceView) -> EditReach | None:
        """Returns how far an active edit reaches in a view; None where no radius is known."""
        mixture = view.mixture
        if not isinstance(mixture, ElderView) or mixture.state.radius is None:
            return None
        keys = self._pooled()
        reaches = Reaches(self._encoder, lambda ids: torch.from_numpy(keys.key(ids)), keys)
        return reaches.of_mixture(edit, lesson.encoded.prompt, mixture)

    def forget(self, edit_id: str) -> None:
        """Takes out of the memory what an edit learned."""
        self._adaptors.queries.pop(edit_id, None)
        self._lessons.pop(edit_id, None)
        self._unrelated.pop(edit_id, None)

    def _lost(self, learned: Learned, held: Sequence[str]) -> tuple[str, ...]:
        """Returns which edits do not give their target: asked where a lead leaves doubt."""
        doubtful = [one for one in held if learned.leads.get(one, np.inf) <= _CLEAR]
        if not doubtful:
            return ()
        for one in doubtful:  # those that are learned just now among them
            self._adaptors.queries.setdefault(one, self._lessons[one].queries.numpy())
        view = GraceView("trial", Memory(), np.zeros(0, np.int64), view_of(learned.state, held))
        asked = [self._lessons[one].wordings[0] for one in doubtful]
        said = self._generator.run(
            [one.prompt for one in asked],
            views=[view],
            max_new_tokens=max(len(one.target) for one in asked) + SLACK,
        )
        pairs = zip(doubtful, asked, said, strict=True)
        return tuple(edit_id for edit_id, one, answer in pairs if answer.text != one.text)

    def _learner(self) -> tuple[ElderConfig, ElderLearner]:
        if self._made is None:
            from editkit.methods.elder.learner import ElderLearner

            config = self._shape.beside(self._adaptors.settings)
            self._made = (
                config,
                ElderLearner(
                    self._model,
                    self._layout,
                    encoder=self._encoder,
                    keys=self._pooled() if config.query == "pooled" else None,
                    config=config,
                    train=self._train,
                    paused=self._attachment.paused,
                ),
            )
        return self._made

    def _read(self, edit_ids: Sequence[str], state: ElderState, version: int) -> None:
        """Reads what learning needs of edits that were learned before."""
        missing = [one for one in edit_ids if one not in self._lessons]
        records = self._store.history.edits(missing, at=version)
        place = {edit_id: index for index, edit_id in enumerate(state.edit_ids)}
        for edit_id in missing:
            queries = None
            if edit_id in place:
                assert state.queries is not None
                queries = state.queries[state.owners == place[edit_id]]
            self._take(records[edit_id], queries=queries)

    def _take(
        self, edit: Edit, encoded: Encoded | None = None, *, queries: Queries | None = None
    ) -> None:
        """Notes what learning needs of an edit."""
        from editkit.methods.elder.learning import Lesson

        wordings = self._wordings(edit, encoded)
        if queries is not None and len(queries) == len(wordings):
            lesson = Lesson(edit.id, wordings, torch.from_numpy(queries))
        else:
            (lesson,) = self._learner()[1].lessons([(edit.id, wordings)])
        self._lessons[edit.id] = lesson
        self._unrelated[edit.id] = self._locality(edit)

    def _wordings(self, edit: Edit, encoded: Encoded | None = None) -> tuple[Encoded, ...]:
        """The prompt of an edit and its rephrases, with its target; those too long left out."""
        found = [encoded or self._encoder.request(edit)]
        for rephrase in edit.rephrases:
            changes: dict[str, Any] = {"prompt": rephrase}
            if edit.chat is not None:
                last = edit.chat[-1].model_copy(update={"content": rephrase})
                changes["chat"] = (*edit.chat[:-1], last)
            try:
                found.append(self._encoder.request(edit.model_copy(update=changes)))
            except EditkitError:  # empty, or too long to be asked: nobody will
                continue
        return tuple(dict.fromkeys(found))

    def _locality(self, edit: Edit) -> list[Encoded]:
        found = []
        for prompt in edit.locality:
            try:
                ids = self._encoder.prompt(prompt)
            except EditkitError:
                continue
            found.append(Encoded(ids, self._encoder.stop_ids[:1] or (0,), ""))
        return found
