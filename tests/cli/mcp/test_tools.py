"""What a model is told of the tools: schemas that are valid and small, hints that are true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli.http.conftest import Running
from cli.mcp.conftest import over_http, run
from jsonschema import Draft202012Validator

from editkit_cli.mcp.server import INSTRUCTIONS, TOOLS

NAMES = {
    "generate", "explain", "add", "adjust", "list", "show", "log", "diff", "rollback", "revert",
    "undo", "verify", "status", "replay", "operation",
}  # fmt: skip
CHANGING = {"add", "adjust", "rollback", "revert", "undo", "replay"}
EVERY = sorted(TOOLS)


def test_there_is_a_tool_for_everything_an_agent_does() -> None:
    assert set(TOOLS) == NAMES
    assert {name for name, tool in TOOLS.items() if not tool.is_reading} == CHANGING


@pytest.mark.parametrize("name", EVERY)
def test_every_tool_is_described_with_what_it_changes_and_what_comes_next(name: str) -> None:
    said = TOOLS[name].definition
    assert said.description is not None
    assert 100 < len(said.description) < 900
    assert ("Changes nothing" in said.description) is (name not in CHANGING)
    assert said.title


@pytest.mark.parametrize("name", EVERY)
def test_every_tool_has_hints_that_agree_with_what_it_does(name: str) -> None:
    said = TOOLS[name].definition.annotations
    assert said is not None
    assert said.read_only_hint is (name not in CHANGING)
    assert said.destructive_hint is (name in {"rollback", "revert", "undo"})
    assert said.open_world_hint is False
    assert isinstance(said.idempotent_hint, bool)
    assert (TOOLS[name].role == "read") is (name not in {*CHANGING, "verify"})


@pytest.mark.parametrize("name", EVERY)
def test_every_schema_is_valid_and_every_argument_described(name: str) -> None:
    said = TOOLS[name].definition
    for schema in (said.input_schema, said.output_schema):
        assert schema is not None
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"  # what clients of earlier protocols insist on
    for argument, about in said.input_schema.get("properties", {}).items():
        assert about.get("description"), f"{name}.{argument}"
        assert "title" not in about
    assert said.input_schema["additionalProperties"] is False


@pytest.mark.parametrize("name", sorted(CHANGING))
def test_whatever_changes_something_has_a_dry_run_and_takes_a_reason(name: str) -> None:
    arguments = TOOLS[name].definition.input_schema["properties"]
    assert {"dry_run", "reason"} <= set(arguments)
    assert arguments["dry_run"]["default"] is False


def test_what_a_model_has_to_read_of_all_tools_is_a_few_thousand_words() -> None:
    said = [TOOLS[name].definition for name in EVERY]
    read = json.dumps([[one.description, one.input_schema] for one in said])
    assert len(read) < 25_000
    assert len(INSTRUCTIONS) < 1_000


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_clients_of_both_protocols_get_the_same_tools(shared: Running, mode: Any) -> None:
    async def work() -> None:
        async with over_http(shared, mode=mode) as agent:
            (listed,) = [(await agent.client.list_tools()).tools]
            assert [one.name for one in listed] == list(TOOLS)
            assert listed[0].annotations == TOOLS["generate"].definition.annotations
            assert agent.client.server_info is not None
            assert agent.client.server_info.name == "editkit"
            assert (await agent.told("status"))["model"] == shared.model

    run(work())
