"""An evaluation as CSV: every number is there, every text survives, and none is a formula."""

from __future__ import annotations

import csv
import io
import math

import pytest
from evaluated import METHODS, case, point, report
from hypothesis import given
from hypothesis import strategies as st

from editkit.evaluation.records import CaseResult, Point, Share
from editkit.evaluation.tables import CASE_COLUMNS, POINT_COLUMNS, cases_csv, plain, points_csv


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_there_is_a_row_for_each_point_and_a_column_for_each_of_its_fields() -> None:
    shown = report(METHODS, (1, 10, 700))
    rows = read(points_csv(shown))
    assert [(row["method"], int(row["edits"])) for row in rows] == [
        (one.method, one.edits) for one in shown.points
    ]
    assert len(rows) == 24
    assert all(tuple(row) == POINT_COLUMNS and None not in row.values() for row in rows)
    nested = {"retention", "kind", "language"}  # columns of their own, and rows of cases.csv
    assert set(Point.model_fields) - nested <= set(POINT_COLUMNS)
    kept = type(shown.points[0].retention)
    assert set(kept.model_fields) <= set(POINT_COLUMNS)  # type: ignore[union-attr]


def test_numbers_come_back_as_they_were() -> None:
    shown = report()
    for row, one in zip(read(points_csv(shown)), shown.points, strict=True):
        for name, field in Point.model_fields.items():
            found = getattr(one, name)
            if isinstance(found, Share):
                assert float(row[name]) == found.value
                assert float(row[f"{name}_low"]) == found.low
                assert float(row[f"{name}_high"]) == found.high
                assert int(row[f"{name}_hits"]) == found.hits
                assert int(row[f"{name}_count"]) == found.count
            elif field.annotation is float:
                assert float(row[name]) == found
        assert one.retention is not None
        assert float(row["base_answers_hits"]) == one.retention.base_answers.hits
        assert float(row["accuracy_high"]) == one.retention.accuracy.high
        ratio = float(row["perplexity"]) / float(row["base_perplexity"])
        assert float(row["perplexity_ratio"]) == ratio


def test_what_there_is_no_number_for_is_empty() -> None:
    bare = point("fine-tuning", 5, neighbours=False, retention=None, false_fires=None)
    (row,) = read(points_csv(report(points=(bare,))))
    assert (row["neighbours"], row["neighbours_low"]) == ("", "")
    assert (row["neighbours_hits"], row["neighbours_count"]) == ("0", "0")
    assert {row[name] for name in POINT_COLUMNS if name.startswith("false_fires")} == {""}
    assert {row[name] for name in ("perplexity", "base_answers_hits", "keys")} == {""}


def test_rows_end_as_the_standard_says_and_the_header_stands_alone() -> None:
    text = points_csv(report(methods=(), points=()))
    assert text == ",".join(POINT_COLUMNS) + "\r\n"
    assert cases_csv([case("edit")]).count("\r\n") == 2


def test_cases_have_a_column_for_each_field() -> None:
    assert tuple(CaseResult.model_fields) == CASE_COLUMNS
    found = read(cases_csv([case("probe"), case("edit", fired=None, right=True)]))
    assert [row["asked"] for row in found] == ["probe", "edit"]
    assert [row["right"] for row in found] == ["false", "true"]
    assert [row["fired"] for row in found] == ["17", ""]
    assert found[0]["distance"] == "0.4812"


@pytest.mark.parametrize(
    "said",
    ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\rx", "\nx", "\uff1d1", "'=1", "''+1"],
)
def test_a_text_that_spreadsheets_would_compute_gets_a_quote(said: str) -> None:
    (row,) = read(cases_csv([case("edit", prompt=said, answer=said, fired_prompt=said)]))
    for name in ("prompt", "answer", "fired_prompt"):
        assert row[name] == f"'{said}"
        assert plain(row[name]) == said


@pytest.mark.parametrize("said", ["", "'quoted'", "a=b", "1-1", "x\n=1", 'say "hi", twice'])
def test_other_texts_stay_as_they_are(said: str) -> None:
    (row,) = read(cases_csv([case("edit", prompt=said)]))
    assert row["prompt"] == said == plain(said)


@given(st.text(alphabet=st.sampled_from("=+-@',\"\r\n\t; a1\uff1d\u2028\0é")))
def test_any_text_comes_back_and_none_begins_like_a_formula(said: str) -> None:
    (row,) = read(cases_csv([case("rephrase", prompt=said, wanted=said)]))
    assert plain(row["prompt"]) == plain(row["wanted"]) == said
    assert row["prompt"].lstrip()[:1] not in set("=+-@\uff1d")


@pytest.mark.parametrize(
    ("number", "written"),
    [(-0.5, "-0.5"), (1e-07, "0.0000001"), (2.5e20, "250000000000000000000"), (math.inf, "inf")],
)
def test_numbers_are_plain_and_never_quoted(number: float, written: str) -> None:
    (row,) = read(cases_csv([case("edit", distance=number)]))
    assert row["distance"] == written
