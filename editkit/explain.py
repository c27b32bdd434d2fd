"""Saying why an edit fires or does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from editkit.methods.view import GraceView
from editkit_store.records import Candidate, Edit, Explanation

__all__ = ["explained", "unedited"]

_TOLD = 6  # words of a kind


def explained(
    prompt: str,
    view: GraceView,
    key: torch.Tensor,
    edits: Callable[[Sequence[str]], Mapping[str, Edit]],
    *,
    site: str,
    k: int,
    words: Callable[[str | None], tuple[list[str], list[str]]] | None = None,
) -> Explanation:
    """Returns the decision that a view makes for a key, with the nearest edits.

    Args:
        prompt: The text that was asked about.
        view: The view, of at least one edit.
        key: ``(d,)`` float32, what the prompt is looked up by.
        edits: Returns edits of the view by their ids.
        site: Dotted path of the site.
        k: Number of candidates.
        words: Returns the names and the other words that the key of an edit's prompt is made of, or
            (of None) the key itself; None of keys that are hidden states.
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
        summary=_summary(candidates, fired, words),
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


def _summary(
    candidates: tuple[Candidate, ...],
    fired: str | None,
    words: Callable[[str | None], tuple[list[str], list[str]]] | None,
) -> str:
    nearest = candidates[0]
    if fired is None:
        return (
            f"No edit fires: the nearest one, {nearest.edit_id[:12]} ('{nearest.prompt}'), is "
            f"{nearest.distance:.3g} away and reaches {nearest.radius:.3g}."
            + _because(nearest, words)
        )
    hit = next((c for c in candidates if c.edit_id == fired), nearest)
    return (
        f"Edit {hit.edit_id[:12]} ('{hit.prompt}' -> '{hit.target}') fires: the prompt is "
        f"{hit.distance:.3g} from its key, within its radius {hit.radius:.3g}."
        + _because(hit, words)
    )


def _because(
    edit: Candidate, words: Callable[[str | None], tuple[list[str], list[str]]] | None
) -> str:
    """Says what an edit's prompt and the one asked about have in common, and what not."""
    if words is None:
        return ""
    (names, others), (its_names, its_others) = words(None), words(edit.prompt)
    found = [
        ("Both name", _common(names, its_names)),
        ("Only the prompt names", _beyond(names, its_names)),
        ("Only the edit names", _beyond(its_names, names)),
        ("Both say", _common(others, its_others)),
    ]
    told = [f"{what} {', '.join(map(repr, some[:_TOLD]))}." for what, some in found if some]
    return " " + " ".join(told or ["They have no telling word in common."])


def _common(words: Sequence[str], others: Sequence[str]) -> list[str]:
    known = {word.casefold() for word in others}
    return [word for word in words if word.casefold() in known]


def _beyond(words: Sequence[str], others: Sequence[str]) -> list[str]:
    known = {word.casefold() for word in others}
    return [word for word in words if word.casefold() not in known]
