"""The picture of what a method has learned. Needs no model."""

from __future__ import annotations

import os

from editkit.errors import UnsupportedMethod
from editkit.methods.registry import registered
from editkit_store import Store
from editkit_store.records.comparisons import CodebookPlot

__all__ = ["plot_codebook"]


def plot_codebook(
    store: Store, path: str | os.PathLike[str], *, version: str = "@"
) -> CodebookPlot:
    """Draws the edits of a version to a PNG file, by the first method that can draw its edits.

    Args:
        store: The history.
        path: The file to write.
        version: Version expression.

    Raises:
        UnsupportedMethod: No installed method draws its edits.
        UnknownVersion, InvalidRequest, PackageMissing, OutputUnwritable, UnsafeTarget: See the
            method.
    """
    for one in registered().values():
        plot = None if one.spec is None else one.spec.load_plot()
        if plot is not None:
            found: CodebookPlot = plot(store, path, version=version)
            return found
    raise UnsupportedMethod("no method that is installed draws its edits")
