"""Saying why an edit fires or does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch

from editkit.methods.elder.state import ElderView
from editkit.methods.grace.view import GraceView
from editkit_store.records import Candidate, Edit, Explanation

__all__ = ["Mixed", "explained", "unedited"]

_TOLD = 6  # words of a kind


@dataclass(frozen=True)
class Mixed:
    """What the edits of a mixture of LoRAs have to do with a prompt.

    Attributes:
        fired: The edit whose experts it takes, if any.
        near: Edits with the distances of the prompt to them, nearest first: L2 between queries, or
            bits between codes where it does not look at queries.
        bits: Bits between its code and that of each of them.
        reach: What a distance has to be below, or at.
        threshold: What the bits to the nearest code have to be below.
    """

    fired: str | None
    near: list[tuple[str, float]]
    bits: dict[str, int]
    reach: float
    threshold: int

    @classmethod
    def of(cls, mixture: ElderView, query: torch.Tensor) -> Mixed:
        """Returns it for a query ``(d,)`` float32 of a mixture of at least one edit."""
        _, _, codes = mixture.state.encoded(query[None])
        bits = dict(zip(mixture.edit_ids, mixture.bits(codes)[0].tolist(), strict=True))
        near: dict[str, float] = {one: float(apart) for one, apart in bits.items()}
        reach: float = mixture.state.threshold
        if mixture.state.radius is not None:
            between = mixture.between(query[None].float().numpy())[0].tolist()
            near, reach = dict(zip(bits, between, strict=True)), mixture.state.radius
        (chosen,) = mixture.route(query[None]).fired
        return cls(
            None if chosen < 0 else mixture.edit_id(chosen),
            sorted(near.items(), key=itemgetter(1)),
            bits,
            reach,
            mixture.state.threshold,
        )


def explained(
    prompt: str,
    view: GraceView,
    key: torch.Tensor,
    edits: Callable[[Sequence[str]], Mapping[str, Edit]],
    *,
    site: str,
    k: int,
    mixed: Mixed | None = None,
    is_joint: bool = False,
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
        mixed: What the view's mixture has to do with it.
        is_joint: Both are asked by the same key, so that the nearer edit applies; else the view's.
        words: Returns the names and the other words that the key of an edit's prompt is made of, or
            (of None) the key itself; None of keys that are hidden states.
    """
    fired: str | None = None
    near: list[tuple[str, float, float, bool]] = []
    shared: dict[str, int] = {}
    if len(view):
        (chosen,) = view.select(key[None])
        fired = None if chosen < 0 else view.edit_id(chosen)
        rows = dict(view.nearest(key, max(1, k)))
        if chosen >= 0:
            rows.setdefault(chosen, view.apart(chosen, key))
        for row, distance in rows.items():
            is_near = distance <= view.radius(row)
            in_scope = is_near and view.confirms(row, key)
            near.append((view.edit_id(row), distance, view.radius(row), in_scope))
            if is_near and not in_scope:
                shared[view.edit_id(row)] = view.shared_by(row)
    if mixed is not None:
        near += [
            (
                edit_id,
                distance,
                mixed.reach,
                mixed.bits[edit_id] < mixed.threshold and distance <= mixed.reach,
            )
            for place, (edit_id, distance) in enumerate(mixed.near)
            if place < max(1, k) or edit_id == mixed.fired
        ]
        apart = {edit_id: distance for edit_id, distance, _, _ in near}
        if mixed.fired is not None and (
            fired is None or (is_joint and apart[mixed.fired] < apart[fired])
        ):
            fired = mixed.fired
    near.sort(key=itemgetter(1))
    first = max(1, k)
    near = [*near[:first], *(one for one in near[first:] if one[0] == fired)]
    known = edits([edit_id for edit_id, *_ in near])
    candidates = tuple(
        Candidate(
            edit_id=edit_id,
            prompt=known[edit_id].prompt,
            target=known[edit_id].target,
            distance=distance,
            radius=radius,
            in_scope=in_scope,
            bits=None if mixed is None else mixed.bits.get(edit_id),
        )
        for edit_id, distance, radius, in_scope in near
    )
    return Explanation(
        prompt=prompt,
        version=view.version,
        fired=fired,
        site=site,
        summary=_summary(candidates, fired, words, mixed, shared),
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
    mixed: Mixed | None,
    shared: Mapping[str, int],
) -> str:
    nearest = candidates[0]
    if fired is None and nearest.edit_id in shared:
        count = shared[nearest.edit_id]
        others = "another edit shares" if count == 1 else f"{count} other edits share"
        return (
            f"No edit fires: the nearest one, {nearest.edit_id[:12]} ('{nearest.prompt}'), is "
            f"{nearest.distance:.3g} away and reaches {nearest.radius:.3g}, but {others} with it "
            "what it has in common with the prompt." + _because(nearest, words)
        )
    if fired is None and mixed is not None and nearest.bits is not None:
        least = min(mixed.bits.values())
        if nearest.distance <= nearest.radius and least >= mixed.threshold:
            return (
                f"No edit fires: the nearest one, {nearest.edit_id[:12]} ('{nearest.prompt}'), is "
                f"within reach, but the prompt's code is {least} bits from that of any edit, and "
                f"fewer than {mixed.threshold} are asked for."
            )
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
