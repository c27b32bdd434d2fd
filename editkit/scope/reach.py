"""How far an edit reaches: what its radius covers of what was given with it, and what else.

Radii are calibrated by what the caller knows: a rephrasing that lies outside is taken in, up to a
limit, and a probe that must not change is left out. What an edit does beyond is estimated from its
key: questions that share one part of it, and ordinary sentences, which share none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from editkit.errors import PromptTooLong
from editkit.scope.general import TEXT
from editkit.scope.keys import PromptKeys
from editkit_store.records import Edit, EditReach

if TYPE_CHECKING:
    from editkit.engines.base import Part, TokenEncoder

__all__ = ["Reaches", "calibrated", "false_fires"]

_FARTHEST = 1.1
"""Radius beyond which no rephrasing draws an edit with a key of its prompt: a cosine of 0.4."""

_HAIR = 0.01
"""Distance by which a rephrasing lies inside, and a probe outside."""


class Reaches:
    """Tells how far edits reach on one model.

    Args:
        encoder: The model's.
        key: Returns what a prompt, given as token ids, is looked up by.
        keys: Where keys of prompts come from; None of hidden states.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        key: Callable[[Sequence[int]], torch.Tensor],
        keys: PromptKeys | None,
    ) -> None:
        self._encoder = encoder
        self._key = key
        self._keys = keys

    def radius(self, edit: Edit, key: torch.Tensor, initial: float) -> float:
        """Returns the radius that an edit begins with, given what came with it.

        Args:
            edit: The edit, with its rephrases and locality probes.
            key: ``(d,)`` float32, its key.
            initial: Radius of an edit without any.
        """
        # How far apart hidden states of rephrasings lie says little about what lies between them.
        farthest = initial if self._keys is None else max(initial, _FARTHEST)
        rephrases, probes = (
            [float((found - key).norm()) for found in self._found(prompts)]
            for prompts in (edit.rephrases, edit.locality)
        )
        return calibrated(initial, rephrases, probes, farthest=farthest)

    def of(
        self, edit: Edit, prompt: Sequence[int], part: Part, *, radius: float, owner: str
    ) -> EditReach:
        """Returns how far an active edit reaches.

        Args:
            edit: The edit, with its rephrases and locality probes.
            prompt: Its prompt as token ids.
            part: What the edits of its method do.
            radius: How far it reaches, L2.
            owner: The edit that fires for its prompt: itself, or one that it shares a scope with.
        """
        key = self._key(prompt)
        rephrases, probes = self._found(edit.rephrases), self._found(edit.locality)
        asked = [*rephrases, *probes]
        fired = part.select(torch.stack(asked)).fired if asked else []
        is_mine = [number >= 0 and part.edit_id(number) == owner for number in fired]
        covered = sum(is_mine[: len(rephrases)])
        spared = len(probes) - sum(is_mine[len(rephrases) :])
        others = [(one.edit_id, one.distance) for one in part.near(key, 2) if one.edit_id != owner]
        nearest = min(others, key=lambda one: one[1], default=None)
        return self._told(edit, prompt, key, radius, covered, spared, nearest)

    def _told(
        self,
        edit: Edit,
        prompt: Sequence[int],
        key: torch.Tensor,
        radius: float,
        covered: int,
        spared: int,
        nearest: tuple[str, float] | None,
    ) -> EditReach:
        """Returns the record of a reach; see ``EditReach`` for what the arguments are."""
        subject: float | None = None
        question: float | None = None
        unrelated: float | None = None
        if self._keys is not None:
            subject, question = self._keys.told_apart(prompt)
            unrelated = false_fires(key.numpy(), self._sentences, radius)
        return EditReach(
            radius=radius,
            rephrases=len(edit.rephrases),
            covered=covered,
            probes=len(edit.locality),
            spared=spared,
            nearest_edit=nearest[0] if nearest else None,
            nearest_distance=nearest[1] if nearest else None,
            other_subject=subject,
            other_question=question,
            false_fires=unrelated,
            summary=_in_words(
                radius=radius,
                rephrases=len(edit.rephrases),
                covered=covered,
                probes=len(edit.locality),
                spared=spared,
                other_subject=subject,
                other_question=question,
                unrelated=unrelated,
                nearest=nearest,
            ),
        )

    @functools.cached_property
    def _sentences(self) -> npt.NDArray[np.float32]:
        """Keys of sentences that have nothing to do with any edit, ``(n, d)``."""
        lines = filter(None, map(str.strip, TEXT.splitlines()))
        return np.stack([self._key(self._encoder.prompt(line)).numpy() for line in lines])

    def _found(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Returns the keys of prompts; one too long to be asked is beyond any reach."""
        found = []
        for prompt in filter(str.strip, prompts):
            try:
                found.append(self._key(self._encoder.prompt(prompt)))
            except PromptTooLong:
                continue
        return found


def calibrated(
    radius: float, rephrases: Sequence[float], probes: Sequence[float], *, farthest: float
) -> float:
    """Returns the radius of an edit, given how far from its key other prompts lie.

    Args:
        radius: What it would be, L2.
        rephrases: Distances of prompts that it should apply to.
        probes: Distances of prompts that it must not apply to. They have the last word, but where
            one has the very key of the edit no radius helps.
        farthest: No rephrasing makes it larger than this.
    """
    wanted = [distance + _HAIR for distance in rephrases if distance + _HAIR <= farthest]
    radius = max([radius, *wanted])
    limits = [distance - _HAIR for distance in probes if distance > 2 * _HAIR]
    return min([radius, *limits])


def false_fires(
    key: npt.NDArray[np.float32], others: npt.NDArray[np.float32], radius: float
) -> float:
    """Returns the estimated share of unrelated prompts that lie within a radius of a key.

    The tail of the normal distribution of the key's cosines with ordinary sentences.

    Args:
        key: ``(d,)`` of unit length.
        others: ``(n, d)``, keys of the sentences.
        radius: L2.
    """
    cosines = others @ key
    spread = max(float(cosines.std(ddof=1)), 1e-6)
    least = 1 - radius**2 / 2
    return NormalDist().cdf((float(cosines.mean()) - least) / spread)


def _in_words(
    *,
    radius: float,
    rephrases: int,
    covered: int,
    probes: int,
    spared: int,
    nearest: tuple[str, float] | None,
    other_subject: float | None,
    other_question: float | None,
    unrelated: float | None,
) -> str:
    """Returns the reach of an edit in words; see ``EditReach`` for what the arguments are."""
    parts = []
    if rephrases:
        parts.append(f"fires for {covered} of {rephrases} rephrases given")
        if covered < rephrases:  # a probe or another edit is nearer than they are
            parts.append("what it does not reach needs an edit of its own")
    if probes:
        parts.append(f"leaves {spared} of {probes} probes alone")
    if other_subject is not None:
        word = "fires" if other_subject <= radius else "does not fire"
        parts.append(f"{word} for the same question about something else")
    if other_question is not None and other_subject is not None:
        word = "fires" if other_question <= radius else "does not fire"
        parts.append(f"{word} for other questions about the same subject")
    if unrelated is not None:
        parts.append(f"fires for {_share(unrelated)} unrelated prompts")
    if nearest is not None:
        parts.append(f"the nearest other edit, {nearest[0][:12]}, is {nearest[1]:.2g} away")
    return "; ".join(parts) or "nothing is known but its radius"


def _share(share: float) -> str:
    if share < 1e-4:
        return "fewer than 1 in 10,000"
    return f"about 1 in {round(1 / share):,}" if share < 0.5 else f"{share:.0%} of"
