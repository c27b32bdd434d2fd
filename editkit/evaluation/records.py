"""Typed records of an evaluation; needs no framework.

A share is a count of hits with its 95% interval (Wilson 1927); a mean has the normal one. *Free* is
free greedy generation, judged by exact match of the whole answer; *forced* is teacher-forced: the
fraction of target tokens that the model would choose given the target's tokens before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from editkit_store.records import Record

__all__ = [
    "Asked",
    "BlockScores",
    "CaseResult",
    "DataFile",
    "Mean",
    "Point",
    "Reach",
    "Report",
    "Retention",
    "Share",
    "ThresholdCurve",
    "Tradeoff",
]

_Z = 1.959964  # z-score of a 95% interval

Asked = Literal["edit", "rephrase", "probe", "neighbour", "same", "other"]
"""Role of a prompt: the edit's own prompt, a rephrase, an unrelated prompt that must not change, a
similar prompt that must not change; or, of a block, a prompt that asks for the same as the edit's,
or for something else."""


class Share(Record):
    """A proportion, with a 95% interval."""

    hits: int
    count: int
    value: float | None = Field(description="hits / count; null of nothing")
    low: float | None = Field(description="Lower end of the 95% interval (Wilson)")
    high: float | None

    @classmethod
    def of(cls, outcomes: Iterable[bool], blocks: Iterable[int] | None = None) -> Share:
        """Returns the share of outcomes that are true.

        Args:
            outcomes: The outcomes.
            blocks: The block of each. Outcomes of one block are alike, so they count for less in
                the interval: by the design effect of sampling whole blocks (Kish 1965).
        """
        found = list(outcomes)
        hits, count = sum(found), len(found)
        if not count:
            return cls(hits=0, count=0, value=None, low=None, high=None)
        share = hits / count
        effect = 1.0 if blocks is None else _design_effect(found, list(blocks))
        independent = count / effect
        square = _Z * _Z / independent
        middle = (share + square / 2) / (1 + square)
        spread = share * (1 - share) / independent + square / (4 * independent)
        half = _Z * math.sqrt(spread) / (1 + square)
        return cls(
            hits=hits,
            count=count,
            value=share,
            # Exactly 0 and 1, without rounding errors.
            low=max(0.0, middle - half) if hits else 0.0,
            high=min(1.0, middle + half) if hits < count else 1.0,
        )


def _design_effect(outcomes: Sequence[bool], blocks: Sequence[int]) -> float:
    """Returns the variance of a share of whole blocks, over that of as many single outcomes."""
    share = sum(outcomes) / len(outcomes)
    residuals: dict[int, float] = {}
    for outcome, block in zip(outcomes, blocks, strict=True):
        residuals[block] = residuals.get(block, 0.0) + outcome - share
    alone = len(outcomes) * share * (1 - share)
    if not alone or len(residuals) < 2:
        return 1.0
    together = math.fsum(one * one for one in residuals.values())
    return max(1.0, together * len(residuals) / (len(residuals) - 1) / alone)


class Mean(Record):
    """A mean over cases, with a 95% interval."""

    count: int
    value: float | None = Field(description="Null of nothing")
    low: float | None = Field(description="Lower end of the 95% interval (normal)")
    high: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Mean:
        """Returns the mean of values in [0, 1]."""
        found = list(values)
        if not found:
            return cls(count=0, value=None, low=None, high=None)
        mean = math.fsum(found) / len(found)
        spread = math.fsum((value - mean) ** 2 for value in found) / max(1, len(found) - 1)
        half = _Z * math.sqrt(spread / len(found))
        return cls(
            count=len(found), value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half)
        )


class Retention(Record):
    """A model's performance on unrelated text and probes, compared with the base model."""

    perplexity: float | None = Field(description="Of general text, per token, with the edits")
    base_perplexity: float | None = Field(description="The same without them")
    accuracy: Mean = Field(description="Share of the text's tokens that the model would choose")
    base_accuracy: Mean
    answers: Share = Field(description="Probes with a known answer that are answered with it")
    base_answers: Share


class BlockScores(Record):
    """The scores of the prompts of blocks: of `same` and of `other`.

    Intervals count prompts of one block as alike. An edit that fires for an `other` prompt does no
    harm if it is the prompt of that edit, or among its `same`.
    """

    right: Share = Field(description="`same` that are answered with the target")
    right_free: Share = Field(
        description="The same, without those for which the decoder was held to the target"
    )
    fired_same: Share | None = Field(
        description="`same` for which an edit with their target fires; null where nothing fires"
    )
    delivered_free: Share | None = Field(
        description="Of those, the ones that are answered with the target freely"
    )
    fired_other: Share | None = Field(description="`other` for which an edit fires")


