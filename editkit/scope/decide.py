"""The decision which edit fires, for edits of all methods.

Where a scope reads the text of prompts, it alone decides which edit is asked for. Otherwise each
part of a view proposes at most one of its edits for a prompt. Distances of parts that share keys
are comparable, so the nearest of their proposals applies; otherwise the first in the order of the
parts. Generation and explanations both use this module; nothing else decides between methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from editkit.engines.base import Part, Queries
    from editkit.engines.reading import Near, PromptReader

__all__ = ["Decision", "Proposal", "Reason", "asked_for", "decide", "decide_by_text", "winner"]

Reason = Literal["no edits", "fires", "out of reach", "doubtful"]


class Proposal(NamedTuple):
    """An edit that a part proposes.

    Attributes:
        keys: The keys that looked it up; None for a hidden state, which is not comparable.
        distance: Distance to the query, L2.
    """

    keys: object | None
    distance: float


class Decision(NamedTuple):
    """The decision about one prompt.

    Attributes:
        edit_id: The edit that fires, if one does.
        method: Method of that edit, or of the nearest one; None if there are no edits.
        reason: Why it fires, or why none does.
        near: Edits of all parts near the prompt, nearest first, including the one that fires.
        methods: The method of each of them.
    """

    edit_id: str | None
    method: str | None
    reason: Reason
    near: tuple[Near, ...]
    methods: tuple[str, ...]


def winner(proposals: Sequence[Proposal | None]) -> int | None:
    """Returns the index of the proposal that applies, given those of a view's parts in order."""
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
        parts: The edits, in the order in which parts are consulted.
        query: Returns the lookup key of the prompt for a part, ``(d,)``.
        keys: Returns the keys of a part; None for hidden states.
        k: Number of nearest edits to report.
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
    edits, methods = tuple(one for one, _ in near), tuple(name for _, name in near)
    return Decision(edit_id, method, reason, edits, methods)


def asked_for(reader: PromptReader, ids: Sequence[int], parts: Sequence[Part]) -> str | None:
    """Returns the edit of some parts that a prompt asks for, if it asks for one.

    Args:
        reader: Reads prompts.
        ids: The prompt's tokens.
        parts: The edits.
    """
    near = reader.near(ids, lambda edit_id: _holder(parts, edit_id) is not None)
    return near[0].edit_id if near and near[0].in_scope else None


def decide_by_text(
    reader: PromptReader, ids: Sequence[int], parts: Sequence[Part], *, k: int = 1
) -> Decision:
    """Decides about one prompt by its text.

    Args:
        reader: Reads prompts.
        ids: The prompt's tokens.
        parts: The edits.
        k: Number of nearest edits to report.
    """
    holders: dict[str, str] = {}

    def holds(edit_id: str) -> bool:
        part = _holder(parts, edit_id)
        if part is not None:
            holders[edit_id] = part.method
        return part is not None

    near = tuple(reader.near(ids, holds, k))
    methods = tuple(holders[one.edit_id] for one in near)
    if not near:
        reason: Reason = "out of reach" if any(map(len, parts)) else "no edits"
        return Decision(None, None, reason, (), ())
    if near[0].in_scope:
        return Decision(near[0].edit_id, methods[0], "fires", near, methods)
    reason = "out of reach" if near[0].doubt is None else "doubtful"
    return Decision(None, methods[0], reason, near, methods)


def _holder(parts: Sequence[Part], edit_id: str) -> Part | None:
    return next((part for part in parts if part.number(edit_id) >= 0), None)
