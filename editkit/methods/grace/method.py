"""GRACE on one running model: learning, verification, and the codebook at any version."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from editkit.engines.base import Encoded, Generated, Part, Patch, View
from editkit.engines.transformers.batches import Batch, lay_out
from editkit.engines.transformers.site import default_site, find_site
from editkit.errors import ArtifactsMissing, UnsupportedModel
from editkit.methods.base import (
    Change,
    EditMethod,
    LearnedEdit,
    Lesson,
    Met,
    MethodContext,
    finite,
)
from editkit.methods.grace import learning
from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.config import GraceConfig, KeyName
from editkit.methods.grace.contexts import contexts
from editkit.methods.grace.learning import LearnedValue
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.part import GracePart
from editkit.methods.grace.payload import METHOD, GracePayload, Place
from editkit.methods.grace.restore import learned_encoder, learned_place, load_memories
from editkit.methods.keyed import moved
from editkit.models.sentences import SentenceEncoder
from editkit.scope.information import has_words
from editkit.scope.keys import PromptKeys
from editkit.scope.reach import Reaches
from editkit.scope.sentences import SentenceKeys
from editkit_store import Store
from editkit_store.records import Edit, EditReach

__all__ = ["BATCH", "GraceLesson", "GraceMethod"]

_FIRST_TOKEN = 0.2
"""Fraction of the radius for a prompt of one token.