class Point(Record):
    """The scores of one method after a number of edits."""

    method: str
    edits: int = Field(description="Edits so far")
    judged: int = Field(description="How many of them were judged; a random sample, if not all")
    edit_success: Share = Field(description="Edits that gave the target right after they were made")
    reliability: Share = Field(
        description="Edits so far that give the target now; contradicted ones are not counted"
    )
    reliability_forced: Mean
    generalization: Share = Field(description="Rephrases that give the target; free")
    generalization_forced: Mean
    locality: Share = Field(description="Probes whose answer is the base model's; free")
    locality_forced: Mean = Field(
        description="Share of the base answers' tokens that the model would still choose"
    )
    neighbours: Share = Field(description="The same of neighbours, where the data has them")
    neighbours_forced: Mean
    false_fires: Share | None = Field(
        description="Probes and neighbours for which an edit fired; null where nothing fires"
    )
    retention: Retention | None = None
    right: Share | None = Field(default=None, description="See `BlockScores`; null without blocks")
    right_free: Share | None = None
    fired_same: Share | None = None
    delivered_free: Share | None = None
    fired_other: Share | None = None
    kind: dict[str, BlockScores] = Field(
        default={}, description="The scores of each kind of prompt, where blocks name kinds"
    )
    language: dict[str, BlockScores] = Field(default={}, description="Likewise of each language")
    keys: int | None = Field(default=None, description="Rows of the codebook or the memory")
    keys_per_edit: float | None = None
    seconds_per_edit: float = Field(description="Wall-clock seconds, verification included")


class CaseResult(Record):
    """The result of one prompt at one point."""

    method: str
    edits: int = Field(description="Edits so far")
    case: int = Field(description="Which edit it belongs to, counted from 0")
    asked: Asked
    prompt: str
    wanted: str = Field(
        description="The target, or the base model's answer; of `other`, the target of its edit, "
        "which it must not get"
    )
    answer: str
    right: bool
    forced: float | None = Field(default=None, description="Share of the wanted tokens, forced")
    fired: int | None = Field(default=None, description="Case of the edit that fired")
    fired_prompt: str | None = None
    nearest: int | None = Field(default=None, description="Case of the nearest edit")
    distance: float | None = Field(default=None, description="To the nearest edit's key, L2")
    radius: float | None = Field(default=None, description="That edit's radius")
    nearest_prompt: str | None = None
    kind: str | None = Field(default=None, description="Of the prompt of a block")
    language: str | None = None
    delivered: str | None = Field(
        default=None, description="How a fired edit's target came into the answer, if it is known"
    )

    @property
    def ratio(self) -> float | None:
        """Distance to the nearest edit in radii: by default an edit fires up to 1."""
        if self.distance is None or not self.radius:
            return None
        return self.distance / self.radius


class Reach(Record):
    """Distances from prompts to the nearest edit, after the last edit."""

    method: str
    radius: float = Field(description="Median radius of the edits that are nearest to a prompt")
    rephrases_right: tuple[float, ...] = Field(
        description="To the nearest edit, where that one has the rephrase's target"
    )
    rephrases_wrong: tuple[float, ...] = Field(
        description="Where one with another target is nearer"
    )
    probes: tuple[float, ...]
    neighbours: tuple[float, ...] = ()


class Tradeoff(Record):
    """Generalization against locality over radii, computed from distances without generation.

    It is the curve of the paper's Figure 2, with one radius for all edits.
    """

    method: str
    radii: tuple[float, ...]
    reached: tuple[float, ...] = Field(description="Share of rephrases that fire the right edit")
    misled: tuple[float, ...] = Field(description="Share of rephrases that fire another edit")
    spared: tuple[float, ...] = Field(description="Share of probes and neighbours that fire none")


class ThresholdCurve(Record):
    """Prompts of blocks over the distance up to which edits fire, computed without generation."""

    method: str
    thresholds: tuple[float, ...] = Field(description="In radii; edits fire up to 1")
    reached: tuple[float, ...] = Field(
        description="Share of `same` to which an edit with their target is nearest, and so near"
    )
    right: tuple[float, ...] = Field(
        description="Share of `same` that are so near and are answered with the target now"
    )
    fired: tuple[float, ...] = Field(description="Share of `other` to which an edit is so near")


class DataFile(Record):
    """A file that the edits came from."""

    path: str
    digest: str = Field(description="sha256 of the file")
    edits: int


class Report(Record):
    """An evaluation."""

    tool: str
    model: str
    fingerprint: str
    time: datetime
    seed: int
    threads: int
    versions: dict[str, str] = Field(description="Of torch, transformers, ...")
    data: tuple[DataFile, ...]
    edits: int = Field(description="Length of the stream")
    methods: tuple[str, ...]
    settings: dict[str, dict[str, str]] = Field(description="Of each method, in words")
    points: tuple[Point, ...]
    reach: tuple[Reach, ...] = ()
    tradeoffs: tuple[Tradeoff, ...] = ()
    curves: tuple[ThresholdCurve, ...] = ()
    worst: tuple[CaseResult, ...] = Field(
        default=(), description="Cases that failed after the last edit, a few of each kind"
    )
    failed_requirements: tuple[str, ...] = Field(
        default=(), description="Scores under the bars that were set"
    )
