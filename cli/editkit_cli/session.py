"""A running model for one command, and what can be checked before it is paid for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from editkit_cli.options import Settings

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_store.records import Provenance

__all__ = ["chat_turn", "check_store", "open_kit"]


def check_store(settings: Settings, *versions: str | None) -> None:
    """Refuses a missing or unreadable store, or an unknown version, before a model is loaded."""
    from editkit_store import open_store

    with open_store(settings.path) as store:
        for version in versions:
            if version is not None:
                store.history.resolve(version)


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


@contextlib.contextmanager
def open_kit(
    settings: Settings,
    *,
    read_only: bool = False,
    preset: Literal["default", "paper"] = "default",
    missing: Literal["error", "skip"] = "error",
    provenance: Provenance | None = None,
) -> Iterator[Kit]:
    """Yields the model that the settings name, running with the store's edits."""
    import editkit

    with editkit.open(
        settings.store,
        model=settings.model,
        preset=preset,
        missing=missing,
        read_only=read_only,
        progress=settings.out.progress(),
        provenance=provenance or settings.provenance(),
    ) as kit:
        yield kit


def chat_turn(prompt: str, *, system: str | None) -> list[dict[str, str]]:
    """Returns the conversation of one user turn."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": prompt}]