The first token of many decoders is an attention sink, whose state hardly depends on the token: in
SmolLM2 the keys of two such prompts are 3 to 6% of their norm apart, so the full radius would reach
them all.
"""


BATCH = 64
"""Edits learned together: a replay commits them together, `add_many` one by one."""

_ROWS = BATCH
_TOKENS = 2048
"""Size of one optimization problem: edits, and tokens with padding. A batch takes as many steps as
its slowest edit, so large ones waste least; the token limit bounds the memory."""

_VERIFIED = 16
"""Edits verified per batch."""

_SUPPORTED = {
    "pooled": "decoders",
    "text": "classifiers whose tokenizer knows words",
    "sentence": "decoders, or classifiers whose tokenizer knows words",
}

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GraceLesson(Lesson):
    """The value learned for one request.

    Attributes:
        value: Key and value.
        batch: The requests learned together, with the model's cached activations.
        row: Row of the request in it.
    """

    value: LearnedValue
    batch: Batch
    row: int


class GraceMethod(EditMethod):
    """Learns a value for each edit at one site.

    Args:
        context: Its environment; settings are a ``GraceConfig`` or a mapping of its fields. If the
            history has edits of this model, their site and keys override the preset's.

    Raises:
        UnknownSite, UnsupportedModel: The model has no such site, or no such keys.
        ValueError: A setting is out of range.
    """

    name = METHOD
    batch = BATCH

    def __init__(self, context: MethodContext) -> None:
        super().__init__(context)
        self.config = _config(context)
        model = self.engine.model
        self._site = (
            find_site(model, self.config.site)
            if self.config.site
            else default_site(model, preset=context.preset)
        )
        self.site = self._site.path
        self._kind = _kind_of_key(context, self.config)
        self._keys: PromptKeys | None = None if self._kind == "state" else self.engine.pooled
        if self._kind == "sentence":
            encoder = SentenceEncoder(
                self.config.sentence_encoder, allow_pickle=context.allow_pickle
            )
            self._keys = SentenceKeys(self.engine.pooled, encoder)
        self.has_scopes = self._keys is not None
        self.scope = self.config.scope if "scope" in self.config.model_fields_set else None
        position = self.config.position or self.engine.layout.position
        key = "state" if self._keys is None else self._keys.kind
        self._place: Place = (self.site, position, key)
        self.place = _describe(self._place)
        self._reaches = Reaches(self.engine.encoder, self.query, self._keys)
        self._memory = Memory(device=self.engine.device)

    def settings(self) -> dict[str, str]:
        """Returns the site, and the settings that differ from the defaults."""
        plain = GraceConfig().model_dump()
        changed = {
            name: str(value)
            for name, value in self.config.model_dump().items()
            if value != plain[name]
        }
        return {"site": str(self.site), **changed}

    # Learned edits ----------------------------------------------------------------------------

    def reload(self) -> None:
        """Reads from the store what the model has learned, at this site and at others."""
        device = self.engine.device
        memories = load_memories(self.store, self.engine.fingerprint, device=device)
        self._memory = memories.pop(self._place, Memory(device=device))
        self.elsewhere = {
            memory.edit_id(row): _describe(place)
            for place, memory in memories.items()
            for row in range(len(memory))
        }
        if len(self._memory):
            self._check_widths()
            if self._keys is not None:
                self.engine.prepare(self._keys)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._memory

    def part(self, edit_ids: Sequence[str], version: int) -> tuple[GracePart | None, list[str]]:
        """Returns the codebook of edits, oldest first if order matters."""
        return self._part(self._memory.rows(edit_ids)), []

    def part_at(self, version: int, change: Change) -> tuple[GracePart | None, list[str]]:
        """Returns the codebook of a version; see ``EditMethod.part_at``."""
        rows = change.part.rows if isinstance(change.part, GracePart) else np.zeros(0, np.int64)
        if not change.came and not change.went:
            return self._part(rows), []
        if self._memory.is_ordered:  # the fold depends on the order, so it is computed in full
            return self.part(self.store.history.active_ids(version), version)
        return self._part(moved(self._memory, rows, change.came, change.went)), []

    def _part(self, rows: Rows) -> GracePart | None:
        return GracePart(self._memory, rows) if len(rows) else None

    @property
    def patch(self) -> Patch:
        """Replaces the site's output; prompts are looked up by keys, or by the site's input."""
        return Patch("replace", (self._site.module,), self._keys, position=self.config.position)

    def _check_widths(self) -> None:
        payload = self._memory.payload(0)
        found = (len(payload.entry.key), len(payload.value))
        width = self._site.inputs if self._keys is None else self._keys.width
        wanted = (width, self._site.width)
        if found != wanted:
            raise ArtifactsMissing(
                f"'{self.site}' needs keys of width {wanted[0]} and values of width {wanted[1]}, "
                f"but the history's edits there have widths {found[0]} and {found[1]}",
                missing=(payload.entry.edit_id,),
                fingerprint=self.engine.fingerprint,
                known=(self.engine.fingerprint,),
                hint="the module is not the one that the edits were learned at",
            )

    # Lookup -----------------------------------------------------------------------------------

    @property
    def keys(self) -> PromptKeys | None:
        """Computes the keys of prompts; None if hidden states at the site are the keys."""
        return self._keys

    def query(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns the lookup key of a prompt, ``(d,)`` float32; a state takes a forward pass.

        Args:
            prompt: Token ids.
        """
        if self._keys is not None:
            with self.engine.paused():
                return torch.from_numpy(self._keys.key(prompt))
        position = self.config.position
        return learning.query(self.engine.model, self._site, prompt, position=position)

    def words(self, prompt: Sequence[int]) -> tuple[list[str], list[str]] | None:
        """Returns the names and the other words in a prompt's key."""
        return None if self._keys is None else self._keys.said(prompt)

    # Learning ---------------------------------------------------------------------------------

    def learn(
        self, edits: Sequence[tuple[Edit, Encoded]], *, version: int = 0, met: Met | None = None
    ) -> list[GraceLesson]:
        """Learns edits, independently of all others; see ``EditMethod.learn``."""
        encoded = [one for _, one in edits]
        lessons: dict[int, GraceLesson] = {}
        # An existing edit must not fire while another is learned: only one edit fires in a
        # sequence, and training sequences contain targets after the prompts.
        with self.engine.paused():
            for indices in _learning_groups(encoded):
                started = time.monotonic()
                chosen = [edits[index][0] for index in indices]
                others, owners = contexts(chosen, self.engine.encoder, self.config.contexts)
                batch = lay_out(
                    self.engine.model,
                    self.engine.layout,
                    [*(encoded[index] for index in indices), *others],
                    replacement=self.config.replacement,
                    position=self.config.position,
                )
                keys = None
                if self._keys is not None:
                    keys = torch.stack([self.query(encoded[index].prompt) for index in indices])
                values = learning.optimize(
                    batch,
                    self._site,
                    self.config,
                    owners=owners,
                    keys=keys,
                    met=_notify_each(indices, met),
                )
                if others:  # what is verified is the edits' own prompts
                    batch = batch.select(torch.arange(len(indices)))
                share = (time.monotonic() - started) / len(indices)
                for row, (index, value) in enumerate(zip(indices, values, strict=True)):
                    lessons[index] = GraceLesson(
                        encoded[index], share, value.steps, value, batch, row
                    )
        return [lessons[index] for index in range(len(encoded))]

    def joined(self, part: Part | None, edit: Edit, lesson: GraceLesson) -> GracePart:
        """Returns a codebook with one more edit."""
        row = self._remember(edit, lesson)
        rows = part.rows if isinstance(part, GracePart) else np.zeros(0, np.int64)
        return GracePart(self._memory, np.append(rows, row))

    def forget(self, edit_id: str) -> None:
        """Removes an edit from the memory."""
        self._memory.discard(edit_id)

    def ordered(self, part: Part | None, edit_ids: Sequence[str]) -> Part | None:
        """Returns a codebook with its rows in the order of the edits."""
        if not isinstance(part, GracePart):
            return part
        rows = self._memory.rows(edit_ids)
        return self._part(rows[np.isin(rows, part.rows)])

    def verify(self, lessons: Sequence[GraceLesson], *views: View) -> list[Generated]:
        """Returns the model's answers with the edits applied; see ``EditMethod.verify``."""
        requests = [lesson.encoded for lesson in lessons]
        drafted: list[Generated | None] = [None] * len(lessons)
        for indices in _verification_groups(lessons):
            # The batch still holds the activations from learning.
            batch, rows = lessons[indices[0]].batch, [lessons[i].row for i in indices]
            if rows != list(range(len(batch))):
                batch = batch.select(torch.tensor(rows))
            seen = [views[i] for i in indices] if len(views) > 1 else views
            answers = self.engine.drafted(batch, [requests[i] for i in indices], seen)
            for index, answer in zip(indices, answers, strict=True):
                drafted[index] = answer
        return self.completed(requests, drafted, views)

    def finalize(
        self,
        edit: Edit,
        lesson: GraceLesson,
        view: View,
        generated: Generated,
        *,
        keep: bool = False,
        more: float = 0.0,
    ) -> LearnedEdit:
        """Returns the outcome of a learned edit; see ``EditMethod.finalize``."""
        part = view.part(self.name)
        assert isinstance(part, GracePart)
        row = self._memory.row(edit.id)
        if not part.owns_row(row) and generated.text != lesson.encoded.text:
            # The value of the shared row, learned from another prompt, does not work here.
            new = self._remember(edit, lesson, owns_row=True)
            view = view.replacing(self.name, part.of(np.where(part.rows == row, new, part.rows)))
            (generated,) = self.verify([lesson], view)
        return super().finalize(edit, lesson, view, generated, keep=keep, more=more)

    def to_bytes(self, edit: Edit, lesson: GraceLesson) -> bytes:
        """Serializes key and value as safetensors bytes; see ``GracePayload``."""
        return self._memory.payload(self._memory.row(edit.id)).to_bytes()

    def metrics(self, edit: Edit, lesson: GraceLesson) -> dict[str, Any]:
        """Returns steps, margin and loss, the site, and the settings."""
        return {
            "steps": lesson.steps,
            "margin": finite(lesson.value.margin),
            "loss": finite(lesson.value.loss),
            "carries": lesson.value.carries,
            "site": self.site,
            "config": self.config.model_dump(mode="json"),
        }

    def artifact(
        self,
        edit: Edit,
        payload: bytes | None,
        metrics: Mapping[str, Any],
        *,
        is_verified: bool,
        conflicts: dict[str, float] | None = None,
        radius: float | None = None,
    ) -> Any:
        """Returns the artifact record of an edit, with its radius and conflicts."""
        if payload is not None:
            row = self._memory.row(edit.id)
            conflicts = self._memory.conflicts(row)
            radius = self._memory.payload(row).entry.radius
        return super().artifact(
            edit, payload, metrics, is_verified=is_verified, conflicts=conflicts, radius=radius
        )

    def reach(self, edit: Edit, lesson: GraceLesson, part: Part) -> EditReach:
        """Returns how far an active edit reaches."""
        assert isinstance(part, GracePart)
        row = self._memory.row(edit.id)
        prompt = lesson.encoded.prompt
        if not part.owns_row(row):  # rule `paper`: it shares another edit's row
            row = part.select(self.query(prompt)[None]).fired[0]
        radius, owner = part.radius(row), part.edit_id(row)
        return self._reaches.of(edit, prompt, part, radius=radius, owner=owner)

    def _remember(self, edit: Edit, lesson: GraceLesson, *, owns_row: bool = False) -> int:
        """Adds an edit to the memory; returns its row."""
        value = lesson.value
        entry = Entry(
            edit_id=edit.id,
            key=value.key.numpy(),
            target=lesson.encoded.target,
            radius=self._radius(edit, value, lesson.encoded),
            rule=self.config.rule_for(self._kind),
            owns_row=owns_row,
        )
        site, position, key = self._place
        payload = GracePayload(
            entry,
            value.value.numpy(),
            site,
            self.config.replacement,
            cast(Any, position),
            key,
            is_confirmed=not edit.rephrases,
        )
        return self._memory.put([payload])[0]

    def _radius(self, edit: Edit, value: LearnedValue, encoded: Encoded) -> float:
        radius = self.config.initial_radius(self._kind, edit.scope)
        if self.config.units == "activation" and self._keys is None:
            radius *= float(value.key.norm())
            if len(encoded.prompt) == 1 and self.engine.encoder.family == "decoder":
                radius *= _FIRST_TOKEN
        radius = self._reaches.radius(edit, value.key, radius)
        return float(np.float32(radius))  # as it is stored and compared


