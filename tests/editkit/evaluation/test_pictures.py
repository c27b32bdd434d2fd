"""The pictures of an evaluation: what is drawn, what is left out, and that nothing is covered."""

from __future__ import annotations

import re
import struct
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
from evaluated import (
    HOSTILE,
    METHODS,
    NO_MEAN,
    NOTHING,
    curve,
    point,
    reach,
    report,
    scored,
    tradeoff,
)

from editkit.errors import PackageMissing
from editkit.evaluation import pictures
from editkit.evaluation.pictures import draw, svg
from editkit.evaluation.records import Reach, Report
from editkit_store.errors import StoreUnwritable

PNG = b"\x89PNG\r\n\x1a\n"
BARE: dict[str, Any] = {"reach": (), "tradeoffs": ()}
SHARES = ("edit_success", "reliability", "generalization", "locality", "neighbours")


def figures(shown: Report) -> dict[str, Any]:
    """The figures themselves, laid out as they are drawn."""
    with pictures._matplotlib() as figure_class:
        found = dict(pictures._figures(shown, figure_class))
        for figure in found.values():
            figure.draw_without_rendering()
    return found


def panels(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.axison]


def legends(figure: Any) -> list[Any]:
    return [one for part in (figure, *figure.subfigs) for one in part.legends]


