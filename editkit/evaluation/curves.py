"""The plot of an evaluation's points: each quantity over the number of edits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from editkit.evaluation.looks import Look, legend
from editkit.evaluation.readings import perplexity_ratio
from editkit.evaluation.records import Point, Share

__all__ = ["curves"]


class _Panel(NamedTuple):
    """A quantity of a point: a share, or a value without an interval."""

    title: str
    name: str
    beside: str | None = None  # a second share on the same axes
    base: float | None = None  # value of the unedited model; None for a share


class _Reading(NamedTuple):
    """A value of a point in a panel."""

    edits: int
    value: float
    low: float | None
    high: float | None
    is_beside: bool = False

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None


def curves(points: Sequence[Point], looks: dict[str, Look], title: str, figure_class: Any) -> Any:
    """Returns the figure of an evaluation's points: one panel per quantity, one line per method.

    Args:
        points: At least one, each after one edit or more.
        looks: Style of each method, by name.
        title: Title of the figure.
        figure_class: matplotlib's ``Figure``.
    """
    by_method: dict[str, list[Point]] = {}
    for name in looks:
        found = sorted((one for one in points if one.method == name), key=lambda one: one.edits)
        by_method |= {name: found} if found else {}
    is_single = all(len(found) == 1 for found in by_method.values())
    panels = _panels(points, "hollow" if is_single else "dashed")
    rows, columns = math.ceil(len(panels) / 3), min(3, len(panels))
    height = 0.8 + 0.32 * len(by_method) if is_single else 2.7
    figure = figure_class(figsize=(11, 0.9 + rows * height), layout="constrained")
    figure.suptitle(title)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=is_single).flat)
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(panel.title)
        (_dots if is_single else _lines)(axes, panel, by_method, looks)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if not is_single:
        legend(figure, [looks[name] for name in by_method])
    return figure


def _panels(points: Sequence[Point], beside: str) -> list[_Panel]:
    locality = _Panel("locality", "locality")
    if any(one.neighbours.count for one in points):
        locality = _Panel(f"locality ({beside}: neighbours)", "locality", "neighbours")
    panels = (
        _Panel("edit success", "edit_success"),
        _Panel("reliability", "reliability"),
        _Panel("generalization", "generalization"),
        locality,
        _Panel("perplexity, relative to base", "perplexity_ratio", base=1.0),
        _Panel("seconds an edit", "seconds_per_edit", base=0.0),
    )
    return [one for one in panels if _readings(one, points)]


def _readings(panel: _Panel, points: Sequence[Point]) -> list[_Reading]:
    found = []
    for point in points:
        if panel.base is None:
            names = [panel.name, *([panel.beside] if panel.beside else [])]
            shares: list[Share] = [getattr(point, name) for name in names]
            found += [
                _Reading(point.edits, share.value, share.low, share.high, number > 0)
                for number, share in enumerate(shares)
                if share.value is not None
            ]
            continue
        ratio = perplexity_ratio(point.retention)
        value = ratio if panel.name == "perplexity_ratio" else point.seconds_per_edit
        if value is not None and math.isfinite(value):
            found.append(_Reading(point.edits, value, None, None))
    return found


def _lines(
    axes: Any, panel: _Panel, by_method: dict[str, list[Point]], looks: dict[str, Look]
) -> None:
    shade = 0.12 if len(by_method) < 4 else 0.06  # bands overlap
    for name, points in by_method.items():
        color = looks[name].color
        for is_beside, dash in ((False, "-"), (True, "--")):
            line = [one for one in _readings(panel, points) if one.is_beside is is_beside]
            if line:
                axes.plot([one.edits for one in line], [one.value for one in line], linestyle=dash,
                          linewidth=1.6, **looks[name].line)  # fmt: skip
            band = [(one.edits, one.low, one.high) for one in line if one.has_interval]
            if len(band) > 1:
                axes.fill_between(*zip(*band, strict=True), color=color, alpha=shade, lw=0)
            elif band:
                axes.vlines(*zip(*band, strict=True), color=color, linewidth=1.2)
    every = [one for points in by_method.values() for one in points]
    _over_edits(axes, sorted({one.edits for one in every}))
    _extent(axes, "y", [one.value for one in _readings(panel, every)], panel)


def _dots(
    axes: Any, panel: _Panel, by_method: dict[str, list[Point]], looks: dict[str, Look]
) -> None:
    """Plots methods with a single point each as rows, with values along x."""
    counts = {point.edits for (point,) in by_method.values()}
    labels, shown = [], []
    for place, (name, points) in enumerate(by_method.items()):
        look = looks[name]
        labels.append(look.label + (f" ({points[0].edits:,} edits)" if len(counts) > 1 else ""))
        for one in _readings(panel, points):
            y = place + 0.28 * one.is_beside
            if one.has_interval:
                axes.hlines(y, one.low, one.high, color=look.color, linewidth=1.6)
            axes.plot([one.value], [y], color=look.color, marker=look.marker, markersize=8,
                      markerfacecolor="white" if one.is_beside else look.color)  # fmt: skip
            shown.append(one.value)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    _extent(axes, "x", shown, panel)


def _over_edits(axes: Any, edits: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("edits")
    # Ticks at the points, as many as fit, from the last one down.
    room = math.log(edits[-1] / edits[0]) / 9
    ticks = edits[-1:]
    for one in reversed(edits[:-1]):
        if math.log(ticks[-1] / one) > room:
            ticks.append(one)
    axes.set_xticks(ticks, [f"{one:,}" for one in ticks])
    axes.set_xticks([], minor=True)


def _extent(axes: Any, along: str, values: Sequence[float], panel: _Panel) -> None:
    """Sets the axis limits: fixed for shares; including the base model's value for others."""
    if panel.base is None:
        axes.set(**{f"{along}lim": (-0.03, 1.03)})
        return
    low, high = min(*values, panel.base or math.inf), max(*values, panel.base)
    if panel.base:
        (axes.axhline if along == "y" else axes.axvline)(panel.base, color="#7F7F7F", linewidth=1,
                                                               zorder=0.5)  # fmt: skip
    if 0 < low < high / 10:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes.set(**{f"{along}scale": "log", f"{along}lim": (low / 1.6, high * 1.6)})
        axis = getattr(axes, f"{along}axis")
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(NullFormatter())
    elif panel.base:
        spare = max(0.05, 0.15 * (high - low))
        axes.set(**{f"{along}lim": (low - spare, high + spare)})
    else:
        axes.set(**{f"{along}lim": (-0.03 * high, high * 1.15 or 1)})


def _plain(value: float, _: int) -> str:
    return f"{value:,.10g}" if value < 1e5 else f"{value:.0e}".replace("e+0", "e")
