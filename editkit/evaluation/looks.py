"""The plot style of each method of an evaluation: colour, marker, label.

The colours are Okabe and Ito's colour-blind safe palette; the markers distinguish methods without
colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from editkit.evaluation.readings import method_names
from editkit.evaluation.records import Report

__all__ = ["Look", "label", "legend", "looks"]

_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F",
)  # fmt: skip
_MARKERS = "os^DvPX<"


class Look(NamedTuple):
    """The plot style of a method."""

    label: str
    color: str
    marker: str
    size: float

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments for plotting a line."""
        return {
            "color": self.color,
            "marker": self.marker,
            "markersize": self.size,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
        }


def looks(report: Report) -> dict[str, Look]:
    """Returns the style of each method of a report, by name."""
    names = method_names(report)
    # Later markers are smaller, so that equal values show as rings and none is hidden.
    return {
        name: Look(
            label(name),
            _COLORS[number % len(_COLORS)],
            _MARKERS[number % len(_MARKERS)],
            9 - 3.5 * number / max(1, len(names) - 1),
        )
        for number, name in enumerate(names)
    }


def label(said: str, *, room: int = 24) -> str:
    """Returns a text as one printable line of at most ``room`` characters."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in said)
    return shown if len(shown) <= room else f"{shown[: room - 1]}…"


def legend(figure: Any, shown: Sequence[Look], *, inches: float = 11) -> None:
    """Draws a legend below the plots.

    Args:
        figure: The figure, or a part of one.
        shown: The methods in it.
        inches: Width of the figure.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **look.line) for look in shown]
    labels = [look.label for look in shown]
    fitting = int(inches * 11) // (max(map(len, labels)) + 8)  # about 11 characters an inch
    figure.legend(handles, labels, loc="outside lower center",
                  ncols=max(1, min(fitting, 4, len(labels))))  # fmt: skip
