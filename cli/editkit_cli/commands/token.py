"""`editkit token`: tokens for other programs, links and sessions for the owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from editkit_cli.service.tokens import ROLES, Role, TokenFile
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, text
from editkit_cli.terminal.tables import Column

if TYPE_CHECKING:
    from editkit_cli.service.owner import Owner

__all__ = ["token"]


@click.group("token", help="Let other programs ask and correct a running model")
def token() -> None:
    """The noun whose verbs are below."""


@command(
    "create",
    example="editkit token create dashboard\neditkit token create support-bot --role edit",
    shared=("store", "json", "quiet"),
)
@click.argument("name", metavar="NAME", type=text)
@click.option(
    "--role", type=click.Choice(ROLES), default="read", show_default=True,
    help="read: ask, and look at the history; edit: also correct, and take corrections back; "
    "admin: also move tags, by which others pin versions",
)  # fmt: skip
def create(settings: Settings, name: str, role: Role) -> None:
    """Make a token for a program or a person.

    It is shown only once: the file PATH.tokens beside the store keeps its digest. A running server
    accepts it at once.
    """
    made = TokenFile(settings.path).create(name, role)
    out = settings.out
    out.result(made, lambda: out.text(made.token))
    out.status(f"a token for '{name}', who may {role}; it is not shown again")


@command("list", example="editkit token list", shared=("store", "json", "nl", "quiet"))
def list_(settings: Settings) -> None:
    """List the tokens, without their secrets."""
    found = TokenFile(settings.path).all()
    out = settings.out
    out.result(
        found,
        lambda: out.table(
            (Column("id", style="cyan"), Column("name", flexible=True), Column("role"),
             Column("created", style="dim")),
            [(one.id, one.name, one.role, f"{one.created.astimezone():%Y-%m-%d %H:%M}")
             for one in found],
        ),
    )  # fmt: skip


@command("revoke", example="editkit token revoke dashboard", shared=("store", "json", "quiet"))
@click.argument("name", metavar="NAME", type=text)
def revoke(settings: Settings, name: str) -> None:
    """Revoke a token, by its name or id.

    A running server refuses it from then on.
    """
    gone = TokenFile(settings.path).revoke(name)
    out = settings.out
    out.result(gone, lambda: out.text(f"{gone.id}  {gone.name}"))
    out.status(f"the token of '{gone.name}' is refused from now on")


@command("link", example="editkit token link", shared=("store", "json", "quiet"))
def link(settings: Settings) -> None:
    """Make a link that opens the web page of the running server, signed in as the owner.

    It works once, within a quarter of an hour, and on this machine only.
    """
    from editkit_cli.service.client.sign_in import new_link

    made = new_link(_serving(settings))
    out = settings.out
    out.result(made, lambda: out.text(made.link))


@command("session", example="editkit token session", shared=("store", "json", "quiet"))
def session(settings: Settings) -> None:
    """Make a token of the owner for a program on this machine, such as curl.

    It is valid until the server stops, or until it has not been used for twelve hours; not through
    a proxy, and not from other machines. For those, see `editkit token create`.
    """
    from editkit_cli.service.client.sign_in import new_session

    made = new_session(_serving(settings))
    out = settings.out
    out.result(made, lambda: out.text(made.token))


def _serving(settings: Settings) -> Owner:
    """Returns the server that holds the store.

    Raises:
        NoServer: There is none.
    """
    from editkit_cli.service.client.sign_in import NoServer
    from editkit_cli.service.owner import find_server

    there = find_server(settings.path)
    if there is None:
        raise NoServer(f"no server holds '{settings.store}'", hint="start one with `editkit serve`")
    return there


for verb in (create, list_, revoke, link, session):
    token.add_command(verb)
