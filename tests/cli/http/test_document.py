"""The OpenAPI document is complete and true: fuzzed from itself, without a 500."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from schemathesis import checks

from editkit.methods.registry import registered

ROLES = {"read", "edit", "admin"}


@pytest.fixture(scope="module")
def document(calm: Any) -> Any:
    with calm.client() as client:
        return client.get("/openapi.json").json()


def test_every_path_says_what_it_answers_what_may_go_wrong_and_that_it_needs_a_token(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            place = f"{method} {path}"
            assert operation["summary"], place
            assert operation["description"], place
            responses = operation["responses"]
            assert "422" not in responses, place
            for status in ("400", "401", "403", "500"):
                content = responses[status]["content"]["application/json"]
                assert content["schema"]["$ref"].endswith("/ErrorBody"), place
            if path not in ("/healthz", "/v1/session"):  # where one comes from
                assert operation["security"] == [{"HTTPBearer": []}], place
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_the_document_names_the_records(document):
    names = set(document["components"]["schemas"])
    records = "Added Edit LogEntry Shown Diff ViewChanged Explanation Status Verified Generation"
    assert {
        *records.split(),
        "OperationStatus",
        "ErrorBody",
        "ChatCompletion",
        "Completion",
    } <= names
    edit = document["components"]["schemas"]["Edit"]["properties"]
    assert {"id", "prompt", "target", "status"} <= set(edit)


def sensible(body: Any, model: str) -> Any:
    """What gets further than most of what is made up: it names things that are there."""
    if isinstance(body, dict):
        body = {name: sensible(value, model) for name, value in body.items()}
        for name, value in (("model", model), ("version", "@"), ("kind", "fact")):
            if name in body:
                body[name] = value
        if "target" in body or "k" in body:
            body["prompt"] = body.get("prompt") or "sea"
            for name in ("chat", "method", "idempotency_key"):
                body.pop(name, None)
        for name in ("max_tokens", "max_completion_tokens", "max_new_tokens", "stream_options"):
            body.pop(name, None)
    if isinstance(body, list):
        return [sensible(one, model) for one in body]
    return body


def test_requests_made_up_from_the_document_never_fail_the_server(start):
    """A few of each; `seen` makes sure that routes answered, and were not just refusing."""
    server = start()
    server.add("The red cat is", "blue")
    schema = schemathesis.openapi.from_url(
        f"{server.url}/openapi.json", headers={"Authorization": f"Bearer {server.session}"}
    )
    seen: set[int] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in ("/v1/events",):  # it has no end
            continue

        @drawn(case=operation.as_strategy(), is_sensible=st.booleans())
        @settings(
            max_examples=6, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: Any, is_sensible: bool) -> None:
            if is_sensible:
                case.body = sensible(case.body, server.model)
            said = case.call(
                base_url=server.url, headers={"Authorization": f"Bearer {server.session}"}
            )
            seen.add(said.status_code)
            case.validate_response(
                said,
                checks=[
                    checks.not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                ],
            )

        ask()
    assert {200, 400} <= seen
    assert server.kit.store.verify().ok


def test_the_document_names_the_installed_methods_and_closes_no_list(document):
    schemas = document["components"]["schemas"]
    for body in ("AddBody", "EditBody", "ReplayBody"):
        method = schemas[body]["properties"]["method"]
        assert method["examples"] == list(registered())
        assert "enum" not in str(method)
