"""What `rollback`, `revert`, `undo` and `redo` share."""

from __future__ import annotations

from collections.abc import Callable

from editkit_cli.backend.base import HistoryVerbs
from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.history import count_edits
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.tables import short_digest
from editkit_store.records import Provenance, ViewChanged

__all__ = ["change_view"]


def change_view(
    settings: Settings, how: Provenance, act: Callable[[HistoryVerbs], ViewChanged]
) -> None:
    """Runs a verb that changes which edits are active, and prints the result."""
    with open_history(settings, provenance=how) as history:
        changed = act(history)
    out = settings.out
    out.status(f"{changed.operation}: {changed.detail}; now at {changed.version}")
    out.result(changed, lambda: out.text(f"{changed.version}, {count_edits(changed.view)}"))
    if changed.lost:
        names = ", ".join(short_digest(one) for one in changed.lost)
        out.warning(f"these edits no longer give their target: {names}")
