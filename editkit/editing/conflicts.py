"""Contradictions: a new edit with another target where an active edit already applies.

Two edits with different targets contradict each other if they correct the same prompt, if the new
one's prompt lies in the scope of an older one, or if the older one was adjusted to apply to it.
Learning the new one then takes the older one's scope: all of it (it is superseded), or the part
around the new prompt (radii shrink so that the balls do not overlap).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from editkit.engines.base import Encoded, Engine
from editkit.errors import ContradictsEdit
from editkit.methods.opened import Methods
from editkit.scope.decide import decide_by_text
from editkit_store import Store
from editkit_store.history import prompt_digest
from editkit_store.records import Contradiction, Edit, EditRequest

__all__ = ["Contradictions", "OnConflict", "refusal"]

OnConflict = Literal["supersede", "error", "keep"]
"""What to do about a contradiction. ``supersede``: the new edit wins. ``error``: refuse it.
``keep``: the existing edit wins, and the new one is not learned."""


_MOST = 16  # edits with the same question that are reported


class Contradictions:
    """Finds what a request contradicts in the current history and running model.

    Args:
        store: The history.
        engine: The running model.
        methods: Its methods. Without a judge, scopes are compared only between edits with the same
            kind of key.
    """

    def __init__(self, store: Store, engine: Engine, methods: Methods) -> None:
        self._store = store
        self._engine = engine
        self._methods = methods

    def of(
        self, request: EditRequest, encoded: Encoded, query: torch.Tensor | None = None
    ) -> tuple[Contradiction, ...]:
        """Returns the active edits that a request contradicts: by prompt, and by scope.

        Args:
            request: The request.
            encoded: The request as tokens.
            query: ``(d,)`` float32, its lookup key under its method, if it is known already.
        """
        history = self._store.history
        current = history.current()
        digest = prompt_digest(request)
        found: list[Contradiction] = []
        for edit_id in history.same_prompt(digest, current)[:1]:
            edit = history.edits([edit_id], at=current)[edit_id]
            if not _agree(edit, request):
                found.append(_contradiction(edit, "prompt"))
        said = self._engine.view.overrides
        forced, barred = (None, frozenset[str]()) if not said else said.at(request.prompt)
        around = [
            one
            for one in self._around(request.method, encoded.prompt, query)
            if one[0] not in barred
        ]
        if forced is not None:
            around = [(forced, None, None)]
        for edit_id, distance, radius in around:
            edit = history.edits([edit_id], at=current)[edit_id]
            if prompt_digest(edit) != digest and not _agree(edit, request):
                found.append(_contradiction(edit, "scope", distance=distance, radius=radius))
        return tuple(found)

    def _around(
        self, method: str, prompt: Sequence[int], query: torch.Tensor | None
    ) -> Iterator[tuple[str, float | None, float | None]]:
        """Yields the edits whose scope holds a prompt, with their distance and radius."""
        reader, view = self._engine.reader, self._engine.view
        if reader is not None:
            for one in decide_by_text(reader, prompt, view, k=_MOST).near:
                if one.in_scope:
                    yield one.edit_id, one.distance, one.radius
            return
        if query is None:
            query = self._methods.of(method).query(prompt)
        keys = self._methods.of(method).keys
        for part in view.parts:
            if not len(part) or not part.is_comparable:
                continue
            if part.method != method:
                other = self._methods.get(part.method)
                if keys is None or other is None or other.keys is not keys:
                    continue
            selection = part.select(query[None])
            if selection.fired[0] >= 0:
                edit_id = part.edit_id(selection.fired[0])
                yield edit_id, selection.distance(0), selection.radius(0)


def refusal(request: EditRequest, found: tuple[Contradiction, ...]) -> ContradictsEdit:
    """Returns the error for a request that contradicts active edits."""
    first = found[0]
    where = "has the same prompt" if first.kind == "prompt" else "has this prompt in its scope"
    return ContradictsEdit(
        f"'{request.prompt}' → '{request.target}' contradicts edit '{first.edit_id}', which "
        f"{where} and the target '{first.target}'",
        edits=tuple(one.edit_id for one in found),
        hint="revert that edit first, or let the new one win with --on-conflict supersede",
    )


def _agree(edit: Edit, request: EditRequest) -> bool:
    return edit.target.strip() == request.target.strip()


def _contradiction(
    edit: Edit,
    kind: Literal["prompt", "scope"],
    *,
    distance: float | None = None,
    radius: float | None = None,
) -> Contradiction:
    return Contradiction(
        edit_id=edit.id,
        prompt=edit.prompt,
        target=edit.target,
        kind=kind,
        distance=distance,
        radius=radius,
    )
