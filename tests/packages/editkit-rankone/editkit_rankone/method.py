"""Rank-one edits on one running model."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from editkit.engines.base import Encoded, Keys, Part, Patch
from editkit.engines.learning import Site
from editkit.errors import UnsupportedModel
from editkit.methods.base import (
    Change,
    EditMethod,
    Lesson,
    Met,
    MethodContext,
    finite,
)
from editkit.methods.keyed import KeyedRows, moved
from editkit.scope.general import TEXT
from editkit.scope.radii import RADII
from editkit.scope.reach import Reaches
from editkit_rankone.config import RankOneConfig
from editkit_rankone.learning import Problem, SecondMoment, Solution, solve
from editkit_rankone.part import RankOnePart
from editkit_rankone.payload import Payload
from editkit_rankone.subject import last_token, subject_of
from editkit_store.errors import EditkitError
from editkit_store.records import Artifact, Edit, EditReach

__all__ = ["RankOneMethod"]


@dataclass(frozen=True)
class RankOneLesson(Lesson):
    """What one request learned.

    Attributes:
        solution: How.
        payload: What is kept of it.
    """

    solution: Solution
    payload: Payload


class RankOneMethod(EditMethod):
    """Learns a map of rank one for each edit, beside the feed-forward output of one block.

    Args:
        context: What it is opened on; settings are a ``RankOneConfig`` or a mapping of its fields.
            Where the history has edits of this model, their site goes before the preset's.

    Raises:
        UnknownSite, UnsupportedModel: The model has no such site.
        ValueError: A setting out of its range.
    """

    name = "rankone"
    batch = 8

    def __init__(self, context: MethodContext) -> None:
        super().__init__(context)
        given = context.settings
        self.config = (
            given
            if isinstance(given, RankOneConfig)
            else RankOneConfig.of(context.preset, **(given or {}))
        )
        self._rows = KeyedRows(1)
        self._site: Site | None = None
        if self.engine.encoder.family != "decoder":
            return  # it is not for this model, and is not in the way of others that are
        self._site = self._found_site()
        self.site = self._site.path
        self.place = f"'{self.site}'"
        self.has_scopes = True
        self._reaches = Reaches(self.engine.encoder, self.query, self.engine.pooled)
        self._rows = self._blank()

    def settings(self) -> dict[str, str]:
        """Returns the site, and what differs from the default settings."""
        plain = RankOneConfig().model_dump()
        changed = {
            name: str(value)
            for name, value in self.config.model_dump().items()
            if value != plain[name]
        }
        return {"site": str(self.site), **changed}

    def check(self) -> None:
        """Refuses a model that does not continue a prompt.

        Raises:
            UnsupportedModel: It does not.
        """
        if self._site is None:
            raise UnsupportedModel(
                "rank-one edits are for models that continue a prompt, not for "
                f"{type(self.engine.model).__name__}",
                hint="use the method grace",
            )

    def _found_site(self) -> Site:
        newest = self.store.artifacts.newest(self.engine.fingerprint, method=self.name)
        if self.config.site is not None:
            return self.engine.site(self.config.site)
        if newest is not None:
            return self.engine.site(Payload.from_bytes(newest[1], edit_id=newest[0]).site)
        return self.engine.feed_forward(self.config.depth)

    # What is known ----------------------------------------------------------------------------

    def _blank(self) -> KeyedRows:
        return KeyedRows(self.engine.pooled.width, device=self.engine.device)

    def reload(self) -> None:
        """Reads from the store what the model has learned, at this site and at others."""
        if self._site is None:
            return
        rows, elsewhere = self._blank(), {}
        learned: list[tuple[int, str, Payload]] = []
        for part in self.store.artifacts.usable(self.engine.fingerprint, method=self.name):
            for age, edit_id, _, data in part:
                learned.append((age, edit_id, Payload.from_bytes(data, edit_id=edit_id)))
        for _, edit_id, payload in sorted(learned, key=lambda one: one[0]):
            if payload.site == self.site:
                _put(rows, edit_id, payload)
            else:
                elsewhere[edit_id] = f"'{payload.site}'"
        self._rows, self.elsewhere = rows, elsewhere
        if learned:
            self.engine.prepare(self.engine.pooled)

    def __contains__(self, edit_id: str) -> bool:
        return edit_id in self._rows

    def part(self, edit_ids: Sequence[str], version: int) -> tuple[RankOnePart | None, list[str]]:
        """Returns the maps of edits."""
        return self._part(self._rows.rows(edit_ids)), []

    def part_at(self, version: int, change: Change) -> tuple[RankOnePart | None, list[str]]:
        """Returns the maps of a version; see ``EditMethod.part_at``."""
        known = change.part.rows if isinstance(change.part, RankOnePart) else self._rows.rows(())
        return self._part(moved(self._rows, known, change.came, change.went)), []

    def _part(self, rows: Any) -> RankOnePart | None:
        return RankOnePart(self._rows, rows) if len(rows) else None

    @property
    def patch(self) -> Patch | None:
        """Maps are added to the site's output."""
        return None if self._site is None else Patch("add", (self._site.module,), self.keys)

    # How prompts are looked up ----------------------------------------------------------------

    @property
    def keys(self) -> Keys | None:
        """What gives the keys of prompts: the model's own, which other methods use too."""
        return None if self._site is None else self.engine.pooled

    def query(self, prompt: Sequence[int]) -> torch.Tensor:
        """Returns what a prompt, given as token ids, is looked up by, ``(d,)`` float32."""
        with self.engine.paused():
            return torch.from_numpy(self.engine.pooled.key(prompt))

    def words(self, prompt: Sequence[int]) -> tuple[list[str], list[str]] | None:
        """Returns the names and the other words that a prompt's key is made of."""
        with self.engine.paused():
            return self.engine.pooled.said(prompt)

    # Learning ---------------------------------------------------------------------------------

    def learn(
        self, edits: Sequence[tuple[Edit, Encoded]], *, version: int, met: Met | None = None
    ) -> list[RankOneLesson]:
        """Returns what each edit learned; no other edit counts for it."""
        if met is not None:
            for index, (_, encoded) in enumerate(edits):
                met(index, self.query(encoded.prompt))
        return [self._learned(edit, encoded) for edit, encoded in edits]

    def _learned(self, edit: Edit, encoded: Encoded) -> RankOneLesson:
        started = time.monotonic()
        assert self._site is not None
        solution = solve(
            self.engine, self._site, self._moment, self._problem(edit, encoded), self.config
        )
        key = self.query(encoded.prompt)
        initial = RADII["pooled"][edit.scope or self.config.scope]
        payload = Payload(
            key.numpy(),
            solution.down,
            solution.up,
            self._site.path,
            float(np.float32(self._reaches.radius(edit, key, initial))),
            encoded.target,
            is_confirmed=not edit.rephrases,
        )
        seconds = time.monotonic() - started
        return RankOneLesson(encoded, seconds, solution.steps, solution, payload)

    @functools.cached_property
    def _moment(self) -> SecondMoment:
        assert self._site is not None
        prompts = []
        for line in filter(str.strip, TEXT.splitlines()):
            try:
                prompts.append(self.engine.encoder.prompt(line))
            except EditkitError:  # longer than a small model takes
                continue
        states = self.engine.states(self._site.module, prompts)
        return SecondMoment(torch.cat(states), self.config.ridge)

    def _problem(self, edit: Edit, encoded: Encoded) -> Problem:
        encoder = self.engine.encoder
        with self.engine.paused():
            said = self.engine.pooled.said(encoded.prompt)
        subject = subject_of(edit, edit.prompt, said)
        asked = [f"{prefix} {edit.prompt}" for prefix in self.config.prefixes]
        begun = [encoded, *(one for text in asked if (one := self._behind(edit, text)))]
        others = edit.rephrases[: self.config.rephrases]
        rephrased = [one for text in others if (one := self._behind(edit, text))]
        essence = None
        if self.config.kl and encoder.stop_ids:
            prompt = encoder.prompt(f"{subject} is a")
            essence = Encoded(prompt, encoder.stop_ids[:1], "")
        places = tuple(last_token(encoder, one.prompt, subject) for one in begun)
        return Problem((*begun, *rephrased), places, essence)

    def _behind(self, edit: Edit, prompt: str) -> Encoded | None:
        """Returns an edit's target behind another prompt; None where the model takes no such."""
        changes: dict[str, Any] = {"prompt": prompt}
        if edit.chat is not None:
            last = edit.chat[-1].model_copy(update={"content": prompt})
            changes["chat"] = (*edit.chat[:-1], last)
        try:
            return self.engine.encoder.request(edit.model_copy(update=changes))
        except EditkitError:
            return None

    def joined(self, part: Part | None, edit: Edit, lesson: RankOneLesson) -> RankOnePart:
        """Returns a part with one more edit, which is remembered from now on."""
        row = _put(self._rows, edit.id, lesson.payload)
        known = part.rows if isinstance(part, RankOnePart) else self._rows.rows(())
        return RankOnePart(self._rows, np.append(known, row))

    def forget(self, edit_id: str) -> None:
        """Forgets what an edit learned."""
        self._rows.discard(edit_id)

    def to_bytes(self, edit: Edit, lesson: RankOneLesson) -> bytes:
        """Returns the two vectors of the map, and what it is looked up by."""
        return lesson.payload.to_bytes()

    def metrics(self, edit: Edit, lesson: RankOneLesson) -> dict[str, Any]:
        """Returns steps, margin and loss, the norm of the map, the site, and the settings."""
        return {
            "steps": lesson.steps,
            "margin": finite(lesson.solution.margin),
            "loss": finite(lesson.solution.loss),
            "norm": lesson.payload.norm,
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
    ) -> Artifact:
        """Returns the record of what an edit became here, with its radius."""
        if payload is not None:
            radius = self._rows.radius(self._rows.row(edit.id))
        return super().artifact(
            edit, payload, metrics, is_verified=is_verified, conflicts=conflicts, radius=radius
        )

    def reach(self, edit: Edit, lesson: RankOneLesson, part: Part) -> EditReach:
        """Returns how far an active edit reaches."""
        radius = self._rows.radius(self._rows.row(edit.id))
        return self._reaches.of(edit, lesson.encoded.prompt, part, radius=radius, owner=edit.id)


def _put(rows: KeyedRows, edit_id: str, payload: Payload) -> int:
    return rows.put(
        edit_id,
        payload.key,
        payload.radius,
        payload,
        target=payload.target,
        is_confirmed=payload.is_confirmed,
    )
