"""Fair shares of what all clients use: nobody gets more than half, and the greediest gives way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable
from typing import TypeVar

__all__ = ["giving_way", "share"]

_T = TypeVar("_T")


def share(most: int) -> int:
    """Returns how much one client may have of what all clients share."""
    return max(1, most // 2)


def giving_way(
    held: Collection[_T],
    whose: Callable[[_T], Hashable],
    *,
    may: Callable[[_T], bool] = lambda _: True,
    weigh: Callable[[_T], int] = lambda _: 1,
) -> _T | None:
    """Returns what gives way to something new: the oldest item of the client with the most.

    Args:
        held: All items, oldest first.
        whose: Returns the client of an item.
        may: Returns whether an item can give way; others are passed over.
        weigh: Returns how much an item counts.
    """
    weights: Counter[Hashable] = Counter()
    for one in held:
        weights[whose(one)] += weigh(one)
    # `max` returns the first of equals, which is the oldest.
    return max(filter(may, held), key=lambda one: weights[whose(one)], default=None)
