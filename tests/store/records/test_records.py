from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from editkit_store import records
from editkit_store.records import Edit, EditRequest, Generation
from editkit_store.records.comparisons import Diff

requests = st.builds(
    EditRequest,
    prompt=st.text(min_size=1),
    target=st.text(min_size=1),
    kind=st.sampled_from(["fact", "label", "passage"]),
    method=st.sampled_from(["grace", "elder"]),
    subject=st.none() | st.text(),
    rephrases=st.lists(st.text(), max_size=3).map(tuple),
    chat=st.none()
    | st.lists(
        st.builds(records.Message, role=st.sampled_from(["user", "assistant"]), content=st.text()),
        min_size=1,
        max_size=3,
    ).map(tuple),
    reason=st.none() | st.text(),
)


@given(requests)
def test_a_request_survives_json(request: EditRequest) -> None:
    assert EditRequest.model_validate_json(request.model_dump_json()) == request
    assert EditRequest.model_validate(request.model_dump(mode="json")) == request


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        EditRequest.model_validate({"prompt": "a", "target": "b", "weight": 3})


def test_records_are_frozen() -> None:
    request = EditRequest(prompt="a", target="b")
    with pytest.raises(ValidationError, match="frozen"):
        request.prompt = "c"  # type: ignore[misc]  # the point of the test


def test_a_diff_has_the_key_from() -> None:
    dumped = Diff(from_="v0", to="v1").model_dump(mode="json")
    assert {"from", "to", "added", "removed", "codebook", "adaptors", "behavior"} <= set(dumped)
    assert set(dumped["codebook"]) >= {"added", "removed", "radius_changed"}


def test_the_text_of_a_generation_is_its_string() -> None:
    assert str(Generation(text="Canberra", version="v1")) == "Canberra"


def test_an_edit_shows_the_keys_that_others_rely_on() -> None:
    wanted = {"id", "prompt", "target", "kind", "method", "rephrases", "subject", "status"}
    assert wanted <= set(Edit.model_fields)


def test_every_public_record_is_exported_and_documented() -> None:
    defined = {
        name
        for name, value in vars(records).items()
        if isinstance(value, type) and issubclass(value, records.Record)
    }
    assert defined <= set(records.__all__)
    assert all(getattr(records, name).__doc__ for name in defined)
