"""Sign-in links and session tokens, requested from a running server by its owner."""

from __future__ import annotations

from contextlib import closing

from pydantic import Field

from editkit_cli.service.client.connection import ServerConnection
from editkit_cli.service.owner import Owner
from editkit_cli.service.schemas import SessionToken
from editkit_store.errors import EditkitError
from editkit_store.records import Record

__all__ = ["NoServer", "SignInLink", "new_link", "new_session"]


class NoServer(EditkitError):
    """No server holds the store."""

    code = "no_server"


class SignInLink(Record):
    """Result of `token link`."""

    link: str = Field(repr=False, description="Opens the page, signed in, once")


def new_link(owner: Owner) -> SignInLink:
    """Returns a link that opens the server's page, signed in; it works once.

    Raises:
        ServerGone: The server does not respond.
    """
    with closing(ServerConnection(owner)) as connection:
        return SignInLink(link=f"{owner.url}{connection.post('/v1/session/links', {})['path']}")


def new_session(owner: Owner) -> SessionToken:
    """Returns a bearer token of the owner, valid until it has not been used for a while.

    Raises:
        ServerGone: The server does not respond.
    """
    with closing(ServerConnection(owner)) as connection:
        return SessionToken.model_validate(connection.post("/v1/owner/session", {}))
