"""What a command imports is what it costs: read from `sys.modules` of fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ALLOWED = {
    "annotated_types",
    "click",
    "duckdb",
    "editkit_cli",
    "editkit_store",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}

PROGRAM = """
import json, sys
before = set(sys.modules)
from editkit_cli.main import main
codes = []
for line in json.loads(sys.argv[1]):
    try:
        main(line)
    except SystemExit as left:
        codes.append(left.code)
loaded = sorted(set(sys.modules) - before)
print(json.dumps({"codes": codes, "modules": loaded}), file=sys.stderr)
"""


def imports_of(*lines: list[str]) -> tuple[list[int], set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    found = json.loads(done.stderr.splitlines()[-1])
    return found["codes"], set(found["modules"])


def top_level(modules: set[str]) -> set[str]:
    names = {name.partition(".")[0] for name in modules}
    standard = names & set(sys.stdlib_module_names)
    return {name for name in names - standard if not name.startswith(("_", "cython"))}


def test_log_as_json_imports_nothing_but_what_it_needs(history):
    codes, modules = imports_of(["log", "--json"])
    assert codes == [0]
    assert top_level(modules) <= ALLOWED


def test_a_table_in_a_pipe_needs_no_rich(history):
    codes, modules = imports_of(["log"], ["status"], ["show", "v1"])
    assert codes == [0, 0, 0]
    assert top_level(modules) <= ALLOWED


def test_a_command_imports_no_other_commands_module(history):
    _, modules = imports_of(["log", "--json"])
    loaded = {name for name in modules if name.startswith("editkit_cli.commands.")}
    assert loaded == {"editkit_cli.commands.log"}


@pytest.mark.parametrize("line", [["--help"], ["--version"], ["add", "--help"], ["chat", "--help"]])
def test_help_imports_no_framework(folder, line):
    codes, modules = imports_of(line)
    assert codes == [0]
    assert not top_level(modules) & {"torch", "transformers", "numpy", "faiss", "rich"}


def test_commands_that_need_no_model_import_neither_torch_nor_transformers(history):
    lines = [
        ["init", "--model", "smollm2-135m"],
        ["log"],
        ["log", "--json"],
        ["show", "v1"],
        ["status"],
        ["diff", "v1", "v3"],
        ["diff", "v1", "v3", "--html", "diff.html"],
        ["rollback", "v1"],
        ["revert", history[0]],
        ["undo"],
        ["redo"],
        ["tag", "v1", "prod"],
        ["models", "list"],
    ]
    codes, modules = imports_of(*lines)
    assert codes == [0] * len(lines)
    assert not top_level(modules) & {"torch", "transformers", "faiss"}


def test_an_edit_with_an_empty_prompt_is_refused_before_torch_is_loaded(folder):
    codes, modules = imports_of(["add", "--prompt", "", "--target", "x"])
    assert codes == [1]
    assert not top_level(modules) & {"torch", "transformers", "faiss"}


def test_the_module_can_be_run_as_the_command(process, history):
    ran = process("log", "--json")
    assert ran.code == 0
    assert [entry["version"] for entry in ran.json] == ["v3", "v2", "v1"]
    assert ran.stderr == ""
