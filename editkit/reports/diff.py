"""The HTML page of a ``Diff`` record. Loads no model."""

from __future__ import annotations

import os

from editkit.reports.html import render, save, short
from editkit_store.records import Edit
from editkit_store.records.comparisons import BehaviorChange, CodesDiff, Diff

__all__ = ["page", "write_page"]


def write_page(found: Diff, path: str | os.PathLike[str]) -> None:
    """Writes the page of a comparison to a file, replacing an existing one.

    Args:
        found: The comparison.
        path: The file.

    Raises:
        StoreUnwritable: The file cannot be written.
    """
    save(page(found), path)


def page(found: Diff) -> str:
    """Returns a comparison as one self-contained HTML page.

    Args:
        found: The comparison; the page includes answers if there are any.
    """
    return render(
        "diff.html",
        found=found,
        has_adaptors=bool(found.adaptors) or found.codes != CodesDiff(),
        asked=_asked,
        fired=lambda one: _fired(one, found),
    )


def _asked(edit: Edit) -> str:
    """Returns the edit's prompt; for a conversation, all turns."""
    turns = [f"{turn.role}: {turn.content}" for turn in edit.chat or ()]
    return "\n".join(turns) or edit.prompt


def _fired(one: BehaviorChange, found: Diff) -> str:
    return "\n".join(
        f"{short(edit_id)} at {version}"
        for version, ids in ((found.from_, one.fired_before), (found.to, one.fired_after))
        for edit_id in ids
    )
