"""Plots of how far an evaluation's edits reach: trade-off over radii, and distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from editkit.evaluation.looks import Look, legend
from editkit.evaluation.readings import at_radius
from editkit.evaluation.records import Reach, Tradeoff

__all__ = ["GROUPS", "distances", "tradeoff"]

GROUPS = (
    ("rephrases_right", "rephrases, nearest to their own edit", "#0072B2", "-", None),
    ("rephrases_wrong", "rephrases, nearest to another edit", "#D55E00", "--", "////"),
    ("probes", "probes", "#7F7F7F", "-.", None),
    ("neighbours", "neighbours", "#009E73", ":", None),
)
_OVER_RADII = (
    ("fire the right edit", "#0072B2", "-", "o"),
    ("fire another edit", "#D55E00", "--", "s"),
    ("fire though they should not", "#7F7F7F", ":", "^"),
)

_MARKS = 10
"""Number of intervals between marks on a curve, which has too many radii to mark each."""


def tradeoff(
    tradeoffs: Sequence[Tradeoff],
    radii: dict[str, float],
    looks: dict[str, Look],
    title: str,
    figure_class: Any,
) -> Any:
    """Returns the figure of generalization against locality over radii.

    Args:
        tradeoffs: At least one, each with one radius or more.
        radii: Median radius of a method's edits (L2), by name.
        looks: Style of each method, by name.
        title: Title of the figure.
        figure_class: matplotlib's ``Figure``.
    """
    columns = 1 if len(tradeoffs) < 3 else 2
    rows = math.ceil(len(tradeoffs) / columns)
    figure = figure_class(figsize=(11, max(4.8, 1 + 1.75 * rows)), layout="constrained")
    figure.suptitle(f"{title}: one radius for all edits, nothing generated")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    _reach_against_harm(left.subplots(), tradeoffs, radii, looks)
    legend(left, [looks[one.method] for one in tradeoffs], inches=5)
    grid = list(right.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, one in zip(grid, tradeoffs, strict=False):
        _over_radii(axes, one, radii.get(one.method), looks)
    _finish(grid, len(tradeoffs), columns, "radius, L2")
    handles, labels = grid[0].get_legend_handles_labels()
    right.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def _reach_against_harm(
    axes: Any, tradeoffs: Sequence[Tradeoff], radii: dict[str, float], looks: dict[str, Look]
) -> None:
    said: list[tuple[float, float]] = []
    for one in tradeoffs:
        look = looks[one.method]
        axes.plot(one.spared, one.reached, linewidth=1.5, markevery=_marks(one),
                  **{**look.line, "markersize": 4.5})  # fmt: skip
        radius = radii.get(one.method)
        found = at_radius(one, radius)
        if found:
            place = (found.spared, found.reached)
            mark = {**look.line, "markersize": look.size + 4, "markeredgecolor": "black"}
            axes.plot(*place, linestyle="", zorder=5, **{**mark, "markeredgewidth": 1.2})
            _annotate(axes, place, f"{radius:.2g}", look.color, said, weight="bold")
    for one in tradeoffs:
        # The ends and the middle first: they matter most if there is no room for more.
        marks = _marks(one)
        for number in dict.fromkeys((marks[0], marks[-1], marks[len(marks) // 2], *marks)):
            place = (one.spared[number], one.reached[number])
            _annotate(axes, place, f"{one.radii[number]:.2g}", looks[one.method].color, said)
    axes.set(
        title="numbers are radii; large marks are median radii",
        xlabel="locality: probes and neighbours that fire no edit",
        ylabel="generalization: rephrases that fire the right edit",
        xlim=(-0.03, 1.05),
        ylim=(-0.03, 1.05),
    )


def _marks(tradeoff: Tradeoff) -> list[int]:
    """Returns the indices of a curve's marked radii: the first, the last, and some between."""
    last = len(tradeoff.radii) - 1
    return sorted({round(last * number / _MARKS) for number in range(_MARKS + 1)})


