"""Bad stores and other known errors, as they look at the shell: one line, a hint, code 1."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import duckdb
import pytest

from editkit_cli.main import cli

READERS = ("log", "status", "show @", "diff")
WRITERS = ("undo", "rollback v0", "tag v0 x", "init")

HOLDER = """
import sys
from editkit_store import open_store
with open_store("history.db", write=True) as store:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(history) -> Iterator[int]:
    """Another process that holds the store; its id."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other.pid
        other.communicate("")


@pytest.mark.parametrize("line", [*READERS, "undo", "tag v0 x", "replay --model gpt2"])
def test_a_missing_store_says_how_to_make_one(sh, folder, line):
    ran = sh(*line.split())
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()
    assert error == "error: there is no store at 'history.db'"
    assert hint.startswith("hint: run `editkit init`")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("verb", ["generate", "explain"])
def test_a_question_to_a_named_store_that_is_missing_is_an_error(sh, folder, verb):
    ran = sh(verb, "x", "--store", "typo.db")
    assert (ran.code, ran.stdout) == (1, "")
    assert "there is no store at 'typo.db'" in ran.stderr


def test_a_store_in_a_folder_that_is_missing_cannot_be_made(sh, folder):
    ran = sh("init", "--store", "no/where/history.db")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: the folder of 'no/where/history.db' does not exist")


@pytest.mark.parametrize("line", [*READERS, *WRITERS, "add --prompt a --target b", "generate x"])
def test_a_file_that_is_not_duckdb_is_named_and_left_alone(sh, folder, line):
    (folder / "history.db").write_text("dear diary")
    ran = sh(*line.split())
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: 'history.db' is not a DuckDB file\nhint: ")
    assert (folder / "history.db").read_text() == "dear diary"


def test_a_duckdb_file_of_somebody_else_is_no_store(sh, folder):
    with duckdb.connect("history.db") as other:
        other.execute("CREATE TABLE cats (name VARCHAR)")
    for line in ("log", "undo"):
        ran = sh(line)
        assert (ran.code, ran.stdout) == (1, "")
        assert "is a DuckDB file, but not an editkit store" in ran.stderr


def test_a_folder_is_no_store(sh, folder):
    ran = sh("log", "--store", ".")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: '.' is a folder, not a store")


@pytest.mark.parametrize("line", ["log", "undo", "add --prompt a --target b", "generate x"])
def test_a_damaged_store_is_reported_as_damaged(sh, history, folder, line):
    file = folder / "history.db"
    file.write_bytes(file.read_bytes()[:4096] + bytes(8192) + file.read_bytes()[12288:])
    ran = sh(*line.split())
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()
    assert error.startswith("error: the store 'history.db' is damaged")
    assert "restore" in hint


@pytest.mark.parametrize("line", ["log", "undo", "add --prompt a --target b", "generate x"])
def test_a_store_of_a_newer_schema_asks_for_an_upgrade(sh, history, line):
    with duckdb.connect("history.db") as newer:
        newer.execute("INSERT INTO migrations VALUES (999, 'from the future', now()::TIMESTAMP)")
    ran = sh(*line.split())
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()
    assert error.startswith("error: the store 'history.db' has schema 999")
    assert "upgrade editkit" in hint


def test_a_store_that_another_process_holds_names_that_process(sh, holder):
    for line in ("log --json", "undo", "add --prompt a --target b", "generate x"):
        ran = sh(*line.split())
        assert (ran.code, ran.stdout) == (1, "")
        error, hint = ran.stderr.splitlines()
        assert error == f"error: the store 'history.db' is held by process {holder}"
        assert hint.startswith("hint: wait until it is done")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--prompt", "", "--target", "x"], "prompt"),
        (["--prompt", "  \n", "--target", "x"], "prompt"),
        (["--prompt", "x", "--target", ""], "target"),
        (["--chat", "--prompt", "", "--target", "x"], "prompt"),
    ],
)
def test_an_empty_prompt_or_target_is_refused_and_makes_no_store(sh, folder, options, what):
    ran = sh("add", *options)
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"error: the {what} is empty\nhint: ")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "line", ["add --prompt a --target b", "generate x", "explain x", "replay history.db"]
)
def test_an_unknown_model_names_close_matches(sh, history, line):
    ran = sh(*line.split(), "--model", "gpt2-xxl")
    assert (ran.code, ran.stdout) == (1, "")
    error, hint = ran.stderr.splitlines()
    assert error.startswith("error: no model named 'gpt2-xxl'")
    assert "gpt2-xl" in hint


@pytest.mark.parametrize("line", ["generate x --version v9", "explain x --version v9"])
def test_an_unknown_version_is_refused_before_a_model_is_loaded(sh, history, line):
    ran = sh(*line.split(), "--model", "no-such-model-at-all")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: there is no version 'v9'")


def test_quiet_never_hides_an_error(sh, folder):
    ran = sh("log", "--quiet")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")


def test_text_that_is_not_utf8_is_wrong_usage(process, folder):
    ran = process("add", "--prompt", b"\xe9t\xe9", "--target", "x")
    assert (ran.code, ran.stdout) == (2, "")
    assert "the text is not valid UTF-8" in ran.stderr


def test_an_unexpected_exception_is_a_bug_and_keeps_its_traceback(sh, history, monkeypatch):
    def broken(*_args, **_options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("editkit_cli.commands.log.open_history", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        sh("log")


@pytest.mark.parametrize("guise", [KeyboardInterrupt(), RuntimeError("Query interrupted")])
def test_ctrl_c_exits_with_130_and_says_what_is_kept(sh, history, monkeypatch, guise):
    def interrupted(*_args, **_options):
        raise guise

    monkeypatch.setattr("editkit_cli.commands.log.open_history", interrupted)
    ran = sh("log")
    assert (ran.code, ran.stdout) == (130, "")
    assert "interrupted: every finished operation is kept" in ran.stderr


def test_python_callers_of_the_group_get_the_exceptions_themselves(folder):
    with pytest.raises(click.UsageError):
        cli.main(["add"], standalone_mode=False)


def test_a_reader_that_leaves_early_is_no_error_worth_words(history):
    with subprocess.Popen(
        [sys.executable, "-m", "editkit_cli", "log", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.close()
        assert reader.stderr.read() == ""
    assert reader.returncode == 1
