from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editkit_store.artifacts import record_digest
from editkit_store.digest import (
    canonical_json,
    canonical_number,
    canonical_text,
    digest_bytes,
    digest_json,
    short_id,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(plain)
def test_canonical_json_reads_back_as_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, int]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert digest_json(value) == digest_json(backwards)


def test_digests_of_known_content_stay_what_they_are() -> None:
    # Golden values: a change here makes every existing store unverifiable.
    assert canonical_json({"b": [1, None, "é"], "a": True}) == '{"a":true,"b":[1,null,"é"]}'
    assert digest_json({"b": [1, None, "é"], "a": True}) == (
        "sha256:eaa728c5bbdde78b94c0dd181a4e2c4dfced6609a4ac9ba8bd019c9e5e5366a1"
    )
    assert digest_bytes(b"") == (
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_numbers_without_json_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_lone_surrogate_has_a_digest() -> None:
    assert digest_json("\ud800") != digest_json("\ud801")


def test_an_id_is_sixteen_hex_digits() -> None:
    assert len(short_id("x")) == 16
    assert set(short_id("x")) <= set("0123456789abcdef")


@given(st.none() | st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_the_quick_ways_write_what_the_general_one_does(
    text: str | None, number: float | None
) -> None:
    assert canonical_text(text) == canonical_json(text)
    assert canonical_number(number) == canonical_json(number)


@given(st.none() | st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_the_digest_of_a_record_is_that_of_its_columns(
    text: str | None, radius: float | None
) -> None:
    row = ["e", "f", "m", "grace", True, False, text, text or "", text, radius]
    time = datetime(2026, 1, 2, 3, 4, 5, 678)
    assert record_digest([*row, time]) == digest_json([*row, time.isoformat()])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_quick_number_without_json_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_number(number)
