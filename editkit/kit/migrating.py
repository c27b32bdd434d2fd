"""Changing what decides which edit a prompt asks for, in a history that was begun with another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from editkit.kit.kit import Kit
from editkit.kit.open import open as open_kit
from editkit_store import open_store
from editkit_store.errors import EditkitError
from editkit_store.records import DecisionChange, Edit, Migrated

__all__ = ["migrate"]


def migrate(
    store: str | os.PathLike[str],
    *,
    judge: str,
    probes: Iterable[str] = (),
    dry_run: bool = False,
    **options: Any,
) -> Migrated:
    """Changes a history's judge, and returns which prompts are decided otherwise with it.

    Nothing is learned anew: what an edit gives is the same, only where it fires may differ. Asked
    are the prompts of all active edits, their rephrases and locality, and the probes.

    Args:
        store: Path of the history.
        judge: See ``editkit.open``.
        probes: More prompts.
        dry_run: Only compare.
        **options: More options of ``editkit.open``.

    Raises:
        InvalidRequest: There is no such judge.
        StoreLocked: Another process holds the history.
    """
    path = Path(store)
    before, edits, name = _decisions(path, None, probes, options)
    after, _, _ = _decisions(path, judge, probes, options)
    if not dry_run:
        with open_store(path, write=True) as opened:
            opened.remember(judge=judge)
    return Migrated.model_validate(
        {
            "from": name,
            "to": judge,
            "changed": not dry_run and name != judge,
            "edits": len(edits),
            "asked": len(before),
            "changes": [
                DecisionChange(prompt=prompt, before=fired, after=after[prompt])
                for prompt, fired in before.items()
                if fired != after[prompt]
            ],
        }
    )


def _decisions(
    path: Path, judge: str | None, probes: Iterable[str], options: dict[str, Any]
) -> tuple[dict[str, str | None], list[Edit], str]:
    """Returns which edit fires for each prompt, the active edits, and the judge."""
    with open_kit(path, judge=judge, read_only=True, **options) as kit:
        edits = kit.store.history.active(kit.store.history.current())
        asked = [one for edit in edits for one in (edit.prompt, *edit.rephrases, *edit.locality)]
        found = {one: _fired(kit, one) for one in dict.fromkeys([*asked, *probes])}
        return found, edits, kit.judge


def _fired(kit: Kit, prompt: str) -> str | None:
    try:
        return kit.explain(prompt).fired
    except EditkitError:  # empty, or too long for this model
        return None
