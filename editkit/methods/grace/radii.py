"""The radii of a view under rule ``disjoint``, derived only here.

    eps_i(view) = min(eps0_i, min { d_ij / 2 : j conflicts with i, j in the view })

with the initial radius eps0_i and the distance d_ij of two keys in conflict: they have different
targets, and their initial balls reach each other. The running model derives radii from rows in
memory, and a comparison of versions from columns of the store; both call this function.

Uses only numpy: comparing two versions must not load a deep-learning framework.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["give_way"]

Floats = npt.NDArray[np.float32]


def give_way(
    radii: Floats, first: Sequence[int], second: Sequence[int], apart: Sequence[float]
) -> None:
    """Shrinks the radii of conflicting rows, in place.

    Args:
        radii: ``(n,)`` float32, L2: the initial radius of each row of the view, -1 for other rows.
        first: One row of each conflicting pair.
        second: The other row.
        apart: The distance between their keys, L2.
    """
    if not len(first):
        return
    one, other = np.array(first), np.array(second)
    meet = (radii[one] >= 0) & (radii[other] >= 0)
    half = np.array(apart, np.float32)[meet] / np.float32(2)
    np.minimum.at(radii, one[meet], half)
    np.minimum.at(radii, other[meet], half)
