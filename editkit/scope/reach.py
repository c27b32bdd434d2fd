"""How far an edit reaches: its radius, and estimates of what it covers.

Radii are calibrated on the user's examples: a radius grows to include a rephrase, up to a limit,
and shrinks to exclude a locality probe. The effect on other prompts is estimated from the key: for
questions that share one part of it, and for ordinary sentences, which share none.
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
"""Maximum radius to which rephrases can extend an edit with a prompt key: a cosine of 0.4."""

_MARGIN = 0.01
"""Distance by which a rephrase is inside the radius, and a probe outside."""


class Reaches:
    """Computes how far edits reach on one model.

    Args:
        encoder: Token encoder of the model.
        key: Returns the lookup key of a prompt, given as token ids.
        keys: The prompt keys; None for hidden states.
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
        """Returns the initial radius of an edit, calibrated on its rephrases and probes.

        Args:
            edit: The edit, with its rephrases and locality probes.
            key: ``(d,)`` float32, its key.
            initial: Radius of an edit without any.
        """
        # For hidden states, the distance of rephrases says little about what lies in between.
        farthest = initial if self._keys is None else max(initial, _FARTHEST)
        rephrases, probes = (
            [float((found - key).norm()) for found in self._keys_of(prompts)]
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
            part: The part of its method.
            radius: Its radius, L2.
            owner: The edit that fires for its prompt: itself, or one that it shares a row with.
        """
        key = self._key(prompt)
        rephrases, probes = self._keys_of(edit.rephrases), self._keys_of(edit.locality)
        asked = [*rephrases, *probes]
        fired = part.select(torch.stack(asked)).fired if asked else []
        is_mine = [number >= 0 and part.edit_id(number) == owner for number in fired]
        covered = sum(is_mine[: len(rephrases)])
        spared = len(probes) - sum(is_mine[len(rephrases) :])
        others = [(one.edit_id, one.distance) for one in part.near(key, 2) if one.edit_id != owner]
        nearest = min(others, key=lambda one: one[1], default=None)
        return self._record(edit, prompt, key, radius, covered, spared, nearest)

    def _record(
        self,
        edit: Edit,
        prompt: Sequence[int],
        key: torch.Tensor,
        radius: float,
        covered: int,
        spared: int,
        nearest: tuple[str, float] | None,
    ) -> EditReach:
        """Returns the record of a reach; see ``EditReach`` for the arguments."""
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
            summary=_describe(
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
        """Keys of unrelated sentences, ``(n, d)``."""
        lines = filter(None, map(str.strip, TEXT.splitlines()))
        return np.stack([self._key(self._encoder.prompt(line)).numpy() for line in lines])

    def _keys_of(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Returns the keys of prompts, without those that are too long to run."""
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
    """Returns the radius of an edit, given the distances of other prompts from its key.

    Args:
        radius: The uncalibrated radius, L2.
        rephrases: Distances of prompts that it should apply to.
        probes: Distances of prompts that it must not apply to. They take priority, except where one
            has the same key as the edit, since no radius can exclude it.
        farthest: Maximum radius to which rephrases can extend it.
    """
    wanted = [distance + _MARGIN for distance in rephrases if distance + _MARGIN <= farthest]
    radius = max([radius, *wanted])
    limits = [distance - _MARGIN for distance in probes if distance > 2 * _MARGIN]
    return min([radius, *limits])


def false_fires(
    key: npt.NDArray[np.float32], others: npt.NDArray[np.float32], radius: float
) -> float:
    """Returns the estimated fraction of unrelated prompts within a radius of a key.

    It is the tail of a normal distribution fitted to the key's cosines with ordinary sentences.

    Args:
        key: ``(d,)`` of unit length.
        others: ``(n, d)``, keys of the sentences.
        radius: L2.
    """
    cosines = others @ key
    spread = max(float(cosines.std(ddof=1)), 1e-6)
    least = 1 - radius**2 / 2
    return NormalDist().cdf((float(cosines.mean()) - least) / spread)


def _describe(
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
    """Returns the reach of an edit in words; see ``EditReach`` for the arguments."""
    parts = []
    if rephrases:
        parts.append(f"fires for {covered} of {rephrases} rephrases given")
        if covered < rephrases:  # a probe or another edit is nearer
            parts.append("the others need an edit of their own")
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
    return "; ".join(parts) or "only its radius is known"


def _share(share: float) -> str:
    if share < 1e-4:
        return "fewer than 1 in 10,000"
    return f"about 1 in {round(1 / share):,}" if share < 0.5 else f"{share:.0%} of"
