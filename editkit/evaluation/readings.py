"""Values derived from a report, for tables, plots and pages."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from editkit.evaluation.records import Point, Report, Retention, Tradeoff

__all__ = ["Reached", "at_radius", "last_points", "method_names", "perplexity_ratio"]


class Reached(NamedTuple):
    """A trade-off at one radius, as shares."""

    reached: float
    misled: float
    spared: float


def method_names(report: Report) -> list[str]:
    """Returns the names of all methods in a report, in its order."""
    parts = (report.points, report.reach, report.tradeoffs, report.worst)
    found = (one.method for part in parts for one in part)
    return list(dict.fromkeys((*report.methods, *found)))


def last_points(report: Report) -> list[Point]:
    """Returns the last point of each method that has one, in the report's order."""
    last: dict[str, Point] = {}
    for point in report.points:
        if point.method not in last or last[point.method].edits <= point.edits:
            last[point.method] = point
    return [last[name] for name in method_names(report) if name in last]


def perplexity_ratio(retention: Retention | None) -> float | None:
    """Returns perplexity relative to the base model's; None if not measured."""
    if retention is None or retention.perplexity is None or not retention.base_perplexity:
        return None
    return retention.perplexity / retention.base_perplexity


def at_radius(tradeoff: Tradeoff, radius: float | None) -> Reached | None:
    """Returns a trade-off at a radius (L2), interpolated linearly between its radii.

    Args:
        tradeoff: The trade-off.
        radius: The radius; None for none.

    Returns:
        None if the radius is None, or beyond the trade-off's smallest or largest.
    """
    if radius is None or not tradeoff.radii:
        return None
    shares = zip(tradeoff.reached, tradeoff.misled, tradeoff.spared, strict=True)
    curve = sorted(zip(tradeoff.radii, shares, strict=True))
    for (before, here), (after, there) in pairwise((curve[0], *curve)):
        if before <= radius <= after:
            part = (radius - before) / (after - before) if after > before else 0.0
            return Reached(*(a + part * (b - a) for a, b in zip(here, there, strict=True)))
    return None
