"""The page of an evaluation: everything on it, nothing from elsewhere, nothing that runs."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluated import (
    HARMLESS,
    HOSTILE,
    METHODS,
    case,
    point,
    reach,
    report,
    scored,
    share,
    tradeoff,
    worst,
)

from editkit.evaluation.page import page, write_page
from editkit.evaluation.records import DataFile
from editkit_store.errors import StoreUnwritable

KINDS = ("edit", "rephrase", "probe", "neighbour")


class Page(HTMLParser):
    """Checks that tags close, and collects what is on a page."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("dd", "dt", "li", "p", "h1", "h2", "h3", "title"):
            self.said.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open  # in HTML, a slash closes nothing
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f" {data}" if self.open[-1] == "small" else data
        elif {"dd", "dt", "li", "p", "h1", "h2", "h3", "title"} & set(self.open):
            self.said[-1] += data

    @property
    def cells(self) -> set[str]:
        return {cell for row in self.rows for cell in row}

    def row(self, head: str) -> list[str]:
        return next(row[1:] for row in self.rows if row[0] == head)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


@pytest.mark.usefixtures("without_figures")
def test_what_was_measured_is_on_the_page() -> None:
    shown = report(METHODS)
    found = Page(page(shown))
    facts = {shown.model, shown.fingerprint, "2026-03-04 05:06:07 UTC", "editkit 0.1.0", "700"}
    facts |= {"torch 2.13.0, transformers 5.23.0, python 3.11.7", "7", "2"}
    assert facts <= set(found.said)
    for file in shown.data:
        assert [file.path, str(file.edits), file.digest] in found.rows
    settings = "site: layers.12.mlp.down_proj\nlearning rate: 0.1\nsteps: 100"
    assert all([method, settings] in found.rows for method in METHODS)


@pytest.mark.usefixtures("without_figures")
def test_the_last_point_of_each_method_is_a_column_and_every_point_a_row() -> None:
    shown = report(METHODS, (1, 10, 700), worst=())
    found = Page(page(shown))
    assert found.row("") == list(METHODS)
    last = [one for one in shown.points if one.edits == 700]
    for title, name in (("reliability", "reliability"), ("locality of neighbours", "neighbours")):
        for cell, one in zip(found.row(title), last, strict=True):
            of = getattr(one, name)
            assert f"{of.value:.3f}" in cell
            assert f" {of.low:.3f} to {of.high:.3f} {of.hits} of {of.count}" in cell
    points = [row for row in found.rows if row[0] in METHODS and row[1] in ("1", "10", "700")]
    assert [(row[0], row[1]) for row in points] == [(p.method, str(p.edits)) for p in shown.points]
    assert {len(row) for row in points} == {len(found.row("method")) + 1}


@pytest.mark.usefixtures("without_figures")
def test_the_best_is_bold_and_starred_only_where_intervals_lie_apart() -> None:
    points = tuple(
        point(name, 100, reliability=share(first, 100), generalization=share(second, 100))
        for name, first, second in (("grace", 0.99, 0.72), ("lora", 0.5, 0.7), ("base", 1, 1))
    )
    text = page(report(points=points))
    assert re.search(r">reliability</th><td class=.plain.><b>0.990</b> ★<small>", text)
    assert re.search(r">generalization</th><td class=.plain.><b>0.720</b><small>", text)
    assert "leaving out the untouched model" in text
    later = (*points, point("lora", 200))
    uneven = page(report(points=later))
    assert "equally many edits" in uneven
    assert "★" not in uneven
    alone = page(report(points=points[:1]))
    assert "Bold" not in alone
    assert '<td class="plain"><b>' not in alone


@pytest.mark.usefixtures("without_figures")
def test_what_was_not_measured_is_left_out_or_a_dash() -> None:
    bare = point("lora", 9, neighbours=False, retention=None, false_fires=None)
    found = Page(page(report(points=(bare, point("grace", 9, neighbours=False)))))
    titles = {row[0] for row in found.rows}
    assert "locality" in titles
    assert "locality of neighbours" not in titles
    order = found.row("")
    dashed = {title for title in titles - {""} if "–" in found.row(title)}
    assert order[0] == "grace"
    assert {"false fires", "keys", "perplexity, relative to base"} <= dashed
    assert found.row("false fires")[order.index("lora")] == "–"
    assert "None" not in "".join(found.cells)


@pytest.mark.usefixtures("without_figures")
def test_worst_cases_are_grouped_with_what_fired() -> None:
    found = Page(page(report()))
    headings = [
        "Edits whose own prompt fails", "Rephrases answered wrongly",
        "Probes whose answer changed", "Neighbours whose answer changed",
    ]  # fmt: skip
    assert [one for one in found.said if one in headings] == headings
    fired = "edit 17: Which river flows through Prague?\ndistance 0.4812, radius 0.55"
    missed = "none; nearest is edit 17\ndistance 0.9123, radius 0.55"
    rows = [row for row in found.rows if len(row) == 7 and row[0] != "method"]
    assert [row[-1] for row in rows] == ["–", fired, missed, fired, fired]
    assert rows[2][1:6] == ["42", worst()[2].prompt, "the Danube", "(nothing)", "0.50"]
    assert rows[4][5] == "–"
    own = Page(page(report(worst=(case("rephrase", fired=41), case("probe", fired=41)))))
    assert [row[-1].split(":")[0] for row in own.rows if len(row) == 7 and row[1] == "41"] == [
        "its own edit",
        "edit 41",
    ]


