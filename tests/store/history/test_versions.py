from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editkit_store.errors import InvalidTag, UnknownVersion
from editkit_store.history.versions import check_tag, format_version, parse_version

TAGS = {"prod": 3, "v-next": 4, "a-b": 2}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("v0", 0), ("v12", 12), ("12", 12), ("V7", 7), ("@", 20), ("@-", 19), ("@--", 18),
        ("@~5", 15), ("v12-", 11), ("v12~12", 0), ("prod", 3), ("prod-", 2), ("a-b", 2),
        ("v-next", 4), (" v1 ", 1),
    ],
)  # fmt: skip
def test_version_expressions_name_versions(text: str, number: int) -> None:
    assert parse_version(text, current=20, tags=TAGS) == number


@pytest.mark.parametrize(
    "text", ["", "v21", "v-1", "-", "@~21", "@+", "prod~4", "nope", "v", "1.5", "v12x", "~1", "\n"]
)
def test_anything_else_is_an_unknown_version(text: str) -> None:
    with pytest.raises(UnknownVersion, match="there is no version") as caught:
        parse_version(text, current=20, tags=TAGS)
    assert caught.value.current == 20


def test_the_hint_names_the_range_and_tags_that_look_like_it() -> None:
    with pytest.raises(UnknownVersion) as caught:
        parse_version("prood", current=20, tags=TAGS)
    assert caught.value.hint == "versions are v0 to v20; tags: prod"
    with pytest.raises(UnknownVersion) as caught:
        parse_version("v1", current=0, tags={})
    assert caught.value.hint == "v0 is the only version so far"


@given(st.text())
def test_no_text_crashes_the_parser(text: str) -> None:
    try:
        number = parse_version(text, current=7, tags=TAGS)
    except UnknownVersion:
        return
    assert 0 <= number <= 7


@given(st.integers(0, 10**6))
def test_a_formatted_version_reads_back(number: int) -> None:
    assert parse_version(format_version(number), current=10**6, tags={}) == number


@pytest.mark.parametrize(
    "name", ["", "v12", "12", "@", "a b", "-a", "a-", "a~1", "ä", "a\n", "a" * 101]
)
def test_names_that_cannot_be_tags_are_refused(name: str) -> None:
    with pytest.raises(InvalidTag):
        check_tag(name)


@pytest.mark.parametrize("name", ["prod", "release/1.0", "v12-rc1", "_x", "A.b_c-d"])
def test_ordinary_names_can_be_tags(name: str) -> None:
    assert check_tag(name) == name
