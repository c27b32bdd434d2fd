"""Opens the backend of a command: through the server that holds the store, or in this process.

This is the only place that decides. Commands call the same verbs and print the same either way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from editkit_cli.backend.local import LocalBackend
from editkit_cli.terminal.options import Settings
from editkit_store.errors import StoreLocked

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_cli.backend.base import Backend, HistoryVerbs
    from editkit_cli.backend.remote import RemoteBackend
    from editkit_cli.service.client.connection import ServerConnection
    from editkit_cli.service.client.errors import ServerDiffers
    from editkit_cli.service.owner import Owner
    from editkit_store.records import Provenance

__all__ = [
    "chat_turn",
    "check_question",
    "check_store",
    "find_connection",
    "open_history",
    "open_kit",
    "open_model",
]

_OWNER_SUFFIX = ".server"  # as in service.owner, which is imported only if such a file exists


def check_store(settings: Settings, *versions: str | None) -> None:
    """Raises for a missing or unreadable store or version, before a model is loaded."""
    with open_history(settings) as history:
        history.check_versions(*(version for version in versions if version is not None))


def check_question(settings: Settings, version: str | None) -> None:
    """Checks the store of a question; in a folder without one, the unedited model answers.

    A store that was named explicitly must exist: an unedited answer would be silently wrong.
    """
    if version is None and not settings.is_store_named and not settings.path.exists():
        settings.out.warning(
            f"there is no store '{settings.store}' here; the unedited model answers",
            hint="`editkit add` makes a store and corrects the model",
        )
    else:
        check_store(settings, version)


def find_connection(settings: Settings) -> ServerConnection | None:
    """Returns a connection to the server that holds the store, if one responds.

    The file of a dead server is ignored. So is a file that somebody else could have written, with a
    warning: it might name a stranger's server.
    """
    place = os.path.realpath(settings.path) + _OWNER_SUFFIX
    if settings.connection is None and os.path.lexists(place):
        from editkit_cli.service.owner import read_owner

        owner = read_owner(settings.path)
        if owner is not None:
            from editkit_cli.service.client.connection import ServerConnection

            connection = ServerConnection(owner)
            if connection.is_alive():
                _check_tool(settings, owner)
                settings.connection = connection
                context = click.get_current_context(silent=True)
                if context is not None:
                    context.find_root().call_on_close(connection.close)
        elif not _is_ours(place):
            settings.out.warning(
                f"'{place}' is ignored: other users could have written it",
                hint=f"if it belongs to a server of yours, run: chmod 600 '{place}'",
            )
    return settings.connection


def _check_tool(settings: Settings, owner: Owner) -> None:
    """Refuses a server of another editkit version, whose records may differ."""
    tool = settings.provenance().tool
    if owner.tool != tool:
        from editkit_cli.service.client.errors import ServerDiffers

        raise ServerDiffers(
            f"the server at {owner.url} holds the store and is {owner.tool}; this is {tool}",
            code="server_runs_another_version",
            hint="stop the server, and start it again with this one",
        )


def _is_ours(place: str) -> bool:
    from editkit_store.database.files import is_private

    return not os.path.lexists(place) or is_private(Path(place))


@contextlib.contextmanager
def open_history(
    settings: Settings, *, provenance: Provenance | None = None
) -> Iterator[HistoryVerbs]:
    """Yields the history, for a command that needs no running model."""
    from editkit_cli.backend.base import FailoverBackend

    how = provenance or settings.provenance()
    with LocalBackend(
        settings.path,
        provenance=how,
        open_kit=lambda: open_kit(settings, provenance=how),
    ) as local:

        def go_local() -> LocalBackend:
            settings.connection = None
            return local

        def find_remote() -> RemoteBackend | None:
            found = find_connection(settings)
            return None if found is None else _remote(settings, found, how)

        connection = find_connection(settings)
        if connection is None:
            yield FailoverBackend(local, find_remote)
        else:
            yield FailoverBackend(_remote(settings, connection, how), go_local)


@contextlib.contextmanager
def open_model(
    settings: Settings,
    *,
    read_only: bool = False,
    preset: Literal["default", "paper"] = "default",
    missing: Literal["error", "skip"] = "error",
    provenance: Provenance | None = None,
    any_model: bool = False,
) -> Iterator[Backend]:
    """Yields the running model with its history: the server's, or one loaded into this process.

    Args:
        settings: The shared options.
        read_only: See ``editkit.open``.
        preset: See ``editkit.open``.
        missing: See ``editkit.open``.
        provenance: Recorded with every change.
        any_model: Whether ``--model`` may name another model than the server runs.

    Raises:
        ServerDiffers: The server runs another model, or with another preset or judge.
    """
    how = provenance or settings.provenance()
    with LocalBackend(
        settings.path,
        provenance=how,
        open_kit=lambda: open_kit(
            settings, read_only=read_only, preset=preset, missing=missing, provenance=how
        ),
    ) as local:

        def go_local() -> LocalBackend:
            settings.connection = None
            local.load()
            return local

        connection = find_connection(settings)
        if connection is None:
            try:
                go_local()
            except StoreLocked:
                connection = find_connection(settings)
                if connection is None:
                    raise
            else:
                yield local
                return
        from editkit_cli.backend.base import FailoverBackend
        from editkit_cli.service.client.errors import ServerGone

        if preset != "default":
            raise _another_preset(settings, preset)
        remote = _remote(settings, connection, how)
        try:
            if settings.model is not None and not any_model:
                remote.check_model(settings.model)
            if settings.judge is not None:
                remote.check_judge(settings.judge)
        except ServerGone:
            yield go_local()
        else:
            yield FailoverBackend(remote, go_local)


@contextlib.contextmanager
def open_kit(
    settings: Settings,
    *,
    read_only: bool = False,
    preset: Literal["default", "paper"] = "default",
    missing: Literal["error", "skip"] = "error",
    provenance: Provenance | None = None,
) -> Iterator[Kit]:
    """Yields the model that the settings name, loaded into this process with the store's edits."""
    import editkit

    with editkit.open(
        settings.store,
        model=settings.model,
        judge=settings.judge,
        preset=preset,
        missing=missing,
        read_only=read_only,
        allow_pickle=settings.allow_pickle,
        progress=settings.out.progress(),
        provenance=provenance or settings.provenance(),
    ) as kit:
        yield kit


def _remote(
    settings: Settings, connection: ServerConnection, provenance: Provenance
) -> RemoteBackend:
    from editkit_cli.backend.remote import RemoteBackend

    return RemoteBackend(connection, settings.path, model=settings.model, provenance=provenance)


def _another_preset(settings: Settings, preset: str) -> ServerDiffers:
    from editkit_cli.service.client.errors import ServerDiffers

    return ServerDiffers(
        f"a server holds the store '{settings.store}' and runs without the preset '{preset}'",
        code="server_runs_another_preset",
        hint="leave --preset out, or stop the server",
    )


def chat_turn(prompt: str, *, system: str | None) -> list[dict[str, str]]:
    """Returns the conversation of one user turn."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": prompt}]
