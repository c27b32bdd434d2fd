"""What is written through a server: sent once, then waited for, or followed as an operation.

What the server has taken it carries out, whether somebody waits or not. So Ctrl-C ends the command
and not the change, and says so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from editkit_cli.service.client.connection import Wire
from editkit_cli.service.client.errors import ServerGone, error_of
from editkit_cli.terminal.interrupts import CarriedOn
from editkit_cli.terminal.output import Silent
from editkit_store.records import Provenance
from editkit_store.user import user_name

if TYPE_CHECKING:
    from editkit.models.progress import Progress

__all__ = ["carried_out", "signed"]

_T = TypeVar("_T")

_SOONEST, _LATEST = 0.05, 0.5
"""Seconds between looks at an operation."""


def signed(provenance: Provenance, *, author: str | None = None) -> dict[str, Any]:
    """Returns who asks, as this process would write it down: the server's is another.

    Args:
        provenance: Of the command.
        author: Of the edit, where the command names nobody.
    """
    user = provenance.user or user_name()
    asks = provenance.author or author or os.environ.get("EDITKIT_AUTHOR") or user
    host = provenance.host or socket.gethostname()
    return provenance.model_copy(update={"author": asks, "user": user, "host": host}).model_dump(
        mode="json"
    )


def carried_out(
    wire: Wire,
    path: str,
    body: Mapping[str, Any],
    read: Callable[[Any], _T],
    *,
    progress: Progress | None = None,
    task: str = "Learning edits",
) -> _T:
    """Sends a change and returns what came of it, however long that takes.

    Args:
        wire: Where to.
        path: The route.
        body: What is asked for.
        read: Makes the result of its JSON.
        progress: Told how many of the edits are done.
        task: What the progress is called.

    Raises:
        ServerGone: It was not sent, or nobody knows what came of it; see ``was_sent``.
        CarriedOn: Ctrl-C; the server goes on.
    """
    try:
        bar = None if isinstance(progress, Silent) else progress
        is_done, said = wire.change(path, {**body, "wait": bar is None})
        return read(said if is_done else _followed(wire, said, bar, task))
    except KeyboardInterrupt:
        raise CarriedOn from None


def _followed(wire: Wire, operation: Any, progress: Progress | None, task: str) -> Any:
    """Waits for the end of an operation; returns its result as JSON."""
    place = f"/v1/operations/{operation['id']}"
    pause, done, is_told = _SOONEST, 0, False
    try:
        while operation["state"] in ("waiting", "running"):
            time.sleep(pause)
            pause = min(_LATEST, pause * 1.5)
            try:
                operation = wire.get(place)
            except ServerGone as gone:
                raise ServerGone(wire.owner.url, was_sent=True) from gone
            if progress is not None and operation["state"] == "running":
                if not is_told and operation["total"] > 1:
                    progress.start(task, operation["total"], "edits")
                    is_told = True
                if is_told and operation["done"] > done:
                    progress.advance(operation["done"] - done)
                    done = operation["done"]
    finally:
        if progress is not None and is_told:
            progress.done()
    if operation["state"] == "failed":
        raise error_of(operation["error"])
    return operation["result"]
