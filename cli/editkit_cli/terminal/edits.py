"""What commands say about edits: warnings, and how an answer came about."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from editkit_cli.terminal.output import Output
    from editkit_store.records import (
        Added,
        Contradiction,
        Generation,
    )

__all__ = ["delivery_note", "warn_contradiction", "warn_unverified"]

_NOTES = {"free": "", "held": ", held to its target", "no": ", its target not given"}


def delivery_note(made: Generation) -> str:
    """Returns what follows "edit ... fired": how its target came into the answer."""
    return "" if made.delivered is None else _NOTES[made.delivered]


def warn_contradiction(out: Output, found: tuple[Contradiction, ...]) -> None:
    """Warns about the active edits that a new one contradicts."""
    for one in found:
        what = (
            f"it supersedes edit {one.edit_id}, which has the same prompt and the target "
            f"'{one.target}'"
            if one.kind == "prompt"
            else f"its prompt lies in the scope of edit {one.edit_id} ('{one.prompt}' -> "
            f"'{one.target}'), which gives way there"
        )
        out.warning(what)


def warn_unverified(out: Output, added: Added) -> None:
    """Warns that an edit did not verify, and how it was recorded."""
    active = added.edit.status == "active"
    out.warning(
        f"the edit did not verify: the model answers '{added.answer}', not "
        f"'{added.edit.target}'; it is recorded as "
        + ("active all the same" if active else "failed and is not active"),
        hint=None if active else "try another wording, or make it active with --on-failure keep",
    )