def _config(context: MethodContext) -> GraceConfig:
    """Returns the settings, with the site of the history's edits unless the user set one.

    All edits of a model share one site. If a preset or a newer editkit chose another by default,
    existing edits would be out of reach.
    """
    given = context.settings
    if isinstance(given, GraceConfig):
        config, chosen = given, given.model_fields_set
    else:
        config, chosen = GraceConfig.of(context.preset, **(given or {})), set(given or {})
    return config.model_copy(
        update={
            name: value
            for name, value in _learned_settings(context.store, context.engine.fingerprint).items()
            if name not in chosen
        }
    )


def _learned_settings(store: Store, fingerprint: str) -> dict[str, Any]:
    """Returns the settings of a model's newest edit that later edits must share."""
    place = learned_place(store, fingerprint)
    if place is None:
        return {}
    known = {"site": place[0], "position": place[1], "key": place[2].partition(":")[0]}
    encoder = learned_encoder(store, fingerprint) if known["key"] == "sentence" else None
    return known if encoder is None else {**known, "sentence_encoder": encoder}


def _kind_of_key(context: MethodContext, config: GraceConfig) -> KeyName:
    """Returns the kind of key that edits use.

    Raises:
        UnsupportedModel: The requested keys do not exist for the model's inputs.
    """
    engine = context.engine
    family = engine.encoder.family
    default: KeyName = "state"
    if family == "decoder":
        default = "pooled"
    # A decoder itself gives the information of its tokens; for others the vocabulary must.
    elif family == "classifier" and has_words(engine.tokenizer):
        default = "text"
    if config.key is None or config.key in ("state", default):
        return config.key or default
    if default == "state" or config.key != "sentence":
        raise UnsupportedModel(
            f"{config.key} keys need {_SUPPORTED[config.key]}, not "
            f"{type(engine.model).__name__}{'' if default != 'state' else ' and its tokenizer'}",
            hint=f"leave `key` out, or set it to '{default}'",
        )
    return config.key