@pytest.mark.usefixtures("without_figures")
def test_the_tradeoff_is_told_in_words() -> None:
    shown = report(("grace",), tradeoffs=(tradeoff("grace").model_copy(update={
        "radii": (0.5, 0.6, 0.7), "reached": (0.4, 0.6, 0.7), "misled": (0.0, 0.1, 0.2),
        "spared": (1.0, 0.9, 0.5)}),))  # fmt: skip
    (said,) = [one for one in Page(page(shown)).said if one.startswith("grace: at")]
    assert "0.55, 50.0% of the rephrases fire the right edit and 5.0% another one" in said
    assert "95.0% of the probes and neighbours fire none" in said
    assert "0.6 has the largest sum of both: 60.0%" in said
    assert f"For {90 / 590:.1%} of the rephrases, another edit is nearer" in said
    beyond = report(("grace",), tradeoffs=shown.tradeoffs,
                    reach=(reach("grace").model_copy(update={"radius": 9.0}),))  # fmt: skip
    assert "the median radius of its edits, 9, is not one of those tried" in page(beyond)


@pytest.mark.usefixtures("without_figures")
def test_blocks_are_shown_by_kind_and_language_and_the_others_that_fire_are_listed() -> None:
    by = {"kind": {"typo": scored(0.4, 0.0, 20), HOSTILE: scored(0.5, 0.2, 20)},
          "language": {"de": scored(0.5, 0.1, 40)}}  # fmt: skip
    shown = report(
        points=(point("grace", 700, **scored(0.6, 0.25), **by), point("lora", 700)),
        worst=(case("same", prompt="see oslo"), case("other", prompt="leave Oslo")),
    )
    text = page(shown)
    found = Page(text)
    assert found.row("same: right")[0].startswith("0.600")
    fires = [cell[:5] for cell in found.row("other: fires")]
    assert fires == ["0.250", "–"]
    assert [cell[:5] for cell in found.row("typo")] == ["0.400", "0.300", "0.450", "0.889", "0.000"]
    assert found.row("de")[0].startswith("0.500")
    assert {"grace, by kind", "grace, by language"} <= set(found.said)
    assert {"see oslo", "leave Oslo"} <= found.cells
    assert "Other questions for which an edit fires" in found.said
    assert "<script" not in text


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    text = page(report(edits=(1, 10)))
    found = Page(text)
    bad = {"script", "link", "img", "image", "iframe", "object", "embed", "base", "form"}
    assert not set(found.tags) & bad
    assert found.tags.count("svg") == found.tags.count("figure") == 3
    assert not {name for name, _ in found.attributes} & {"src", "srcset", "action", "xml:base"}
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value for name, value in found.attributes if name.endswith("href")}
    assert links
    assert {f"#{one}" for one in ids} >= links
    assert {f"#{one}" for one in ids} >= set(re.findall(r"url\(([^)]*)\)", text))
    assert not re.search(r"https?:|@import|javascript:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "pip install" not in text
    assert page(report(edits=(1, 10))) == text


def test_without_matplotlib_the_page_says_how_to_get_the_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = page(report())
    assert "pip install &#39;editkit[plot]&#39;" in text
    assert "svg" not in Page(text).tags
    assert Page(text).row("edit success")


@pytest.mark.parametrize("field", ["prompt", "wanted", "answer", "fired_prompt", "method"])
@pytest.mark.usefixtures("without_figures")
def test_what_cases_say_is_text_and_never_markup(field: str) -> None:
    cases = tuple(case(kind, **{field: HOSTILE}) for kind in KINDS)
    text = page(report(worst=cases))
    assert text.count(HARMLESS) >= len(KINDS)
    assert "<script" not in text
    assert "\x1b" not in text
    Page(text)


def test_what_a_report_says_of_itself_is_text_too() -> None:
    text = page(
        report(
            (HOSTILE,), (1, 10),
            model=HOSTILE, tool=HOSTILE, fingerprint=HOSTILE,
            versions={HOSTILE: HOSTILE}, settings={HOSTILE: {HOSTILE: HOSTILE}},
            data=(DataFile(path=HOSTILE, digest=HOSTILE, edits=1),),
            reach=(reach(HOSTILE),), tradeoffs=(tradeoff(HOSTILE),),
            failed_requirements=(HOSTILE,),
        )
    )  # fmt: skip
    assert f'<div class="failed">\n<h2>Requirements not met</h2>\n<ul>\n<li>{HARMLESS}</li>' in text
    assert f"<h1>How well edits of {HARMLESS} hold</h1>" in text
    assert "<script" not in text
    assert "\x1b" not in text
    Page(text)


def test_an_evaluation_of_nothing_is_a_page_all_the_same() -> None:
    nothing: dict[str, Any] = {"points": (), "reach": (), "tradeoffs": (), "worst": (), "data": ()}
    found = Page(page(report((), (), **nothing)))
    assert "Nothing was measured." in found.said
    assert "Figures" not in found.said
    assert "What went wrong" not in found.said


@pytest.mark.usefixtures("without_figures")
def test_a_file_is_replaced_and_an_unwritable_one_named(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    write_page(report(worst=(case("edit", prompt="é \udcff"),)), target)
    assert target.read_bytes().startswith(b"<!doctype html>")
    assert "é &#56575;" in target.read_text(encoding="utf-8")
    for place in (tmp_path / "no" / "report.html", tmp_path):
        with pytest.raises(StoreUnwritable, match="cannot be written") as raised:
            write_page(report(), place)
        assert raised.value.path == place
