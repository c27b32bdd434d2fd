"""A history or a running model for one command: through the server that holds them, or alone.

This is the one place that decides. A command asks what it is given, and prints the same either way.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from editkit_cli.backend.local import Local
from editkit_cli.terminal.options import Settings
from editkit_store.errors import StoreLocked

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_cli.backend.chat import Voice
    from editkit_cli.backend.remote import Remote
    from editkit_cli.service.client.connection import Wire
    from editkit_cli.service.owner import Owner
    from editkit_store.records import Provenance

__all__ = [
    "chat_turn",
    "check_store",
    "find_wire",
    "open_history",
    "open_kit",
    "open_model",
    "voice_of",
]

_OWNER_SUFFIX = ".server"  # as owner.owner_path has it; that module is not loaded to look


def check_store(settings: Settings, *versions: str | None) -> None:
    """Refuses a missing or unreadable store, or an unknown version, before a model is loaded."""
    with open_history(settings) as history:
        history.look(*(version for version in versions if version is not None))


def check_question(settings: Settings, version: str | None) -> None:
    """Checks the store of a question; in a folder without one, the model answers as it came.

    A store that somebody named must be there: an unedited answer would be silently wrong.
    """
    if version is None and not settings.is_store_named and not settings.path.exists():
        settings.out.warning(
            f"there is no store '{settings.store}' here; this is the model as it came",
            hint="`editkit add` makes a store and corrects the model",
        )
    else:
        check_store(settings, version)


def find_wire(settings: Settings) -> Wire | None:
    """Returns a connection to the server that holds the store, if one answers.

    What a dead server left behind is passed over. So is a file that somebody else could have
    written, with a warning: it might name a stranger's server.
    """
    place = os.path.realpath(settings.path) + _OWNER_SUFFIX
    if settings.wire is None and os.path.lexists(place):
        from editkit_cli.service.owner import read_owner

        owner = read_owner(settings.path)
        if owner is not None:
            from editkit_cli.service.client.connection import Wire

            wire = Wire(owner)
            if wire.is_there():
                _check_tool(settings, owner)
                settings.wire = wire
                context = click.get_current_context(silent=True)
                if context is not None:
                    context.find_root().call_on_close(wire.close)
        elif not _is_ours(place):
            settings.out.warning(
                f"'{place}' is passed over: others than you could have written it",
                hint=f"if a server of yours runs, make the file yours alone: chmod 600 '{place}'",
            )
    return settings.wire


def _check_tool(settings: Settings, owner: Owner) -> None:
    """Refuses a server of another editkit: records that one sends are not known to the other."""
    tool = settings.provenance().tool
    if owner.tool != tool:
        from editkit_cli.service.client.errors import ServerDiffers

        raise ServerDiffers(
            f"the server at {owner.url} holds the store and is {owner.tool}; this is {tool}",
            code="server_runs_another_version",
            hint="stop the server, and start it again with this one",
        )


def _is_ours(place: str) -> bool:
    from pathlib import Path

    from editkit_store.database.files import is_private

    return not os.path.lexists(place) or is_private(Path(place))


@contextlib.contextmanager
def open_history(settings: Settings, *, provenance: Provenance | None = None) -> Iterator[Local]:
    """Yields the history, for a command that needs no model."""
    how = provenance or settings.provenance()
    local = Local(settings.path, provenance=how, model=lambda: open_kit(settings, provenance=how))
    wire = find_wire(settings)
    from editkit_cli.backend.failover import Either

    if wire is None:
        either = Either(local, lambda: _found(settings, how))
    else:
        either = Either(_remote(settings, wire, how), lambda: _alone(settings, local))
    yield cast("Local", either)


@contextlib.contextmanager
def open_model(
    settings: Settings,
    *,
    read_only: bool = False,
    preset: Literal["default", "paper"] = "default",
    missing: Literal["error", "skip"] = "error",
    provenance: Provenance | None = None,
    any_model: bool = False,
) -> Iterator[Kit]:
    """Yields the running model: the server's, or one of this process.

    Args:
        settings: The shared options.
        read_only: See ``editkit.open``, as the next two.
        preset: Constants of the methods.
        missing: Edits that the model has not learned.
        provenance: What is written down with every change.
        any_model: Whether ``--model`` may differ from what the server runs.

    Raises:
        ServerDiffers: The server runs another model, or with another preset.
    """
    how = provenance or settings.provenance()
    with contextlib.ExitStack() as stack:

        def alone() -> Kit:
            settings.wire = None
            return stack.enter_context(
                open_kit(
                    settings, read_only=read_only, preset=preset, missing=missing, provenance=how
                )
            )

        wire = find_wire(settings)
        if wire is None:
            try:
                kit = alone()
            except StoreLocked:
                wire = find_wire(settings)
                if wire is None:
                    raise
            else:
                yield kit
                return
        from editkit_cli.backend.failover import Either
        from editkit_cli.service.client.errors import ServerGone

        if preset != "default":
            raise _another_preset(settings, preset)
        remote = _remote(settings, wire, how)
        try:
            if settings.model is not None and not any_model:
                remote.check_model(settings.model)
        except ServerGone:
            yield alone()
        else:
            yield cast("Kit", Either(remote, alone))


@contextlib.contextmanager
def open_kit(
    settings: Settings,
    *,
    read_only: bool = False,
    preset: Literal["default", "paper"] = "default",
    missing: Literal["error", "skip"] = "error",
    provenance: Provenance | None = None,
) -> Iterator[Kit]:
    """Yields the model that the settings name, running in this process with the store's edits."""
    import editkit

    with editkit.open(
        settings.store,
        model=settings.model,
        preset=preset,
        missing=missing,
        read_only=read_only,
        allow_pickle=settings.allow_pickle,
        progress=settings.out.progress(),
        provenance=provenance or settings.provenance(),
    ) as kit:
        yield kit


def voice_of(settings: Settings, kit: Kit) -> Voice:
    """Returns what answers in a conversation with the model of ``open_model``."""
    if settings.wire is not None:
        from editkit_cli.backend.remote_chat import RemoteVoice

        return RemoteVoice(settings.wire)
    from editkit_cli.backend.local_chat import LocalVoice

    return LocalVoice(kit)


def _remote(settings: Settings, wire: Wire, provenance: Provenance) -> Remote:
    from editkit_cli.backend.remote import Remote

    return Remote(wire, settings.path, model=settings.model, provenance=provenance)


def _found(settings: Settings, provenance: Provenance) -> Any:
    """The server that has come meanwhile, and holds the store."""
    wire = find_wire(settings)
    return None if wire is None else _remote(settings, wire, provenance)


def _alone(settings: Settings, local: Local) -> Local:
    settings.wire = None
    return local


def _another_preset(settings: Settings, preset: str) -> Exception:
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
