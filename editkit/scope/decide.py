"""The decision which edit fires, for edits of all methods.

Where a scope reads the text of prompts, it alone decides which edit is asked for. Otherwise each
part of a view proposes at most one of its edits for a prompt. Distances of parts that share keys
are comparable, so the nearest of their proposals applies; otherwise the first in the order of the
parts. Generation and explanations both use this module; nothing else decides between methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from editkit.scope.overrides import Override, overridden

if TYPE_CHECKING:
    from editkit.engines.base import Part, Queries, View
    from editkit.engines.reading import Near, PromptReader
    from editkit_store.records import Adjustments

__all__ = ["Decision", "Proposal", "Reason", "asked_for", "decide", "decide_by_text", "winner"]

Reason = Literal["no edits", "fires", "adjusted", "out of reach", "doubtful"]


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
    override: Override | None = None,
) -> Decision:
    """Decides about one prompt.

    Args:
        parts: The edits, in the order in which parts are consulted.
        query: Returns the lookup key of the prompt for a part, ``(d,)``.
        keys: Returns the keys of a part; None for hidden states.
        k: Number of nearest edits to report.
        override: What people said about the prompt, if anything.
    """
    said = override or Override(None, frozenset())
    parts = [part for part in parts if len(part)]
    proposals: list[Proposal | None] = []
    fired: list[str | None] = []
    near: list[tuple[Near, str]] = []
    for part in parts:
        asked = query(part)
        selection = part.select(asked[None]) if override is None else overridden(part, asked, said)
        number = -1 if selection is None else selection.fired[0]
        fired.append(None if number < 0 else part.edit_id(number))
        distance = 0.0 if selection is None or number < 0 else selection.distance(0)
        proposals.append(None if number < 0 else Proposal(keys(part), distance))
        found = part.near(asked, max(1, k))
        if said.forced is not None and fired[-1] == said.forced:
            found = _with_forced(found, part, asked, said.forced)
        near += [(_barred(one) if one.edit_id in said.barred else one, part.method)
                 for one in found]  # fmt: skip
    chosen = winner(proposals)
    edit_id = None if chosen is None else fired[chosen]
    near.sort(key=lambda one: one[0].distance)
    first = max(1, k)
    near = [*near[:first], *(one for one in near[first:] if one[0].edit_id == edit_id)]
    reason: Reason = "no edits"
    method = near[0][1] if near else None
    if chosen is not None:
        method = parts[chosen].method
        reason = "fires" if said.forced is None else "adjusted"
    elif near:
        reason = "out of reach" if near[0][0].doubt is None else "doubtful"
    edits, methods = tuple(one for one, _ in near), tuple(name for _, name in near)
    return Decision(edit_id, method, reason, edits, methods)


def asked_for(reader: PromptReader, ids: Sequence[int], view: View) -> str | None:
    """Returns the edit of some parts that a prompt asks for, if it asks for one.

    Args:
        reader: Reads prompts.
        ids: The prompt's tokens.
        view: The edits.
    """
    near = reader.near(
        ids, lambda edit_id: _holder(view, edit_id) is not None, adjusted=_adjusted(view)
    )
    return near[0].edit_id if near and near[0].in_scope else None


def decide_by_text(reader: PromptReader, ids: Sequence[int], view: View, *, k: int = 1) -> Decision:
    """Decides about one prompt by its text.

    Args:
        reader: Reads prompts.
        ids: The prompt's tokens.
        view: The edits.
        k: Number of nearest edits to report.
    """
    holders: dict[str, str] = {}

    def holds(edit_id: str) -> bool:
        part = _holder(view, edit_id)
        if part is not None:
            holders[edit_id] = part.method
        return part is not None

    near = tuple(reader.near(ids, holds, k, _adjusted(view)))
    methods = tuple(holders[one.edit_id] for one in near)
    if not near:
        reason: Reason = "out of reach" if len(view) else "no edits"
        return Decision(None, None, reason, (), ())
    if near[0].in_scope:
        return Decision(near[0].edit_id, methods[0], "fires", near, methods)
    reason = "out of reach" if near[0].doubt is None else "doubtful"
    return Decision(None, methods[0], reason, near, methods)


def _holder(view: View, edit_id: str) -> Part | None:
    return next((part for part in view.parts if part.number(edit_id) >= 0), None)


def _adjusted(view: View) -> Mapping[str, Adjustments]:
    return view.overrides.adjustments if view.overrides else {}


def _barred(near: Near) -> Near:
    return near._replace(in_scope=False, doubt="was adjusted: it does not apply to this prompt")


def _with_forced(found: list[Near], part: Part, query: Queries, edit_id: str) -> list[Near]:
    """Returns the edits near a query with the one that is forced, in scope."""
    own = part.own_query(edit_id)
    known = [one._replace(in_scope=True) if one.edit_id == edit_id else one for one in found]
    if own is None or any(one.edit_id == edit_id for one in known):
        return known
    pair = [np.asarray(one, np.float32) if isinstance(one, np.ndarray) else
            one.detach().cpu().float().numpy() for one in (own, query)]  # fmt: skip
    distance = float(np.linalg.norm(pair[0] - pair[1]))
    at_home = [one for one in part.near(own, 1) if one.edit_id == edit_id]
    return [*known, *(one._replace(distance=distance, in_scope=True) for one in at_home[:1])]
