from __future__ import annotations

from evaluated import point, share

from editkit.evaluation.measures import MEASURES, Measure, leaders
from editkit.evaluation.records import Mean, Point, Share


def measure(title: str) -> Measure:
    (found,) = [one for one in MEASURES if one.title == title]
    return found


def test_every_share_and_mean_of_a_point_is_shown() -> None:
    full = point("grace", 700)
    names = [one for one in Point.model_fields if isinstance(getattr(full, one), (Share, Mean))]
    known = {
        name: getattr(full, name).model_copy(update={"value": number / 100})
        for number, name in enumerate(names)
    }
    shown = [found for one in MEASURES if (found := one.read(full.model_copy(update=known)))]
    assert len(names) == 10
    assert {one.value for one in known.values()} <= {one.number for one in shown}


def test_a_lead_is_clear_where_its_interval_lies_apart() -> None:
    reliability = measure("reliability")
    points = [
        point(name, 100, reliability=share(value, 100))
        for name, value in (("grace", 0.99), ("lora", 0.5), ("fine-tuning", 0.4))
    ]
    assert leaders(reliability, points) == {"grace": True}
    near = point("prompt-memory", 100, reliability=share(0.97, 100))
    assert leaders(reliability, [*points, near]) == {"grace": False}


def test_the_smaller_number_leads_where_it_is_better() -> None:
    points = [
        point("grace", 9, seconds_per_edit=0.5, false_fires=share(0.01, 900)),
        point("lora", 9, seconds_per_edit=0.1, false_fires=share(0.5, 900)),
        point("fine-tuning", 9, seconds_per_edit=0.2, false_fires=None),
    ]
    assert leaders(measure("seconds an edit"), points) == {"lora": False}  # it has no interval
    assert leaders(measure("false fires"), points) == {"grace": True}


def test_the_untouched_model_does_not_compete() -> None:
    points = [point("base", 9, locality=share(1, 900)), point("grace", 9, locality=share(0.9, 900))]
    assert leaders(measure("locality"), points) == {}
    points.append(point("lora", 9, locality=share(0.1, 900)))
    assert leaders(measure("locality"), points) == {"grace": True}


def test_equal_ones_lead_together_or_not_at_all() -> None:
    points = [point(name, 9, generalization=share(1, 90)) for name in ("grace", "lora")]
    assert leaders(measure("generalization"), points) == {}
    points += [point("fine-tuning", 9, generalization=share(0.1, 90))]
    assert leaders(measure("generalization"), points) == {"grace": False, "lora": False}


def test_nobody_leads_in_what_is_neither_good_nor_bad_or_was_not_measured() -> None:
    points = [point("grace", 9), point("grace:paper", 90)]
    assert leaders(measure("keys"), points) == {}
    bare = [point(name, 9, neighbours=False) for name in ("grace", "lora")]
    assert leaders(measure("locality of neighbours"), bare) == {}
    assert measure("locality of neighbours").read(bare[0]) is None
