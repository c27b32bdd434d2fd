"""What many use and few could use up: nobody gets more than half, and the greediest gives way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import TypeVar

__all__ = ["giving_way", "share"]

_T = TypeVar("_T")


def share(most: int) -> int:
    """Returns how much of something one client may have, of which there is so much for all."""
    return max(1, most // 2)


def giving_way(
    held: Collection[_T],
    whose: Callable[[_T], Hashable],
    *,
    may: Callable[[_T], bool] = lambda _: True,
    weigh: Callable[[_T], int] = lambda _: 1,
) -> _T | None:
    """Returns what gives way to something new: the oldest of whoever holds the most.

    Args:
        held: All there is, oldest first.
        whose: Says who holds it.
        may: Whether it can give way; where nothing of one can, the next one's does.
        weigh: How much it counts.
    """
    weights: Counter[Hashable] = Counter()
    for one in held:
        weights[whose(one)] += weigh(one)
    # Of equals `max` returns the first, which is the oldest.
    return max(filter(may, held), key=lambda one: weights[whose(one)], default=None)
