"""Plot of the prompts of blocks over thresholds: right answers against false fires."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

from editkit.evaluation.looks import Look, legend
from editkit.evaluation.records import Point, ThresholdCurve

__all__ = ["thresholds"]

_SERIES = (
    ("reached", "same: its edit reaches", "#0072B2", "-"),
    ("right", "same: and is right", "#009E73", "--"),
    ("fired", "other: an edit reaches", "#D55E00", ":"),
)
_MARKED = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


def thresholds(
    curves: Sequence[ThresholdCurve],
    points: Sequence[Point],
    looks: dict[str, Look],
    title: str,
    figure_class: Any,
) -> Any:
    """Returns the figure of right answers against false fires.

    Args:
        curves: At least one.
        points: The last point of each method, which was measured.
        looks: Style of each method, by name.
        title: Title of the figure.
        figure_class: matplotlib's ``Figure``.
    """
    rows = (len(curves) + 1) // 2 if len(curves) > 2 else len(curves)
    figure = figure_class(figsize=(11, max(4.8, 1 + 1.75 * rows)), layout="constrained")
    figure.suptitle(f"{title}: blocks")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    _right_against_fired(left.subplots(), curves, points, looks)
    legend(left, [looks[one.method] for one in curves], inches=5)
    columns = 1 if len(curves) < 3 else 2
    grid = list(right.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes, curve in zip(grid, curves, strict=False):
        for name, label, color, dash in _SERIES:
            axes.plot(curve.thresholds, getattr(curve, name), color=color, linestyle=dash,
                      linewidth=1.5, label=label, drawstyle="steps-post")  # fmt: skip
        axes.axvline(1, color="black", linewidth=1)
        axes.set(title=looks[curve.method].label, ylim=(-0.03, 1.03))
        axes.set_xlim(0, max(one.thresholds[-1] for one in curves))
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(curves) - columns) : len(curves)]:
        axes.set_xlabel("threshold, in radii")
        axes.tick_params(labelbottom=True)
    handles, labels = grid[0].get_legend_handles_labels()
    right.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


def _right_against_fired(
    axes: Any,
    curves: Sequence[ThresholdCurve],
    points: Sequence[Point],
    looks: dict[str, Look],
) -> None:
    for curve in curves:
        color = looks[curve.method].color
        # Beyond the present threshold it is not known what would be answered.
        now = bisect.bisect_right(curve.thresholds, 1.0)
        axes.plot(curve.fired, curve.reached, color=color, linewidth=1.2, alpha=0.5)
        axes.plot(curve.fired[:now], curve.right[:now], color=color, linewidth=1.6)
        for threshold in _MARKED:
            at = bisect.bisect_right(curve.thresholds, threshold) - 1
            if at >= 0 and threshold <= curve.thresholds[-1]:
                axes.annotate(f"{threshold:g}", (curve.fired[at], curve.reached[at]), (3, 3),
                              textcoords="offset points", fontsize=7.5, color=color)  # fmt: skip
    for point in points:
        if point.right and point.right.value is not None and point.fired_other:
            axes.plot(point.fired_other.value, point.right.value, linestyle="", zorder=5,
                      **looks[point.method].line)  # fmt: skip
    axes.set(
        title="marks: as measured; numbers: thresholds in radii",
        xlabel="other: an edit fires",
        ylabel="same: answered rightly (pale: its edit fires)",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
