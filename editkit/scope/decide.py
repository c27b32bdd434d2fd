"""Which edit fires: the one place that says so, whatever method the edits are of.

Each part of a view proposes at most one of its edits for a prompt. Parts that look prompts up by
the same keys have distances that compare, so of their proposals the nearest applies; of others the
first in the order of the parts does. Nothing else decides between methods: generation and
explanations both come here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from editkit.engines.base import Near, Part, Queries

__all__ = ["Decision", "Proposal", "Reason", "decide", "winner"]

Reason = Literal["no edits", "fires", "out of reach", "doubtful"]


class Proposal(NamedTuple):
    """An edit that a part would have fire.

    Attributes:
        keys: What it was looked up by; None of a state, which no other part's compares with.
        distance: To the query, L2.
    """

    keys: object | None
    distance: float


class Decision(NamedTuple):
    """What is decided about one prompt.

    Attributes:
        edit_id: The edit that fires, if one does.
        method: Method of that edit, or of the nearest; None where there is no edit.
        reason: Why it fires, or why none does.
        near: Edits of all parts near the prompt, nearest first, the one that fires among them.
        methods: Of each of them the method that it was learned by.
    """

    edit_id: str | None
    method: str | None
    reason: Reason
    near: tuple[Near, ...]
    methods: tuple[str, ...]


def winner(proposals: Sequence[Proposal | None]) -> int | None:
    """Returns the index of the proposal that applies, of those of a view's parts in their order."""
    first = next((i for i, one in enumerate(proposals) if one is not None), None)
    if first is None:
        return None
    chosen, best = first, proposals[first]
    assert best is not None
    for index, one in enumerate(proposals[first + 1 :], first + 1):
        if one is not None and one.keys is not None and one.keys is best.keys:
            if one.distance < best.distance:
                chosen, best = index, one
    return chosen


def decide(
    parts: Sequence[Part],
    query: Callable[[Part], Queries],
    keys: Callable[[Part], object | None],
    *,
    k: int = 1,
) -> Decision:
    """Decides about one prompt.

    Args:
        parts: The edits, in the order in which parts are asked.
        query: Returns what a part looks the prompt up by, ``(d,)``.
        keys: Returns what a part's queries come from; None of states.
        k: How many of the nearest edits to tell of.
    """
    parts = [part for part in parts if len(part)]
    proposals: list[Proposal | None] = []
    fired: list[str | None] = []
    near: list[tuple[Near, str]] = []
    for part in parts:
        asked = query(part)
        selection = part.select(asked[None])
        number = selection.fired[0]
        fired.append(None if number < 0 else part.edit_id(number))
        proposals.append(None if number < 0 else Proposal(keys(part), selection.distance(0)))
        near += [(one, part.method) for one in part.near(asked, max(1, k))]
    chosen = winner(proposals)
    edit_id = None if chosen is None else fired[chosen]
    near.sort(key=lambda one: one[0].distance)
    first = max(1, k)
    near = [*near[:first], *(one for one in near[first:] if one[0].edit_id == edit_id)]
    reason: Reason = "no edits"
    method = near[0][1] if near else None
    if chosen is not None:
        reason, method = "fires", parts[chosen].method
    elif near:
        reason = "out of reach" if near[0][0].doubt is None else "doubtful"
    told, methods = tuple(one for one, _ in near), tuple(name for _, name in near)
    return Decision(edit_id, method, reason, told, methods)
