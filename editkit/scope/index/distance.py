"""The definition of distance that decides which edit fires.

Every other number in this package only narrows down the candidates. With ``k`` a key and ``q`` a
query of width ``d``:

    delta_j = fl32(k_j - q_j)
    distance = fl32(sqrt(fl64(sum_j delta_j ** 2)))

Each ``delta_j ** 2`` is exact in float64 (24 + 24 bits fit into 53), and the sum is a fixed tree
that depends only on ``d``: terms ``j`` and ``j + half`` are added, then the width is halved. It
uses only elementwise operations, whose results IEEE 754 fixes, so a distance does not depend on the
other rows of the call, their number, or the machine. ``sum(axis=1)`` and ``einsum`` guarantee no
order, and BLAS chooses one by shape and processor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Ints", "Vectors", "distances", "nearest_of"]

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BLOCK = 1 << 17
"""Float64 numbers per block: one megabyte, so that a block stays in the L2 cache."""

_NARROW = 32
"""Width below which the fold runs along the rows instead of across them.

Numpy's inner loop runs over the last axis; for a few terms its overhead would dominate.
"""

_FIRST_STEP = 64
"""Rows in the first step if there are many candidates."""


def distances(keys: Vectors, query: Vectors) -> Vectors:
    """Returns the L2 distance of every key to the query.

    Args:
        keys: ``(n, d)`` float32.
        query: ``(d,)`` float32.

    Returns:
        ``(n,)`` float32. NaN where key or query hold NaN, infinity where a difference overflows.
    """
    count, width = keys.shape
    found = np.empty(count, np.float32)
    step = max(1, _BLOCK // max(1, width))
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, count, step):
            delta = keys[start : start + step] - query
            found[start : start + step] = np.sqrt(_fold(np.square(delta, dtype=np.float64)))
    return found


def nearest_of(
    keys: Vectors,
    query: Vectors,
    positions: Ints,
    lower: npt.NDArray[np.float64],
    radii: Vectors,
    k: int,
    *,
    is_inside: bool,
) -> tuple[Ints, Vectors]:
    """Returns the ``k`` nearest of some rows, nearest first; at equal distance the last row first.

    Rows are measured in the order of their lower bounds, in growing steps, until the next bound
    lies beyond the ``k``-th distance: with a near hit most rows are never measured. A bound *equal*
    to it does not stop the loop, since that row may be the later one.

    Args:
        keys: ``(n, d)`` float32.
        query: ``(d,)`` float32.
        positions: ``(m,)`` int64, rows of ``keys`` to choose from.
        lower: ``(m,)`` float64, bounds not above those rows' distances.
        radii: ``(m,)`` float32; rows with a negative radius are left out.
        k: Number of rows to return, at least one.
        is_inside: Return only rows whose distance is at most their radius.

    Returns:
        Positions int64 and distances float32.
    """
    kept = radii >= 0
    if is_inside:
        kept &= lower <= radii
    positions, lower, radii = positions[kept], lower[kept], radii[kept]
    if len(positions) > _FIRST_STEP:
        order = np.argsort(lower)
        positions, lower, radii = positions[order], lower[order], radii[order]
    best, far = np.empty(0, np.int64), np.empty(0, np.float32)
    start, step = 0, _FIRST_STEP
    while start < len(positions) and (len(far) < k or lower[start] <= far[-1]):
        part = slice(start, start + step)
        block, found = positions[part], distances(keys[positions[part]], query)
        if is_inside:
            hits = found <= radii[part]
            block, found = block[hits], found[hits]
        block, found = np.concatenate([best, block]), np.concatenate([far, found])
        order = np.lexsort((-block, found))[:k]
        best, far = block[order], found[order]
        start, step = start + step, 2 * step
    return best, far


def _fold(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums ``(n, d)`` to ``(n,)`` in an order that depends only on ``d``; overwrites ``terms``."""
    width = terms.shape[1]
    if width == 0:
        return np.zeros(len(terms))
    while width > _NARROW:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    columns = np.ascontiguousarray(terms[:, :width].T)  # (width, n)
    while width > 1:
        half = (width + 1) // 2
        columns[: width - half] += columns[half:width]
        width = half
    total: npt.NDArray[np.float64] = columns[0]
    return total
