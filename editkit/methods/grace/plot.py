"""Plots of a codebook: radii, distances, conflicts, and a map of the keys.

Needs matplotlib and numpy, but no model and no deep-learning framework.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from editkit.errors import PackageMissing
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.restore import load_memories
from editkit_store import Store
from editkit_store.database.outputs import refuse_store
from editkit_store.errors import InvalidRequest, OutputUnwritable
from editkit_store.history.versions import format_version
from editkit_store.records.comparisons import CodebookPlot

__all__ = ["plot_codebook"]

_SAMPLED = 2000
"""Maximum rows whose nearest neighbour is computed, and balls that are drawn to scale."""

_BLUE, _ORANGE, _GREY = "#2a6fbb", "#d9822b", "#9aa0a6"


def plot_codebook(
    store: Store,
    path: str | os.PathLike[str],
    *,
    version: str = "@",
    fingerprint: str | None = None,
) -> CodebookPlot:
    """Plots the codebook of a version to a PNG file, and returns a summary.

    Args:
        store: The history.
        path: The file to write.
        version: Version expression.
        fingerprint: Model whose codebook is plotted; by default the one that the store remembers.

    Raises:
        UnknownVersion: The expression does not name a version.
        InvalidRequest: No edit of that version was learned by the model.
        PackageMissing: matplotlib is not installed.
        OutputUnwritable: The file cannot be written.
        UnsafeTarget: The file is a store, or belongs to one.
    """
    number = store.history.resolve(version)
    name = format_version(number)
    memory, rows = _rows(store, number, fingerprint or store.setting("fingerprint"))
    if memory is None:
        raise InvalidRequest(
            f"there is no codebook at {name}: no edit active there was learned with GRACE by the "
            "model that the store remembers",
            field="version",
        )
    radii = memory.radii(rows)
    rows = rows[radii[rows] >= 0]
    pairs = memory.pairs(rows)
    shrunk = radii[rows] < memory.initial(rows)
    figure = _figure(memory, rows, radii, pairs, shrunk, title=f"codebook at {name}")
    target = Path(path)
    try:
        refuse_store(target)
        figure.savefig(target, format="png", dpi=144)
    except OSError as error:
        raise OutputUnwritable(
            f"the plot '{target}' cannot be written: {error.strerror}", path=target
        ) from error
    return CodebookPlot(
        path=str(target),
        version=name,
        rows=len(rows),
        shrunk=int(shrunk.sum()),
        conflicts=len(pairs),
    )


def _rows(
    store: Store, version: int, fingerprint: str | None
) -> tuple[Memory | None, npt.NDArray[np.int64]]:
    """Returns the memory that holds most of a version's edits, and their rows in it."""
    ids = store.history.active_ids(version)
    memories = load_memories(store, fingerprint).values() if fingerprint else ()
    found = [(memory, memory.rows(ids)) for memory in memories]
    best = max(found, key=lambda one: len(one[1]), default=(None, np.zeros(0, np.int64)))
    return best if len(best[1]) else (None, best[1])


def _figure(
    memory: Memory,
    rows: npt.NDArray[np.int64],
    radii: npt.NDArray[np.float32],
    pairs: npt.NDArray[np.float64],
    shrunk: npt.NDArray[np.bool_],
    *,
    title: str,
) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PackageMissing(
            "plotting a codebook needs matplotlib", package="matplotlib",
            hint="pip install 'editkit[plot]'",
        ) from error  # fmt: skip
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    figure.suptitle(f"{title}: {len(rows)} rows, {int(shrunk.sum())} with a smaller radius")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _draw_radii(first, memory.initial(rows), radii[rows])
    _draw_distances(second, memory, rows, radii)
    _draw_conflicts(third, pairs, radii)
    _draw_map(fourth, memory, rows, radii, pairs, shrunk)
    return figure


def _draw_radii(axes: Any, initial: Any, now: Any) -> None:
    bins = np.histogram_bin_edges(np.concatenate([initial, now]), bins=40)
    axes.hist(initial, bins, color=_GREY, label="initial")
    axes.hist(now, bins, color=_BLUE, histtype="step", linewidth=1.8, label="in use")
    axes.set(title="radii", xlabel="radius, L2", ylabel="rows")
    axes.legend()


def _draw_distances(axes: Any, memory: Memory, rows: Any, radii: Any) -> None:
    step = max(1, len(rows) // _SAMPLED)
    nearest = []
    for row, key in zip(rows[::step], memory.keys(rows[::step]), strict=True):
        found, apart = memory.table.nearest(key, 2, radii)
        nearest += [d for other, d in zip(found, apart, strict=True) if other != row][:1]
    if nearest:
        axes.hist(nearest, 40, color=_ORANGE, label="to the nearest other key")
    axes.axvline(float(np.median(radii[rows])), color=_BLUE, label="median radius")
    axes.set(title="distances between keys", xlabel="distance, L2", ylabel="rows")
    axes.legend()


def _draw_conflicts(axes: Any, pairs: Any, radii: Any) -> None:
    if len(pairs):
        first, second = pairs[:, 0].astype(int), pairs[:, 1].astype(int)
        both = radii[first] + radii[second]
        axes.scatter(pairs[:, 2], both, s=10, color=_BLUE)
        end = float(max(pairs[:, 2].max(), both.max()))
        axes.plot([0, end], [0, end], color=_GREY, linewidth=1, label="the balls touch")
        axes.legend()
    else:
        axes.text(0.5, 0.5, "no conflicts between\ndifferent targets", ha="center", va="center",
                  transform=axes.transAxes, color=_GREY)  # fmt: skip
    axes.set(title=f"conflicts: {len(pairs)}", xlabel="distance of the two keys, L2",
             ylabel="sum of their radii")  # fmt: skip


def _draw_map(axes: Any, memory: Memory, rows: Any, radii: Any, pairs: Any, shrunk: Any) -> None:
    flat = _project(memory.keys(rows))
    place = {int(row): point for row, point in zip(rows, flat, strict=True)}
    for first, second, _ in pairs[:_SAMPLED]:
        (x0, y0), (x1, y1) = place[int(first)], place[int(second)]
        axes.plot([x0, x1], [y0, y1], color=_ORANGE, linewidth=0.7, zorder=1)
    if len(rows) <= _SAMPLED:
        from matplotlib.collections import EllipseCollection

        # The projection of a ball onto a plane is a disc of the same radius.
        width = 2 * radii[rows]
        balls = EllipseCollection(width, width, 0.0, units="xy", offsets=flat, facecolor="none",
                                  edgecolor=_GREY, linewidth=0.6,
                                  offset_transform=axes.transData)  # fmt: skip
        axes.add_collection(balls)
    for mask, color, label in ((~shrunk, _BLUE, "full radius"), (shrunk, _ORANGE, "smaller")):
        if mask.any():
            axes.scatter(*flat[mask].T, s=8, color=color, label=label, zorder=2)
    axes.set(title="keys, first two principal directions", xlabel="L2", ylabel="L2")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend()


def _project(keys: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Projects keys ``(n, d)`` orthogonally onto the plane in which they vary most, ``(n, 2)``."""
    wide = keys.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    fitted = centred[:: max(1, len(centred) // 5000)]  # enough for two directions
    directions = np.linalg.svd(fitted, full_matrices=False)[2][:2]
    flat = np.zeros((len(keys), 2))
    flat[:, : len(directions)] = centred @ directions.T
    return flat
