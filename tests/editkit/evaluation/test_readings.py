from __future__ import annotations

import pytest
from evaluated import point, report

from editkit.evaluation.readings import at_radius, last_points, method_names, perplexity_ratio
from editkit.evaluation.records import Tradeoff

CURVE = Tradeoff(
    method="grace",
    radii=(3.0, 1.0, 2.0),  # in any order
    reached=(0.9, 0.1, 0.5),
    misled=(0.3, 0.0, 0.1),
    spared=(0.2, 1.0, 0.8),
)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [
        (1.0, (0.1, 0.0, 1.0)),
        (2.0, (0.5, 0.1, 0.8)),
        (2.5, (0.7, 0.2, 0.5)),
        (3.0, (0.9, 0.3, 0.2)),
    ],
)
def test_between_two_radii_a_tradeoff_is_a_straight_line(
    radius: float, expected: tuple[float, ...]
) -> None:
    assert at_radius(CURVE, radius) == pytest.approx(expected)


@pytest.mark.parametrize("radius", [None, 0.99, 3.01, float("nan")])
def test_beyond_its_radii_a_tradeoff_says_nothing(radius: float | None) -> None:
    assert at_radius(CURVE, radius) is None
    assert at_radius(Tradeoff(method="x", radii=(), reached=(), misled=(), spared=()), 1.0) is None


def test_the_last_point_of_each_method_is_found_whatever_their_order() -> None:
    points = (point("lora", 30), point("grace", 10), point("lora", 3), point("grace", 1))
    shown = report(("grace", "lora"), points=points)
    assert [(one.method, one.edits) for one in last_points(shown)] == [("grace", 10), ("lora", 30)]


def test_a_method_that_the_report_does_not_name_is_found_all_the_same() -> None:
    shown = report(("grace",), points=(point("lora", 3),))
    assert method_names(shown) == ["grace", "lora", "fine-tuning"]  # the last in a worst case
    assert [one.method for one in last_points(shown)] == ["lora"]


def test_a_ratio_needs_both_perplexities() -> None:
    kept = point("grace", 10).retention
    assert kept is not None
    double = kept.model_copy(update={"perplexity": 36.4})
    assert perplexity_ratio(double) == pytest.approx(2.0)
    for missing in ({"perplexity": None}, {"base_perplexity": None}, {"base_perplexity": 0.0}):
        assert perplexity_ratio(kept.model_copy(update=missing)) is None
    assert perplexity_ratio(None) is None
