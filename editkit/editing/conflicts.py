"""Contradictions: a new edit that gives another target where an active edit has its say.

Two edits contradict each other when they correct the same prompt, or when the new one's prompt lies
in the scope of an older one, with different targets. Learning the new one then takes something from
the older: all of it (it is superseded), or the part of its scope around the new prompt (radii
shrink so that the balls do not meet).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from editkit.engines.transformers.attachment import Attachment
from editkit.errors import ContradictsEdit
from editkit.methods.base import Teachers
from editkit.methods.elder.state import ElderView
from editkit.methods.grace.view import GraceView
from editkit_store import Store
from editkit_store.history import prompt_digest
from editkit_store.records import Contradiction, Edit, EditRequest, MethodName

__all__ = ["Contradictions", "OnConflict", "refusal"]

OnConflict = Literal["supersede", "error", "keep"]
"""What to do about a contradiction. ``supersede``: the new edit wins. ``error``: refuse it.
``keep``: the edit that is there wins, and the new one is not learned."""


class Contradictions:
    """Finds what a request contradicts, as the history and the running model stand.

    Args:
        store: The history.
        attachment: What the running model follows.
        teachers: The model's. Where its methods do not share their keys, scopes are compared only
            between edits of one method.
    """

    def __init__(self, store: Store, attachment: Attachment, teachers: Teachers) -> None:
        self._store = store
        self._attachment = attachment
        self._teachers = teachers

    def of(self, request: EditRequest, key: torch.Tensor | None) -> tuple[Contradiction, ...]:
        """Returns the active edits that a request contradicts: of its prompt, and around it.

        Args:
            request: What is to be corrected.
            key: ``(d,)`` float32, what its method would look it up by; None leaves scopes out.
        """
        history = self._store.history
        current = history.current()
        digest = prompt_digest(request)
        found: list[Contradiction] = []
        for edit_id in history.same_prompt(digest, current)[:1]:
            edit = history.edits([edit_id], at=current)[edit_id]
            if not _agree(edit, request):
                found.append(_contradiction(edit, "prompt"))
        for edit_id, distance, radius in self._around(key, request.method):
            edit = history.edits([edit_id], at=current)[edit_id]
            if prompt_digest(edit) != digest and not _agree(edit, request):
                found.append(_contradiction(edit, "scope", distance=distance, radius=radius))
        return tuple(found)

    def _around(
        self, key: torch.Tensor | None, method: MethodName
    ) -> Iterator[tuple[str, float, float]]:
        """Yields the edits that have a key in their scope, with their distance and radius."""
        view = self._attachment.view
        if key is None or not isinstance(view, GraceView):
            return
        if len(view) and (method == "grace" or self._teachers.share_keys()):
            (row,) = view.select(key[None])
            if row >= 0:
                yield view.edit_id(row), view.apart(row, key), view.radius(row)
        mixture = view.mixture
        if not isinstance(mixture, ElderView) or not len(mixture):
            return
        if mixture.state.radius is None:  # scopes are of codes alone, which tell no two apart
            return
        if method == "elder" or self._teachers.share_keys():
            routed = mixture.route(key[None])
            if routed.fired[0] >= 0:
                yield mixture.edit_id(routed.fired[0]), routed.apart[0], mixture.state.radius


def refusal(request: EditRequest, found: tuple[Contradiction, ...]) -> ContradictsEdit:
    """Returns the error that refuses a request for what it contradicts."""
    first = found[0]
    where = "has the same prompt" if first.kind == "prompt" else "has this prompt in its scope"
    return ContradictsEdit(
        f"'{request.prompt}' → '{request.target}' contradicts edit '{first.edit_id}', which "
        f"{where} and the target '{first.target}'",
        edits=tuple(one.edit_id for one in found),
        hint="take that edit back first, or let the new one win with --on-conflict supersede",
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
