"""The history of a running model: reading it, and moving the model between versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from editkit.editing import replay
from editkit.engines.base import View
from editkit.history import diff as compare
from editkit.history.status import status
from editkit.kit.inference import Inference
from editkit.kit.running import RunningModel
from editkit.methods.base import Relearned
from editkit.models.progress import Progress, SilentProgress
from editkit_store.history.versions import format_version
from editkit_store.records import MethodName, Replayed, ReplayPlan, Status, Tagged, ViewChanged
from editkit_store.records.comparisons import Diff

__all__ = ["Timeline"]


class Timeline:
    """Reads and changes the history of a running model. ``Kit`` documents the methods.

    Args:
        running: The running model.
        inference: Runs inference on its views.
    """

    def __init__(self, running: RunningModel, inference: Inference) -> None:
        self._running = running
        self._store = running.store
        self._inference = inference

    def resolve(self, version: str) -> str:
        """Returns the canonical name of a version; see ``Kit.resolve``."""
        return format_version(self._store.history.resolve(version))

    def status(self) -> Status:
        """Returns the status of the store; see ``Kit.status``."""
        return status(self._store)

    def diff(
        self,
        before: str,
        after: str,
        behavior: bool,
        probes: Iterable[str],
        max_new_tokens: int,
        progress: Progress | None,
    ) -> Diff:
        """Returns what changed between two versions; see ``Kit.diff``."""
        fingerprint = self._running.engine.fingerprint
        found = compare.diff(self._store, before, after, fingerprint=fingerprint)
        probes = (probes,) if isinstance(probes, str) else tuple(probes)
        if not behavior and not probes:
            return found
        return self._inference.side_by_side(found, probes, max_new_tokens, progress)

    def rollback(self, version: str) -> ViewChanged:
        """Restores the view of an older version; see ``Kit.rollback``."""
        with self._running.writing:
            like = self._running.view(version)
            provenance = self._running.provenance
            return self._apply(
                lambda: self._store.rollback(version, provenance=provenance), like=like
            )

    def undo(self) -> ViewChanged:
        """Undoes the last change; see ``Kit.undo``."""
        with self._running.writing:
            like = self._running.views.at(self._store.history.to_undo() - 1)
            provenance = self._running.provenance
            return self._apply(lambda: self._store.undo(provenance=provenance), like=like)

    def redo(self) -> ViewChanged:
        """Reverses the last undo; see ``Kit.redo``."""
        with self._running.writing:
            like = self._running.views.at(self._store.history.to_redo())
            provenance = self._running.provenance
            return self._apply(lambda: self._store.redo(provenance=provenance), like=like)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """Removes one edit, as if it had never been added; see ``Kit.revert``."""
        running = self._running
        with running.writing:
            found = self._store.history.resolve_edit(edit_id)
            current = self._store.history.current()
            changed: dict[str, Relearned] = {}
            for method in running.methods:
                learned = method.revert(
                    found,
                    version=current,
                    defer_only=defer_only,
                    progress=progress or SilentProgress(),
                )
                if learned is not None:
                    changed[method.shared_by] = learned
            detail: dict[str, Any] = {
                name: [one for learned in changed.values() for one in getattr(learned, field)]
                for name, field in (("relearned", "edits"), ("lost", "lost"))
            }
            return self._apply(
                lambda: self._store.revert(
                    found,
                    provenance=running.provenance,
                    detail=detail if changed else None,
                    snapshots={key: one.snapshot for key, one in changed.items()} or None,
                )
            )

    def tag(self, version: str, name: str) -> Tagged:
        """Names a version; see ``Kit.tag``."""
        return self._store.tag(version, name, provenance=self._running.provenance)

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """Applies the history to this model; see ``Kit.replay``."""
        running = self._running
        with running.writing:
            result = replay.run(
                self._store,
                running.engine,
                running.methods,
                running.views,
                to=to,
                method=method,
                only=only,
                provenance=running.provenance,
                settings=running.settings(),
                progress=progress,
            )
            running.views.reload()
            running.follow()
        return result

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """Previews ``replay``; see ``Kit.plan_replay``."""
        running = self._running
        return replay.plan(
            self._store,
            running.engine,
            running.methods,
            running.views,
            to=to,
            method=method,
            only=only,
        )

    def _apply(self, act: Callable[[], ViewChanged], *, like: View | None = None) -> ViewChanged:
        result = act()
        self._running.follow(like=like)
        return result
