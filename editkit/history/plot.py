"""Plotting what a method has learned, without a model."""

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
    """Plots the edits of a version to a PNG file, with the first method that supports it.

    Args:
        store: The history.
        path: The file to write.
        version: Version expression.

    Raises:
        UnsupportedMethod: No installed method can plot its edits.
        UnknownVersion, InvalidRequest, PackageMissing, OutputUnwritable, UnsafeTarget: See the
            method.
    """
    for one in registered().values():
        plot = None if one.spec is None else one.spec.load_plot()
        if plot is not None:
            found: CodebookPlot = plot(store, path, version=version)
            return found
    raise UnsupportedMethod("no installed method can plot its edits")
