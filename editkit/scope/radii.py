"""Radii of edits by scope, for prompt keys. Needs no torch."""

from __future__ import annotations

from editkit.config import ScopeName

__all__ = ["RADII"]

RADII: dict[str, dict[ScopeName, float]] = {
    "pooled": {"strict": 0.55, "balanced": 0.8, "broad": 0.95},
    "text": {"strict": 0.7, "balanced": 0.9, "broad": 1.0},
    "sentence": {"strict": 0.5, "balanced": 0.75, "broad": 0.85},
}
"""L2 on the unit sphere. Pooled: cosines of 0.85, 0.68 and 0.55; benchmarks/results/scope.txt.
Texts differ in more than names, and unrelated ones are not as near by chance: 0.76, 0.6, 0.5;
benchmarks/results/quality.md."""
