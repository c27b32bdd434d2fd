"""Previews: what a change would do, without making it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from editkit.editing.editor import Editor
from editkit.editing.requests import build_request
from editkit.kit.inference import Inference
from editkit.kit.running import RunningModel
from editkit.methods.base import SLACK
from editkit_store.errors import NotActive
from editkit_store.history import prompt_digest
from editkit_store.history.versions import format_version
from editkit_store.records import AddPlan, EditRequest, ViewPlan

__all__ = ["Preview"]


class Preview:
    """Previews changes of one history; writes nothing. ``Kit`` documents the methods.

    Args:
        running: The running model.
        inference: Runs inference on its views.
        editor: Adds edits to it.
    """

    def __init__(self, running: RunningModel, inference: Inference, editor: Editor) -> None:
        self._running = running
        self._inference = inference
        self._editor = editor

    def plan_add(self, request: EditRequest | Mapping[str, Any], *, near: int = 3) -> AddPlan:
        """Previews adding an edit; see ``Kit.plan_add``."""
        engine = self._running.engine
        request = build_request(request, kind=engine.encoder.default_kind)
        encoded = self._running.methods.encode(request)
        history = self._running.store.history
        current = history.current()
        (answer,) = engine.generate(
            [encoded.prompt],
            views=[self._running.view(format_version(current))],
            max_new_tokens=len(encoded.target) + SLACK,
        )
        nearest = self._inference.explain(
            request.prompt if request.chat is None else None,
            request.chat,
            format_version(current),
            max(1, near),
        ).candidates
        key = request.idempotency_key
        return AddPlan(
            version=format_version(current),
            prompt=request.prompt,
            target=request.target,
            answer=answer.text,
            fired=answer.fired,
            is_answered=answer.text.strip() == request.target.strip(),
            supersedes=tuple(history.same_prompt(prompt_digest(request), current)[:1]),
            conflicts=self._editor.contradicted(request, encoded),
            nearest=nearest[:near],
            known=None if key is None else history.with_key(key),
        )

    def plan_rollback(self, version: str) -> ViewPlan:
        """Previews ``rollback``; see ``Kit.plan_rollback``."""
        return self._plan_restore("rollback", self._running.store.history.resolve(version))

    def plan_undo(self) -> ViewPlan:
        """Previews ``undo``; see ``Kit.plan_undo``."""
        return self._plan_restore("undo", self._running.store.history.to_undo() - 1)

    def plan_revert(self, edit_id: str) -> ViewPlan:
        """Previews ``revert``; see ``Kit.plan_revert``."""
        history = self._running.store.history
        found, current = history.resolve_edit(edit_id), history.current()
        edit = history.edits([found], at=current)[found]
        if edit.status not in ("active", "superseded"):
            raise NotActive(
                f"edit '{found}' is not active in this version: it is {edit.status}", edit_id=found
            )
        # An older correction of the same prompt, if there is one, becomes active again.
        older = [one for one in history.same_prompt(prompt_digest(edit), current) if one != found]
        is_active = edit.status == "active"
        restored = older[:1] if is_active else []
        return ViewPlan(
            version=format_version(current),
            operation="revert",
            view=history.active_count(current) - int(is_active) + len(restored),
            added=tuple(history.edits(restored, at=current).values()),
            removed=(edit,) if is_active else (),
        )

    def _plan_restore(self, operation: Any, version: int) -> ViewPlan:
        history = self._running.store.history
        current = history.current()
        added, removed = history.changes(current, version)
        edits = history.edits([*added, *removed], at=current)
        return ViewPlan(
            version=format_version(current),
            operation=operation,
            like=format_version(version),
            view=history.active_count(version),
            added=tuple(edits[one] for one in added),
            removed=tuple(edits[one] for one in removed),
        )