def _annotate(
    axes: Any,
    place: tuple[float, float],
    said: str,
    color: str,
    before: list[tuple[float, float]],
    **how: Any,
) -> None:
    """Annotates a point, unless another annotation is too near."""
    if any(abs(place[0] - x) < 0.11 and abs(place[1] - y) < 0.06 for x, y in before):
        return
    before.append(place)
    x, y = place  # below and to the left, where there is no curve, but not on the axes
    axes.annotate(
        said,
        place,
        (-6 if x > 0.08 else 3, -4 if y > 0.05 else 3),
        textcoords="offset points",
        ha="right" if x > 0.08 else "left",
        va="top" if y > 0.05 else "bottom",
        fontsize=7.5,
        color=color,
        zorder=6,
        **how,
    )


def _over_radii(
    axes: Any, tradeoff: Tradeoff, radius: float | None, looks: dict[str, Look]
) -> None:
    fired = [1 - one for one in tradeoff.spared]
    series = (tradeoff.reached, tradeoff.misled, fired)
    for values, (label, color, dash, marker) in zip(series, _OVER_RADII, strict=True):
        axes.plot(tradeoff.radii, values, color=color, linestyle=dash, marker=marker, markersize=4,
                  markevery=_marks(tradeoff), linewidth=1.5, label=label)  # fmt: skip
    if radius is not None:
        axes.axvline(radius, color="black", linewidth=1)
    axes.set_title(looks[tradeoff.method].label)
    axes.set_ylim(-0.03, 1.03)


def distances(reach: Sequence[Reach], looks: dict[str, Look], title: str, figure_class: Any) -> Any:
    """Returns the figure of distances to the nearest edit, one panel per method.

    Args:
        reach: At least one, each with one distance or more.
        looks: Style of each method, by name.
        title: Title of the figure.
        figure_class: matplotlib's ``Figure``.
    """
    columns = min(len(reach), 2 if len(reach) in (2, 4) else 3)
    rows = math.ceil(len(reach) / columns)
    figure = figure_class(figsize=(11, 1.3 + 2.6 * rows), layout="constrained")
    figure.suptitle(f"{title}: distance to the nearest edit")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    handles: dict[str, Any] = {}
    for axes, one in zip(grid, reach, strict=False):
        axes.set_title(looks[one.method].label)
        _histograms(axes, one)
        new, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, new, strict=True))
    _finish(grid, len(reach), columns, "distance, L2")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    figure.supylabel("share of the prompts", fontsize=9.5)
    return figure


def _finish(grid: Sequence[Any], used: int, columns: int, said: str) -> None:
    """Labels the panels of the lowest row, and hides unused panels.

    A label for the whole figure would overlap the legend.
    """
    for number, axes in enumerate(grid):
        if number >= used:
            axes.set_axis_off()
        elif number >= len(grid) - columns:
            axes.set_xlabel(said)


def _histograms(axes: Any, reach: Reach) -> None:
    groups = [(getattr(reach, group[0]), *group[1:]) for group in GROUPS]
    groups = [([x for x in found if math.isfinite(x)], *look) for found, *look in groups]
    top = max((max(found) for found, *_ in groups if found), default=0.0)
    top = max(top, reach.radius, 1e-9) * 1.02
    bins = [top * number / 40 for number in range(41)]
    for found, label, color, dash, hatch in groups:
        if found:
            weights = [1 / len(found)] * len(found)
            axes.hist(found, bins, weights=weights, histtype="stepfilled", color=color, alpha=0.16)
            axes.hist(found, bins, weights=weights, histtype="step", color=color, linestyle=dash,
                      linewidth=1.4, hatch=hatch, label=label)  # fmt: skip
    axes.axvline(reach.radius, color="black", linewidth=1.3, label="median radius")
    axes.set_xlim(0, top)
