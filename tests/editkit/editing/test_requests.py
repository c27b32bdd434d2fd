from __future__ import annotations

import pytest

from editkit.editing.requests import build_request
from editkit_store.errors import InvalidRequest


def test_a_chat_brings_its_prompt() -> None:
    chat = [{"role": "user", "content": "hi"}]
    request = build_request({"chat": chat, "target": "x"})
    assert request.prompt == "hi"
    for bad in ([], ["hi"], [{"role": "user"}], 3):
        with pytest.raises(InvalidRequest):
            build_request({"chat": bad, "target": "x"})


def test_a_scope_is_for_methods_that_have_scopes() -> None:
    asked = {"prompt": "p", "target": "t", "scope": "broad"}
    assert build_request(asked).scope == "broad"
    with pytest.raises(InvalidRequest, match="method 'elder' have no scope") as caught:
        build_request({**asked, "method": "elder"})
    assert caught.value.field == "scope"
