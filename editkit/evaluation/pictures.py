"""Plots of an evaluation: curves over the edits, generalization against locality, distances.

Needs matplotlib, but no model and no deep-learning framework. A method has the same colour and
marker everywhere, in Okabe and Ito's colour-blind safe palette. Panels, lines and plots without
data are omitted.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.dom import minidom

from editkit.errors import PackageMissing
from editkit.evaluation.curves import curves
from editkit.evaluation.distances import GROUPS, distances, tradeoff
from editkit.evaluation.looks import label, looks
from editkit.evaluation.readings import last_points
from editkit.evaluation.records import Report
from editkit.evaluation.thresholds import thresholds
from editkit_store.database.outputs import refuse_store
from editkit_store.errors import OutputUnwritable

__all__ = ["draw", "svg"]

_SETTINGS: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E3E5E8",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a method's name is literal
    "svg.fonttype": "path",  # looks the same with any fonts
    "svg.hashsalt": "editkit",  # ids derived from the content; without a salt they are random
}

_TITLES = {
    "curves": "Scores of each method over the number of edits",
    "tradeoff": "Generalization against locality over radii",
    "distances": "Distances from prompts to the nearest edit",
    "blocks": "Right answers against false fires over thresholds",
}


def draw(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Plots an evaluation to PNG files, and returns their paths.

    ``curves.png`` shows the points, ``tradeoff.png`` the trade-offs, ``distances.png`` the
    distances, ``blocks.png`` the curves over thresholds; a plot without data is not written.

    Args:
        report: The evaluation.
        folder: Folder of the files; created if it does not exist. Existing files are replaced.

    Raises:
        PackageMissing: matplotlib is not installed.
        OutputUnwritable: A file cannot be written.
    """
    written = []
    target = Path(folder)
    with _matplotlib() as figure_class:
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, figure in _figures(report, figure_class):
                target = Path(folder) / f"{name}.png"
                refuse_store(target)
                figure.savefig(target, format="png", dpi=144)
                written.append(target)
        except OSError as error:
            raise OutputUnwritable(
                f"the picture '{target}' cannot be written: {error.strerror}",
                path=target,
                hint="name a folder that can be written to",
            ) from error
    return written


def svg(report: Report) -> dict[str, str]:
    """Returns the same plots as SVG elements for an HTML page, by name without ``.png``.

    The output is deterministic. Ids are unique across plots, text is drawn as outlines, and no
    external resources are loaded.

    Args:
        report: The evaluation.

    Raises:
        PackageMissing: matplotlib is not installed.
    """
    found = {}
    with _matplotlib() as figure_class:
        for name, figure in _figures(report, figure_class):
            written = io.BytesIO()
            # Without date, version and address of the tool.
            metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(written, format="svg", metadata=metadata)
            found[name] = _embeddable(written.getvalue(), name)
    return found


@contextmanager
def _matplotlib() -> Iterator[Any]:
    """Yields the figure class, with editkit's settings instead of the user's."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PackageMissing(
            "drawing an evaluation needs matplotlib", package="matplotlib",
            hint="pip install 'editkit[plot]'",
        ) from error  # fmt: skip
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        # A model's name in a script that the font lacks is drawn as boxes, without a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield Figure


def _embeddable(written: bytes, name: str) -> str:
    """Returns a plot's root element, with a title, and with ids prefixed by its name."""
    document: Any = minidom.parseString(written)
    root = document.documentElement
    for element in root.getElementsByTagName("*"):
        for key, value in list(element.attributes.items()):
            if key == "id":
                element.setAttribute(key, f"{name}-{value}")
            elif key.endswith("href") and value.startswith("#"):
                element.setAttribute(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.setAttribute(key, value.replace("url(#", f"url(#{name}-"))
    _drop_comments(root)
    # A style sheet in an SVG element would apply to the whole page.
    for element in root.getElementsByTagName("style"):
        element.parentNode.removeChild(element)
    root.setAttribute("style", "stroke-linejoin: round; stroke-linecap: butt")
    title = document.createElement("title")
    title.setAttribute("id", f"{name}-title")
    title.appendChild(document.createTextNode(_TITLES[name]))
    root.insertBefore(title, root.firstChild)
    root.setAttribute("role", "img")
    root.setAttribute("aria-labelledby", f"{name}-title")
    return str(root.toxml())


def _drop_comments(element: Any) -> None:
    """Removes the comments that repeat outlined text; the page has its own text."""
    for child in list(element.childNodes):
        if child.nodeType == child.COMMENT_NODE:
            element.removeChild(child)
        else:
            _drop_comments(child)


def _figures(report: Report, figure_class: Any) -> Iterator[tuple[str, Any]]:
    shown = looks(report)
    title = f"{label(report.model, room=60)}, {report.edits:,} edits"
    points = [one for one in report.points if one.edits > 0]
    if points:
        yield "curves", curves(points, shown, title, figure_class)
    radii = {one.method: one.radius for one in report.reach}
    tradeoffs = [one for one in report.tradeoffs if one.radii]
    if tradeoffs:
        yield "tradeoff", tradeoff(tradeoffs, radii, shown, title, figure_class)
    reach = [one for one in report.reach if any(getattr(one, group[0]) for group in GROUPS)]
    if reach:
        yield "distances", distances(reach, shown, title, figure_class)
    if report.curves:
        yield "blocks", thresholds(report.curves, last_points(report), shown, title, figure_class)
