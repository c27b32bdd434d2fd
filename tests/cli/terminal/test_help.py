"""Every command documents itself, and wrong usage is refused with code 2."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from editkit_cli.main import COMMANDS, cli
from editkit_cli.terminal.group import ExampleCommand


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli, info_name="editkit")
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from ((f"{name} {verb}", leaf) for verb, leaf in found.commands.items())
        yield name, found


LEAVES = [pair for pair in commands() if not isinstance(pair[1], click.Group)]


@pytest.mark.parametrize("name", ["", *(name for name, _ in commands())])
def test_every_command_has_help(sh, name):
    ran = sh(*name.split(), "--help")
    assert ran.code == 0
    assert ran.stdout.startswith(f"Usage: editkit {name}".rstrip())
    assert ran.stderr == ""


@pytest.mark.parametrize(("name", "command"), LEAVES)
def test_every_command_has_a_worked_example_below_its_help(sh, name, command):
    assert isinstance(command, ExampleCommand)
    lines = [line for line in command.example.splitlines() if line.strip()]
    assert lines
    shown = sh(*name.split(), "--help").stdout
    for line in lines:
        assert line.strip() in shown
    assert any(line.strip().startswith(f"editkit {name}") for line in lines)


@pytest.mark.parametrize(("name", "command"), LEAVES)
def test_examples_use_options_that_exist(name, command):
    root = click.Context(cli, info_name="editkit")
    for line in command.example.splitlines():
        words = shlex.split(line)[1:]
        if words[: len(name.split())] == name.split():
            words = words[len(name.split()) :]
            flags = {flag for param in command.params for flag in param.opts}
            assert {word for word in words if word.startswith("--")} <= flags
        else:
            assert cli.get_command(root, words[0])


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_help_lines_are_imperative_without_a_full_stop(name, command):
    head = (command.help or "").split("\n\n")[0]
    assert head
    assert not head.endswith(".")
    assert head[0].isupper()
    assert not head.split()[0].endswith("s"), "an imperative, not 'Shows'"
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{name} {param.opts} has no help"
            assert not param.help.endswith(".")


@pytest.mark.parametrize(("name", "command"), LEAVES)
def test_every_command_takes_the_shared_options(name, command):
    flags = {flag for param in command.params for flag in param.opts}
    assert {"--store", "--model", "--allow-pickle", "--json", "--quiet"} <= flags


@pytest.mark.parametrize(("name", "command"), LEAVES)
def test_whoever_may_name_a_model_may_allow_its_pickles(sh, name, command):
    shown = sh(*name.split(), "--help").stdout
    assert ("--allow-pickle" in shown) == ("--model NAME" in shown or name == "models pull")
    assert ("EDITKIT_ALLOW_PICKLE" in shown) == ("--allow-pickle" in shown)


def test_a_full_help_lists_the_commands_in_the_order_of_the_table(sh):
    shown = sh("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  ")][
        : len(COMMANDS)
    ] == list(COMMANDS)


def test_the_version_is_that_of_the_distribution(sh):
    from importlib.metadata import version

    ran = sh("--version")
    assert (ran.code, ran.stdout, ran.stderr) == (0, f"editkit {version('editkit')}\n", "")


def test_an_unknown_command_is_wrong_usage_and_names_close_ones(sh):
    ran = sh("lgo")
    assert ran.code == 2
    assert ran.stdout == ""
    assert "there is no command 'lgo'; did you mean log?" in ran.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("add", "--prompt is missing"),
        ("add --prompt a", "--target is missing"),
        ("add --prompt a --target b --from pyproject", "does not exist"),
        ("add --prompt a --target b --from -", "--prompt, --target cannot go with it"),
        ("add --from - --rephrase x", "--rephrase cannot go with it"),
        ("add --prompt a --target b --system s", "--system needs --chat"),
        ("add --prompt a --target b --method magic", "'magic'"),
        ("add --prompt a --target b --kind poem", "'poem'"),
        ("generate", "Missing argument"),
        ("generate x --max-new-tokens 0", "0 is not in the range"),
        ("generate x --system s", "--system needs --chat"),
        ("explain x -k 0", "0 is not in the range"),
        ("log -n 0", "0 is not in the range"),
        ("show", "Missing argument"),
        ("diff a b c", "unexpected extra argument"),
        ("diff --probe x --max-new-tokens 0", "0 is not in the range"),
        ("diff --html .", "is a directory"),
        ("rollback", "Missing argument"),
        ("revert", "Missing argument"),
        ("tag v0", "Missing argument"),
        ("undo now", "unexpected extra argument"),
        ("models pull", "Missing argument"),
        ("models get", "No such command"),
        ("--shop x log", "No such option"),
        ("log --sotre x", "No such option"),
        ("replay a.db --store b.db", "name two stores"),
    ],
)
def test_wrong_usage_exits_with_2_and_touches_nothing(sh, folder, line, said):
    ran = sh(*line.split(), stdin="")
    assert ran.code == 2
    assert ran.stdout == ""
    assert said in ran.stderr
    assert list(folder.iterdir()) == []
