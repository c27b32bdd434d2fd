"""Pictures of an evaluation: curves over the edits, reach against harm, distances.

Needs matplotlib, but no model and no deep-learning framework. A method has the same colour and the
same marker everywhere; the colours are Okabe and Ito's, which colour-blind readers tell apart. What
a report does not have is left out: a panel, a line, or a whole picture.
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
from editkit.evaluation.records import Report
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
    "text.parse_math": False,  # a dollar in the name of a method is a dollar
    "svg.fonttype": "path",  # looks alike whatever fonts the reader has
    "svg.hashsalt": "editkit",  # ids of the content; without a salt they are random
}

_TITLES = {
    "curves": "Scores of each method over the number of edits",
    "tradeoff": "Generalization against locality over radii",
    "distances": "Distances from prompts to the nearest edit",
}


def draw(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Draws an evaluation to PNG files, and returns their paths.

    ``curves.png`` is drawn of the points, ``tradeoff.png`` of the trade-offs, ``distances.png`` of
    the distances; one of which the report has nothing is not written.

    Args:
        report: The evaluation.
        folder: Where the files go; made if it is not there. Files of these names are replaced.

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
    """Returns the same pictures as SVG elements for a page of HTML, by name without ``.png``.

    Equal reports give equal text. The ids in one picture are in no other one, text is drawn as
    outlines, and nothing is loaded from anywhere.

    Args:
        report: The evaluation.

    Raises:
        PackageMissing: matplotlib is not installed.
    """
    found = {}
    with _matplotlib() as figure_class:
        for name, figure in _figures(report, figure_class):
            written = io.BytesIO()
            # Without a date, a version or an address of the tool that drew it.
            unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(written, format="svg", metadata=unsaid)
            found[name] = _embeddable(written.getvalue(), name)
    return found


@contextmanager
def _matplotlib() -> Iterator[Any]:
    """Gives the class of figures, with our settings in force and not those of the user's file."""
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
        # A model's name in a script that the font lacks is drawn as boxes, and that is all.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield Figure


def _embeddable(written: bytes, name: str) -> str:
    """Returns a picture's root element, with a title, and with its name in front of its ids."""
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
    # A style sheet in a picture would be one for the whole page.
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
    """Takes out the texts that stand beside their outlines; a page says them in its own way."""
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
