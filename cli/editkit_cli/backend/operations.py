"""Changes made through a server: sent once, then awaited, or followed as an operation.

The server carries out every change that it has accepted, whether or not somebody waits. So Ctrl-C
ends the command but not the change, and the command says so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from editkit_cli.service.client.connection import ServerConnection
from editkit_cli.service.client.errors import ServerGone, error_of
from editkit_cli.terminal.interrupts import ServerContinues
from editkit_cli.terminal.output import Silent
from editkit_store.records import Provenance
from editkit_store.user import user_name

if TYPE_CHECKING:
    from editkit.models.progress import Progress

__all__ = ["carry_out", "complete_provenance"]

_T = TypeVar("_T")

_SOONEST, _LATEST = 0.05, 0.5
"""Seconds between two polls of an operation."""


def complete_provenance(provenance: Provenance, *, author: str | None = None) -> dict[str, Any]:
    """Returns the provenance of a change as JSON, with this process's user and host filled in.

    The server would fill in its own.

    Args:
        provenance: Of the command.
        author: Author of the edit, if the command names nobody.
    """
    user = provenance.user or user_name()
    asks = provenance.author or author or os.environ.get("EDITKIT_AUTHOR") or user
    host = provenance.host or socket.gethostname()
    return provenance.model_copy(update={"author": asks, "user": user, "host": host}).model_dump(
        mode="json"
    )


def carry_out(
    connection: ServerConnection,
    path: str,
    body: Mapping[str, Any],
    read: Callable[[Any], _T],
    *,
    progress: Progress | None = None,
    task: str = "Learning edits",
) -> _T:
    """Sends a change and returns its result, however long that takes.

    Args:
        connection: To the server.
        path: Path of the route.
        body: Body of the request.
        read: Parses the result's JSON.
        progress: Told how many edits are done.
        task: Name of the progress.

    Raises:
        ServerGone: It was not sent, or its outcome is unknown; see ``was_sent``.
        ServerContinues: Ctrl-C; the server carries it out.
    """
    try:
        bar = None if isinstance(progress, Silent) else progress
        is_done, answer = connection.submit(path, {**body, "wait": bar is None})
        return read(answer if is_done else _follow(connection, answer, bar, task))
    except KeyboardInterrupt:
        raise ServerContinues from None


def _follow(
    connection: ServerConnection, operation: Any, progress: Progress | None, task: str
) -> Any:
    """Waits until an operation has ended; returns its result as JSON."""
    place = f"/v1/operations/{operation['id']}"
    pause, done, has_started = _SOONEST, 0, False
    try:
        while operation["state"] in ("waiting", "running"):
            time.sleep(pause)
            pause = min(_LATEST, pause * 1.5)
            try:
                operation = connection.get(place)
            except ServerGone as gone:
                raise ServerGone(connection.owner.url, was_sent=True) from gone
            if progress is not None and operation["state"] == "running":
                if not has_started and operation["total"] > 1:
                    progress.start(task, operation["total"], "edits")
                    has_started = True
                if has_started and operation["done"] > done:
                    progress.advance(operation["done"] - done)
                    done = operation["done"]
    finally:
        if progress is not None and has_started:
            progress.done()
    if operation["state"] == "failed":
        raise error_of(operation["error"])
    return operation["result"]
