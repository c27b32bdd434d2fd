"""Asking a running server for what lets its owner in: a link to its page, or a session."""

from __future__ import annotations

from contextlib import closing

from pydantic import Field

from editkit_cli.service.client.connection import Wire
from editkit_cli.service.owner import Owner
from editkit_cli.service.schemas import Session
from editkit_store.errors import EditkitError
from editkit_store.records import Record

__all__ = ["Linked", "NoServer", "new_link", "new_session"]


class NoServer(EditkitError):
    """No server holds the store."""

    code = "no_server"


class Linked(Record):
    """Result of `token link`."""

    link: str = Field(repr=False, description="Opens the page, signed in, once")


def new_link(owner: Owner) -> Linked:
    """Returns a link that opens the page of a server, signed in, once.

    Raises:
        ServerGone: It does not answer.
    """
    with closing(Wire(owner)) as wire:
        return Linked(link=f"{owner.url}{wire.ask('/v1/session/links', {})['path']}")


def new_session(owner: Owner) -> Session:
    """Returns a token that is the owner's until it is not used for a while.

    Raises:
        ServerGone: The server does not answer.
    """
    with closing(Wire(owner)) as wire:
        return Session.model_validate(wire.ask("/v1/owner/session", {}))
