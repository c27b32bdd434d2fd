"""A made-up evaluation, to try on what shows one: numbers of a shape that real ones have."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from editkit.evaluation.records import (
    CaseResult,
    DataFile,
    Mean,
    Point,
    Reach,
    Report,
    Retention,
    Share,
    ThresholdCurve,
    Tradeoff,
)

METHODS = (
    "grace", "fine-tuning", "prompt-memory", "grace:strict",
    "grace:broad", "grace:paper", "lora", "base",
)  # fmt: skip
HOSTILE = "<script>alert(1)</script> & \"quoted\" 'single' \x1b[31m"
HARMLESS = (
    "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quoted&#34; &#39;single&#39; \ufffd[31m"
)
NOTHING = Share.of([])
NO_MEAN = Mean.of([])

# Reliability and generalization after many edits, what is lost in tenfold edits, locality's loss.
_SHAPES = {
    "grace": (1.0, 0.76, 0.005, 0.01),
    "fine-tuning": (0.95, 0.62, 0.3, 0.33),
    "prompt-memory": (0.88, 0.81, 0.02, 0.05),
    "grace:strict": (1.0, 0.43, 0.004, 0.002),
    "grace:broad": (1.0, 0.8, 0.01, 0.04),
    "grace:paper": (1.0, 0.05, 0.001, 0.001),
    "lora": (0.9, 0.66, 0.22, 0.28),
    "base": (0.03, 0.03, 0.0, 0.0),
}
_WITH_KEYS = ("grace", "grace:strict", "grace:broad", "grace:paper", "prompt-memory")


def share(value: float, count: int) -> Share:
    """A share of so many that is about a value."""
    hits = round(min(1.0, max(0.0, value)) * count)
    return Share.of([True] * hits + [False] * (count - hits))


def mean(value: float, count: int) -> Mean:
    """A mean over so many that is about a value."""
    value = min(0.97, max(0.03, value))
    return Mean.of([value + 0.03 * (-1) ** number for number in range(count)])


def point(method: str, edits: int, *, neighbours: bool = True, **fields: Any) -> Point:
    """What a method scores after so many edits."""
    reliable, general, forgets, harms = _SHAPES.get(method, _SHAPES["grace"])
    tens = math.log10(edits)
    reliable, general = reliable - forgets * tens, general - forgets * tens
    local, near = 1 - harms * tens, 1 - harms * tens * 2.2
    has_keys = method in _WITH_KEYS
    retention = Retention(
        perplexity=18.2 * math.exp((harms * tens * 1.5) ** 3),
        base_perplexity=18.2,
        accuracy=mean(0.41 - harms * tens / 3, 900),
        base_accuracy=mean(0.41, 900),
        answers=share(0.35 - harms * tens / 3, 200),
        base_answers=share(0.35, 200),
    )
    known: dict[str, Any] = {
        "method": method,
        "edits": edits,
        "judged": min(edits, 300),
        "edit_success": share(min(1.0, reliable + forgets * tens * 0.95), edits),
        "reliability": share(reliable, min(edits, 300)),
        "reliability_forced": mean(reliable + 0.02, min(edits, 300)),
        "generalization": share(general, min(edits, 300) * 2),
        "generalization_forced": mean(general + 0.08, min(edits, 300) * 2),
        "locality": share(local, min(edits, 300)),
        "locality_forced": mean(local, min(edits, 300)),
        "neighbours": share(near, min(edits, 300)) if neighbours else NOTHING,
        "neighbours_forced": mean(near, min(edits, 300)) if neighbours else NO_MEAN,
        "false_fires": share(1 - local, min(edits, 300)) if has_keys else None,
        "retention": retention,
        "keys": edits if has_keys else None,
        "keys_per_edit": 1.0 if has_keys else None,
        "seconds_per_edit": {"fine-tuning": 0.9, "lora": 1.4, "base": 0.0}.get(method, 0.25),
    }
    return Point.model_validate({**known, **fields})


def reach(method: str, seed: int = 0) -> Reach:
    """Distances of a method: rephrases nearer than probes, some nearer to another edit."""
    drawn = random.Random(f"{method!a} {seed}")
    scale = 1 + METHODS.index(method) * 4 if method in METHODS else 1

    far = 0.12 * (METHODS.index(method) % 4) if method in METHODS else 0.0

    def some(count: int, middle: float, spread: float) -> tuple[float, ...]:
        return tuple(scale * abs(drawn.gauss(middle, spread)) for _ in range(count))

    return Reach(
        method=method,
        radius=0.55 * scale,
        rephrases_right=some(500, 0.36 + far / 2, 0.14),
        rephrases_wrong=some(90, 0.62, 0.12),
        probes=some(300, 0.95 - far, 0.1),
        neighbours=some(300, 0.78 - far, 0.1),
    )


def tradeoff(method: str, count: int = 60) -> Tradeoff:
    """Shares over radii, of the distances of ``reach``."""
    found = reach(method)
    rephrases = len(found.rephrases_right) + len(found.rephrases_wrong)
    spared = (*found.probes, *found.neighbours)
    radii = tuple(2.2 * found.radius * number / count for number in range(1, count + 1))
    return Tradeoff(
        method=method,
        radii=radii,
        reached=tuple(sum(d <= r for d in found.rephrases_right) / rephrases for r in radii),
        misled=tuple(sum(d <= r for d in found.rephrases_wrong) / rephrases for r in radii),
        spared=tuple(sum(d > r for d in spared) / len(spared) for r in radii),
    )


def curve(method: str) -> ThresholdCurve:
    """Prompts of blocks over thresholds: the others come into reach later."""
    steps = [number / 20 for number in range(41)]
    return ThresholdCurve(
        method=method,
        thresholds=tuple(steps),
        reached=tuple(min(0.9, 0.8 * step) for step in steps),
        right=tuple(min(0.7, 0.7 * step) for step in steps),
        fired=tuple(min(1.0, step**3 / 4) for step in steps),
    )


def scored(right: float, fired: float, count: int = 60) -> dict[str, Any]:
    """Scores of blocks that are about these, for a point or one kind of its prompts."""
    return {
        "right": share(right, count),
        "right_free": share(right - 0.1, count),
        "fired_same": share(right + 0.05, count),
        "delivered_free": share(0.9, round(count * (right + 0.05))),
        "fired_other": share(fired, count),
    }


def case(asked: str, **fields: Any) -> CaseResult:
    """A prompt that was answered wrongly."""
    known: dict[str, Any] = {
        "method": "grace",
        "edits": 700,
        "case": 41,
        "asked": asked,
        "prompt": "Which river flows through the capital of Austria?",
        "wanted": "the Danube",
        "answer": "The Vltava, which joins the Elbe",
        "right": False,
        "forced": 0.5,
        "fired": 17,
        "fired_prompt": "Which river flows through Prague?",
        "nearest": 17,
        "distance": 0.4812,
        "radius": 0.55,
    }
    return CaseResult.model_validate({**known, **fields})


def worst() -> tuple[CaseResult, ...]:
    """Cases that failed, some of each kind."""
    none = {"fired": None, "fired_prompt": None}
    return (
        case("edit", method="fine-tuning", nearest=None, distance=None, radius=None, **none),
        case("rephrase"),
        case("rephrase", case=42, answer="", distance=0.9123, **none),
        case("probe", prompt="who wrote the anthem of the united states", wanted="Key"),
        case("neighbour", prompt="Which river flows through Graz?", forced=None),
    )


def report(
    methods: Sequence[str] = METHODS[:3],
    edits: Sequence[int] = (1, 3, 10, 30, 100, 300, 700),
    **fields: Any,
) -> Report:
    """An evaluation of some methods, with a point each after so many edits."""
    keyed = [one for one in methods if one in _WITH_KEYS]
    known: dict[str, Any] = {
        "tool": "editkit 0.1.0",
        "model": "smollm2-135m",
        "fingerprint": "sha256:" + "5ca1ab1e" * 8,
        "time": datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        "seed": 7,
        "threads": 2,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.7"},
        "data": (
            DataFile(path="data/zsre.jsonl", digest="sha256:" + "ab" * 32, edits=500),
            DataFile(path="data/own edits.jsonl", digest="sha256:" + "cd" * 32, edits=200),
        ),
        "edits": max(edits, default=0),
        "methods": tuple(methods),
        "settings": {
            one: {"site": "layers.12.mlp.down_proj", "learning rate": "0.1", "steps": "100"}
            for one in methods
        },
        "points": tuple(point(one, count) for one in methods for count in edits),
        "reach": tuple(map(reach, keyed)),
        "tradeoffs": tuple(map(tradeoff, keyed)),
        "worst": worst(),
    }
    return Report.model_validate({**known, **fields})
