"""The part of a kit that reads its history, and moves the running model along it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from editkit.editing import replay
from editkit.engines.transformers.attachment import Attachment
from editkit.errors import ArtifactsMissing
from editkit.history import diff as compare
from editkit.history.views import Views
from editkit.kit.inference import Asker
from editkit.methods.base import Teachers
from editkit.methods.elder.method import Adapting
from editkit.methods.grace.view import GraceView
from editkit.models.progress import Progress, SilentProgress
from editkit_store import Store
from editkit_store.history.versions import format_version
from editkit_store.records import (
    EditRequest,
    LogEntry,
    MethodName,
    Provenance,
    Replayed,
    ReplayPlan,
    Shown,
    Status,
    Tagged,
    ViewChanged,
)
from editkit_store.records.comparisons import Diff

__all__ = ["HistoryMethods"]


class HistoryMethods:
    """Methods of ``Kit``; the attributes are the kit's."""

    store: Store
    fingerprint: str
    provenance: Provenance
    _asker: Asker
    _views: Views
    _attachment: Attachment
    _elder: Adapting
    _teachers: Teachers
    _writing: AbstractContextManager[Any]
    _prepare: Callable[[], None]
    _remembered: str | None

    def log(
        self,
        *,
        limit: int | None = None,
        at: str | None = None,
        before: int | None = None,
        containing: str | None = None,
        redacted: bool = False,
    ) -> list[LogEntry]:
        """Returns the operations, newest first; see ``Store.log``."""
        return self.store.log(
            limit=limit, at=at, before=before, containing=containing, redacted=redacted
        )

    def resolve(self, version: str) -> str:
        """Returns the own name of a version, e.g. `v12`.

        Raises:
            UnknownVersion: The expression names none.
        """
        return format_version(self.store.history.resolve(version))

    def count_requests(self, request: EditRequest) -> int:
        """Returns how many members of the current version came of exactly this request."""
        return self.store.count_requests(request)

    def show(self, name: str, *, redacted: bool = False) -> Shown:
        """Returns a version (or the version that added an edit) in full; see ``Store.show``."""
        return self.store.show(name, redacted=redacted)

    def status(self) -> Status:
        """Returns where the store stands."""
        return self.store.status()

    def diff(
        self,
        before: str,
        after: str,
        *,
        behavior: bool = False,
        probes: Iterable[str] = (),
        max_new_tokens: int = 16,
        progress: Progress | None = None,
    ) -> Diff:
        """Returns what changed between two versions, codebook of this model included.

        Args:
            before: Version expression.
            after: Version expression.
            behavior: Also put the model's greedy answers at both versions side by side: to the
                prompts of the edits that came or went, their rephrases and locality prompts.
            probes: Prompts to ask beside those; with any, ``behavior`` is understood.
            max_new_tokens: Limit of answers to probes and locality prompts, tokens; those to an
                edit may be a little longer than its target.
            progress: Told about every answer.

        Raises:
            UnknownVersion: An expression names no version.
            ArtifactsMissing: Answers at a version with edits that this model has not learned.
            InvalidRequest, PromptTooLong: A probe is empty or too long.
        """
        found = compare.diff(self.store, before, after, fingerprint=self.fingerprint)
        probes = (probes,) if isinstance(probes, str) else tuple(probes)
        if not behavior and not probes:
            return found
        return self._asker.side_by_side(found, probes, max_new_tokens, progress)

    def rollback(self, version: str) -> ViewChanged:
        """Takes the running model to the view of an older version, as a new version.

        Raises:
            UnknownVersion: No such version.
            ArtifactsMissing: It holds edits this model has not learned; nothing was changed.
        """
        with self._writing:
            like = self._asker.view(version)
            return self._changed(
                lambda: self.store.rollback(version, provenance=self.provenance), like=like
            )

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """Takes one edit back, as if it had never been.

        An edit of ELDER shares its weights with others: the adaptors from before it come back, and
        those that came later are learned again.

        Args:
            edit_id: The edit, or the beginning of its id.
            defer_only: Of an edit of ELDER: at once, and only so that no prompt reaches it. What it
                did to the weights stays.
            progress: Told about every edit that is learned again.

        Raises:
            UnknownEdit, AmbiguousId, NotActive: The id names no active edit.
            ArtifactsMissing: With ``defer_only``: an older edit of its prompt would be active,
                which the adaptors do not know any more. Nothing was changed.
        """
        with self._writing:
            found = self.store.history.resolve_edit(edit_id)
            current = self.store.history.current()
            detail: dict[str, Any] = {}
            snapshots = None
            adaptors = self._views.adaptors
            back = self._elder.restored(found, version=current)
            forgotten = [one for one in back if not adaptors.knows(one, current)]
            if forgotten and defer_only:
                raise ArtifactsMissing(
                    f"without edit '{found}' the older '{back[0]}' would be active again, which "
                    "the adaptors have forgotten",
                    missing=tuple(forgotten),
                    fingerprint=self.fingerprint,
                    known=(self.fingerprint,),
                    hint="revert it without deferring only: the older one is then learned again",
                )
            if (found in adaptors.active_at(current) or forgotten) and not defer_only:
                learned = self._elder.without(
                    found, version=current, bar=progress or SilentProgress()
                )
                detail = {"relearned": list(learned.edits), "lost": list(learned.lost)}
                snapshots = {self.fingerprint: learned.snapshot}
            return self._changed(
                lambda: self.store.revert(
                    found,
                    provenance=self.provenance,
                    detail=detail or None,
                    snapshots=snapshots,
                )
            )

    def undo(self) -> ViewChanged:
        """Takes the last change back; a second undo goes one further back.

        Raises:
            NothingToUndo: Everything is undone.
            ArtifactsMissing: As ``rollback``.
        """
        with self._writing:
            like = self._views.at(self.store.history.to_undo() - 1)
            return self._changed(lambda: self.store.undo(provenance=self.provenance), like=like)

    def redo(self) -> ViewChanged:
        """Takes the last undo back.

        Raises:
            NothingToUndo: The last change was not an undo.
            ArtifactsMissing: As ``rollback``.
        """
        with self._writing:
            like = self._views.at(self.store.history.to_redo())
            return self._changed(lambda: self.store.redo(provenance=self.provenance), like=like)

    def tag(self, version: str, name: str) -> Tagged:
        """Names a version.

        Raises:
            UnknownVersion, InvalidTag: No such version, or not a name for one.
        """
        return self.store.tag(version, name, provenance=self.provenance)

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """Brings the history to this model: restores what it has learned, learns the rest.

        Interrupted, it goes on from the last finished batch when it is called again. Open the kit
        with ``missing="skip"`` when the model is new to the history.

        Args:
            to: Version expression; the current version by default.
            method: Learn with this method instead of each edit's own.
            only: Version expression; replay only those edits of ``to`` that are active at this
                version too. The others stay unlearned until they are replayed themselves.
            progress: Told about every edit.

        Raises:
            UnknownVersion: ``to`` or ``only`` names none.
        """
        with self._writing:
            result = replay.run(
                self.store,
                self._teachers,
                self._views,
                to=to,
                method=method,
                only=only,
                provenance=self.provenance,
                settings=self._settings(),
                progress=progress,
            )
            self._views.reload()
            self._prepare()
            self._attachment.view = self._views.at(self.store.history.current())
        return result

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """Returns what ``replay`` would do with the same arguments; writes nothing."""
        return replay.plan(self.store, self._teachers, self._views, to=to, method=method, only=only)

    def _changed(
        self, act: Callable[[], ViewChanged], *, like: GraceView | None = None
    ) -> ViewChanged:
        with self._writing:
            result = act()
            self._attachment.view = self._views.at(self.store.history.current(), like=like)
        return result

    def _settings(self) -> dict[str, str]:
        """What the store does not remember yet and should."""
        model = self.store.setting("model")
        wanted = {}
        if model is None and self._remembered is not None:
            wanted["model"] = self._remembered
        if model in (None, self._remembered) and self.store.setting("fingerprint") is None:
            wanted["fingerprint"] = self.fingerprint
        return wanted
