"""No command, and no option of one, is forgotten: each goes through the server, or says why not."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from cli.backend.lines import CHANGING, READING

from editkit_cli.main import cli

ALONE = {
    "init": "makes a store; where a server runs, there is one",
    "migrate": "opens the store itself, twice",
    "eval": "measures a model of its own and touches no store",
    "methods list": "is about installed packages, not about a store",
    "models list": "is about models, not about a store",
    "models pull": "is about models, not about a store",
    "serve": "is the server",
    "token create": "writes a file of its own beside the store, which the server reads",
    "token list": "reads that file",
    "token revoke": "writes that file",
    "token link": "asks the server itself",
    "token session": "asks the server itself",
    "mcp": "joins the server itself",
}

ELSEWHERE = {
    "init": "test_a_store_that_is_served_is_there_already",
    "chat": "test_a_conversation_is_the_same_with_a_server",
    "status": "test_a_status_is_the_same_but_for_the_server",
}

OPTIONS_ELSEWHERE = {
    ("add", "--preset"): "test_another_model_or_preset_than_the_servers_is_refused",
    ("diff", "--html"): "test_a_comparison_is_written_where_the_command_was_given",
    ("revert", "--defer-only"): "test_an_edit_of_elder_is_taken_back_as_it_is_alone",
}

SHARED = {"--store", "--model", "--judge", "--allow-pickle", "--json", "--nl", "--quiet", "--help"}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, verbs of nouns too."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            for verb in found.list_commands(context):
                member = found.get_command(context, verb)
                assert member is not None
                yield f"{name} {verb}", member
        else:
            yield name, found


def used(name: str) -> list[list[str]]:
    words = name.split()
    return [line for line in [*READING, *CHANGING] if line[: len(words)] == words]


@pytest.mark.parametrize(("name", "found"), list(commands()), ids=lambda one: str(one)[:30])
def test_every_command_is_compared_with_a_server_or_says_why_it_needs_none(
    name: str, found: click.Command
) -> None:
    if name in ALONE:
        assert not used(name)
    elif name not in ELSEWHERE:
        assert used(name), f"run `editkit {name}` in tests/cli/backend/lines.py, or say why not"
        words = {word for line in used(name) for word in line}
        for option in found.params:
            if isinstance(option, click.Option) and not SHARED & set(option.opts):
                is_tried = words & {*option.opts, *option.secondary_opts}
                is_elsewhere = (name, option.opts[0]) in OPTIONS_ELSEWHERE
                assert is_tried or is_elsewhere, f"{name} {option.opts}"