def _describe(place: Place) -> str:
    site, position, key = place
    return f"'{site}' with the {position} token as the query and {key} keys"


def _learning_groups(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Yields batches of request indices, of similar length to minimize padding."""
    lengths = [len(request.prompt) + len(request.target) for request in encoded]
    group: list[int] = []
    for index in sorted(range(len(encoded)), key=lambda index: lengths[index]):
        if group and (len(group) == _ROWS or (len(group) + 1) * lengths[index] > _TOKENS):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _verification_groups(lessons: Sequence[GraceLesson]) -> Iterator[list[int]]:
    """Yields groups of lesson indices to verify together: of one batch, with similar targets."""

    def batch(index: int) -> int:
        return id(lessons[index].batch)

    order = sorted(
        range(len(lessons)), key=lambda index: (batch(index), len(lessons[index].encoded.target))
    )
    for _, found in itertools.groupby(order, batch):
        indices = list(found)
        for at in range(0, len(indices), _VERIFIED):
            yield indices[at : at + _VERIFIED]


def _notify_each(indices: Sequence[int], met: Met | None) -> Callable[[torch.Tensor], None] | None:
    if met is None:
        return None

    def notify(keys: torch.Tensor) -> None:
        for index, key in zip(indices, keys, strict=True):
            met(index, key)

    return notify
