"""Saying why an edit fires or does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from editkit.methods.view import GraceView
from editkit_store.records import Candidate, Edit, Explanation

__all__ = ["explained", "unedited"]


def explained(
    prompt: str,
    view: GraceView,
    key: torch.Tensor,
    edits: Callable[[Sequence[str]], Mapping[str, Edit]],
    *,
    site: str,
    k: int,
) -> Explanation:
    """Returns the decision that a view makes for a key, with the nearest edits.

    Args:
        prompt: The text that was asked about.
        view: The view, of at least one edit.
        key: ``(d,)`` float32, what the prompt is looked up by.
        edits: Returns edits of the view by their ids.
        site: Dotted path of the site.
        k: Number of candidates.
    """
    (chosen,) = view.select(key[None])
    fired = None if chosen < 0 else view.edit_id(chosen)
    near = [
        (view.edit_id(row), distance, view.radius(row))
        for row, distance in view.nearest(key, max(1, k))
    ]
    known = edits([edit_id for edit_id, _, _ in near])
    candidates = tuple(
        Candidate(
            edit_id=edit_id,
            prompt=known[edit_id].prompt,
            target=known[edit_id].target,
            distance=distance,
            radius=radius,
            in_scope=distance <= radius,
        )
        for edit_id, distance, radius in near
    )
    return Explanation(
        prompt=prompt,
        version=view.version,
        fired=fired,
        site=site,
        summary=_summary(candidates, fired),
        candidates=candidates,
    )


def unedited(prompt: str, version: str, *, site: str) -> Explanation:
    """Returns the explanation where no edit is active."""
    return Explanation(
        prompt=prompt,
        version=version,
        site=site,
        summary=f"No edit is active at {version}, so the model answers by itself.",
    )


def _summary(candidates: tuple[Candidate, ...], fired: str | None) -> str:
    nearest = candidates[0]
    if fired is None:
        return (
            f"No edit fires: the nearest one, {nearest.edit_id[:12]} ('{nearest.prompt}'), is "
            f"{nearest.distance:.3g} away and reaches {nearest.radius:.3g}."
        )
    hit = next((c for c in candidates if c.edit_id == fired), nearest)
    return (
        f"Edit {hit.edit_id[:12]} ('{hit.prompt}' -> '{hit.target}') fires: the prompt is "
        f"{hit.distance:.3g} from its key, within its radius {hit.radius:.3g}."
    )
