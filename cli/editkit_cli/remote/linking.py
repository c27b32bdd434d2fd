"""Asking a running server for a link that opens its page, signed in."""

from __future__ import annotations

import http.client
import json

from pydantic import Field

from editkit_cli.remote.errors import ServerGone
from editkit_cli.server.owner import Owner
from editkit_store.errors import EditkitError
from editkit_store.records import Record

__all__ = ["Linked", "NoServer", "new_link"]

_TIMEOUT = 5.0
"""Seconds for a server that was just found to answer."""


class NoServer(EditkitError):
    """No server holds the store."""

    code = "no_server"


class Linked(Record):
    """Result of `token link`."""

    link: str = Field(repr=False, description="Opens the page, signed in, once")


def new_link(owner: Owner) -> Linked:
    """Returns a link that opens the page of a server that was found, signed in, once.

    Raises:
        ServerGone: It does not answer as it should.
    """
    connection = http.client.HTTPConnection(owner.host, owner.port, timeout=_TIMEOUT)
    try:
        headers = {"Authorization": f"Bearer {owner.token}"}
        connection.request("POST", "/v1/session/links", headers=headers)
        said = json.loads(connection.getresponse().read(10_000))
        return Linked(link=f"{owner.url}{said['path']}")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise ServerGone(owner.url, was_sent=False) from error
    finally:
        connection.close()
