"""Typed records of an evaluation; needs no framework.

A share is a count of hits with its 95% interval (Wilson 1927); a mean has the normal one. *Free* is
free greedy generation, judged by exact match of the whole answer; *forced* is teacher-forced: the
fraction of target tokens that the model would choose given the target's tokens before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from editkit_store.records import Record

__all__ = [
    "Asked",
    "CaseResult",
    "DataFile",
    "Mean",
    "Point",
    "Reach",
    "Report",
    "Retention",
    "Share",
    "Tradeoff",
]

_Z = 1.959964  # z-score of a 95% interval

Asked = Literal["edit", "rephrase", "probe", "neighbour"]
"""Role of a prompt: the edit's own prompt, a rephrase, an unrelated prompt that must not change, or
a similar prompt that must not change."""


class Share(Record):
    """A proportion, with a 95% interval."""

    hits: int
    count: int
    value: float | None = Field(description="hits / count; null of nothing")
    low: float | None = Field(description="Lower end of the 95% interval (Wilson)")
    high: float | None

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Share:
        """Returns the share of outcomes that are true."""
        found = list(outcomes)
        hits, count = sum(found), len(found)
        if not count:
            return cls(hits=0, count=0, value=None, low=None, high=None)
        share, square = hits / count, _Z * _Z / count
        middle = (share + square / 2) / (1 + square)
        half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
        return cls(
            hits=hits,
            count=count,
            value=share,
            # Exactly 0 and 1, without rounding errors.
            low=max(0.0, middle - half) if hits else 0.0,
            high=min(1.0, middle + half) if hits < count else 1.0,
        )


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
    wanted: str = Field(description="The target, or the base model's answer")
    answer: str
    right: bool
    forced: float | None = Field(default=None, description="Share of the wanted tokens, forced")
    fired: int | None = Field(default=None, description="Case of the edit that fired")
    fired_prompt: str | None = None
    nearest: int | None = Field(default=None, description="Case of the nearest edit")
    distance: float | None = Field(default=None, description="To the nearest edit's key, L2")
    radius: float | None = Field(default=None, description="That edit's radius")
    nearest_prompt: str | None = None


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
    worst: tuple[CaseResult, ...] = Field(
        default=(), description="Cases that failed after the last edit, a few of each kind"
    )
    failed_requirements: tuple[str, ...] = Field(
        default=(), description="Scores under the bars that were set"
    )