def test_each_picture_is_a_png_that_can_be_read(tmp_path: Path) -> None:
    paths = draw(report(), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["curves.png", "tradeoff.png", "distances.png"]
    for path in paths:
        written = path.read_bytes()
        width, height = struct.unpack(">II", written[16:24])
        assert written[:8] == PNG
        assert 1500 < width < 1700
        assert 500 < height < 1500


def test_every_method_has_a_colour_and_a_marker_of_its_own() -> None:
    lines = panels(figures(report(METHODS, **BARE))["curves"])[0].lines
    assert len({line.get_color() for line in lines}) == 8
    assert len({line.get_marker() for line in lines}) == 8


def test_a_line_goes_through_the_points_and_neighbours_are_dashed() -> None:
    shown = report(("grace",), **BARE)
    axes = {one.get_title(): one for one in panels(figures(shown)["curves"])}
    (line,) = axes["generalization"].lines
    assert list(line.get_xdata()) == [one.edits for one in shown.points]
    assert list(line.get_ydata()) == [one.generalization.value for one in shown.points]
    locality, neighbours = axes["locality (dashed: neighbours)"].lines
    assert (locality.get_linestyle(), neighbours.get_linestyle()) == ("-", "--")
    assert list(neighbours.get_ydata()) == [one.neighbours.value for one in shown.points]


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("edits", [(1, 10, 700), (700,)])
def test_no_legend_covers_anything_or_leaves_the_picture(count: int, edits: tuple[int]) -> None:
    names = tuple(f"{name} with a long name" for name in METHODS[:count])
    shown = report(names, edits, reach=tuple(map(reach, names)), curves=tuple(map(curve, names)),
                   tradeoffs=tuple(map(tradeoff, names)))  # fmt: skip
    for figure in figures(shown).values():
        boxes = [axes.get_tightbbox() for axes in panels(figure)]
        boxes += [one.get_window_extent() for one in legends(figure)]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        for box in boxes:
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1


def test_one_point_a_method_is_a_row_of_its_own() -> None:
    figure = figures(report(METHODS, (700,), **BARE))["curves"]
    axes = panels(figure)[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(METHODS)
    assert legends(figure) == []
    uneven = report(points=(point("grace", 700), point("lora", 30)), **BARE)
    labels = panels(figures(uneven)["curves"])[0].get_yticklabels()
    assert [one.get_text() for one in labels] == ["grace (700 edits)", "lora (30 edits)"]


def test_what_a_report_does_not_have_is_left_out() -> None:
    bare = [
        point("grace", edits, neighbours=False, retention=None, false_fires=None)
        for edits in (1, 10)
    ]
    found = figures(report(points=tuple(bare), **BARE))
    assert list(found) == ["curves"]
    titles = [axes.get_title() for axes in panels(found["curves"])]
    assert titles == ["edit success", "reliability", "generalization", "locality",
                      "seconds an edit"]  # fmt: skip


def test_without_any_value_only_the_seconds_are_left(tmp_path: Path) -> None:
    nothing: dict[str, Any] = dict.fromkeys(SHARES, NOTHING)
    nothing |= {f"{name}_forced": NO_MEAN for name in SHARES[1:]}
    del nothing["neighbours"]
    bare = point("grace", 3, neighbours=False, retention=None, false_fires=None, **nothing)
    empty = Reach(method="grace", radius=1, rephrases_right=(), rephrases_wrong=(), probes=())
    found = figures(report(points=(bare,), reach=(empty,), tradeoffs=(tradeoff("grace", 0),)))
    assert [axes.get_title() for axes in panels(found["curves"])] == ["seconds an edit"]
    assert list(found) == ["curves"]
    assert draw(report(points=(), **BARE), tmp_path) == []


def test_a_point_before_any_edit_and_an_endless_perplexity_are_not_drawn() -> None:
    kept = point("grace", 10).retention
    assert kept is not None
    endless = kept.model_copy(update={"perplexity": float("inf")})
    before = point("grace", 1).model_copy(update={"edits": 0})
    shown = report(
        points=(before, point("grace", 1), point("grace", 10, retention=endless)), **BARE
    )
    axes = {one.get_title(): one for one in panels(figures(shown)["curves"])}
    assert list(axes["reliability"].lines[0].get_xdata()) == [1, 10]
    perplexity = axes["perplexity, relative to base"]
    assert list(perplexity.lines[0].get_xdata()) == [1]


def test_a_method_stands_at_its_median_radius() -> None:
    shown = report(("grace",), points=())
    left, right = panels(figures(shown)["tradeoff"])
    mark = left.lines[1]
    (spared,), (reached,) = mark.get_data()
    curve = shown.tradeoffs[0]
    place = sorted((*curve.radii, shown.reach[0].radius)).index(shown.reach[0].radius)
    assert curve.spared[place] <= spared <= curve.spared[place - 1]
    assert curve.reached[place - 1] <= reached <= curve.reached[place]
    assert list(right.lines[-1].get_xdata()) == [shown.reach[0].radius] * 2
    unknown = figures(report(("grace",), points=(), reach=()))["tradeoff"]
    assert len(panels(unknown)[0].lines) == 1


def test_histograms_are_shares_of_each_group() -> None:
    (axes,) = panels(figures(report(("grace",), points=(), tradeoffs=()))["distances"])
    assert len(axes.patches) == 8  # an area and an outline of each group
    (radius,) = axes.lines
    assert radius.get_xdata()[0] == report(("grace",)).reach[0].radius
    for outline in axes.patches[::2]:
        corners = outline.get_xy()
        area = sum(
            (b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(corners, corners[1:], strict=False)
        )
        width = axes.get_xlim()[1] / 40
        assert abs(area) / width == pytest.approx(1.0)


def test_equal_reports_give_equal_svg_whatever_the_user_has_set() -> None:
    import matplotlib

    shown = report(("grace", "prompt-memory"), (1, 10))
    first = svg(shown)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.hashsalt": "x"}):
        mine = dict(matplotlib.rcParams)
        assert svg(shown) == first
        assert dict(matplotlib.rcParams) == mine
    assert svg(report(edits=(1,), **BARE))["curves"] != first["curves"]


def test_svg_needs_nothing_from_elsewhere_and_ids_are_its_own() -> None:
    found = svg(report())
    ids: list[str] = []
    for name, text in found.items():
        root = minidom.parseString(text).documentElement
        assert root is not None
        assert text.startswith("<svg ")
        assert root.getElementsByTagName("title")[0].firstChild is not None
        assert not root.getElementsByTagName("style")
        assert not root.getElementsByTagName("image")
        own = [one.getAttribute("id") for one in root.getElementsByTagName("*")]
        own = [one for one in own if one]
        used = re.findall(r'href="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
        assert used
        assert {one.lstrip("#") for one in used} <= set(own)
        assert all(one.startswith("#") for one in used)
        assert all(one.startswith(f"{name}-") for one in own)
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
        ids += own
    assert len(ids) == len(set(ids))


def test_any_name_is_drawn_as_text() -> None:
    names = (HOSTILE, "$\\frac{$", "_hidden", "-->", "\ud800\0\n", "模型")
    points = tuple(point(name, edits) for name in names for edits in (1, 10))
    shown = report(names, points=points, model=HOSTILE, **BARE)
    (legend,) = legends(figures(shown)["curves"])
    assert "_hidden" in [one.get_text() for one in legend.get_texts()]
    assert len(legend.get_texts()) == len(names)
    text = svg(shown)["curves"]
    minidom.parseString(text)
    assert "<script" not in text


def test_a_missing_package_and_a_folder_that_is_a_file_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritable, match="cannot be written") as unwritable:
        draw(report(("grace",)), tmp_path / "file")
    assert unwritable.value.path == tmp_path / "file"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for drawn in (svg, lambda shown: draw(shown, tmp_path)):
        with pytest.raises(PackageMissing) as missing:
            drawn(report(("grace",)))
        assert missing.value.hint == "pip install 'editkit[plot]'"
    assert list(tmp_path.glob("*.png")) == []


def test_right_answers_are_drawn_against_false_fires_up_to_what_is_known() -> None:
    shown = report(("grace",), (700,), reach=(), tradeoffs=(), curves=(curve("grace"),),
                   points=(point("grace", 700, **scored(0.6, 0.25)),))  # fmt: skip
    left, right = panels(figures(shown)["blocks"])
    reached, known, mark = left.lines
    assert len(reached.get_xdata()) == 41
    assert len(known.get_xdata()) == 21  # thresholds up to 1
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.25, 0.6))
    assert [text.get_text() for text in left.texts] == ["0.5", "1", "1.5", "2"]
    assert len(right.lines) == 4  # three series, and the present threshold
