"""Who gives way where many use what few could use up."""

from __future__ import annotations

import pytest

from editkit_cli.service.shares import giving_way, share


@pytest.mark.parametrize(("most", "of_them"), [(1, 1), (2, 1), (3, 1), (64, 32)])
def test_nobody_gets_more_than_half_but_everybody_something(most, of_them):
    assert share(most) == of_them


def test_the_oldest_of_whoever_has_the_most_gives_way():
    held = ["a1", "b1", "b2", "a2", "b3"]
    assert giving_way(held, lambda one: one[0]) == "b1"
    assert giving_way(held, lambda one: one[0], may=lambda one: one != "b1") == "b2"


def test_where_they_cannot_the_next_one_does():
    held = ["b1", "a1", "b2"]
    assert giving_way(held, lambda one: one[0], may=lambda one: one[0] == "a") == "a1"
    assert giving_way(held, lambda one: one[0], may=lambda _: False) is None
    assert giving_way([], lambda one: one) is None


def test_the_most_may_be_told_by_weight():
    held = [("a", 1), ("a", 1), ("b", 5)]
    assert giving_way(held, lambda one: one[0], weigh=lambda one: one[1]) == ("b", 5)
