"""The store: one DuckDB file behind one object, opened for reading or writing.

Every method that writes is one transaction: when it returns, the operation is durable; if it raises
or the process dies, the file is unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from editkit_store.artifacts.snapshots import Snapshot
from editkit_store.database.errors import Duplicate
from editkit_store.digest import short_id
from editkit_store.history.adjustments import check_adjustment, extended
from editkit_store.history.describe import describe
from editkit_store.history.log import Operation, prompt_digest
from editkit_store.history.versions import format_version
from editkit_store.reader import StoreReader
from editkit_store.records import (
    Adjusted,
    AdjustedPrompt,
    Adjustments,
    Artifact,
    Compacted,
    Edit,
    EditRequest,
    EditStatus,
    Provenance,
    Tagged,
    ViewChanged,
)
from editkit_store.user import user_name

if TYPE_CHECKING:
    from editkit_store.bundle.records import Compare, Imported, OnConflict

__all__ = ["NewEdit", "Store"]


@dataclass(frozen=True)
class NewEdit:
    """An edit to append, with its artifact.

    Attributes:
        edit: From ``Store.prepare``.
        artifact: What the model learned, or that it failed to.
        payload: Its tensors as safetensors bytes.
        activate: Whether the edit joins the view.
        snapshot: The weights that edits share, including this edit; stored only with ``activate``.
            The artifact's metrics hold its digest as ``snapshot``.
        shared_by: Key under which these weights are stored; by default the model's fingerprint.
    """

    edit: Edit
    artifact: Artifact
    payload: bytes | None
    activate: bool
    snapshot: Snapshot | None = None
    shared_by: str | None = None

    @property
    def owner(self) -> str:
        """Key under which the weights that edits share are stored."""
        return self.shared_by or self.artifact.fingerprint

    @property
    def status(self) -> EditStatus:
        """The edit's status after it is appended."""
        return "active" if self.activate else "failed"


class Store(StoreReader):
    """An open history. Use it as a context manager; ``open_store`` creates it."""

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._db.close()

    def compact(self) -> Compacted:
        """Compacts the file of this open store; readers wait meanwhile.

        Raises:
            As ``editkit_store.database.compact.compact``.
        """
        from editkit_store.database.compact import rewrite

        return rewrite(self._db)

    # Settings ---------------------------------------------------------------------------------

    def remember(self, **settings: str) -> None:
        """Stores settings, e.g. ``model="gpt2"``, for later commands."""
        with self._db.transaction():
            self._remember(settings)

    def _remember(self, settings: Mapping[str, str]) -> None:
        if "model" in settings and settings["model"] != self.setting("model"):
            # The fingerprint belonged to the model remembered before.
            self._db.execute("DELETE FROM settings WHERE name = 'fingerprint'")
        for name, value in settings.items():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, value])
        if settings:
            self._known = None

    # Appending --------------------------------------------------------------------------------

    def prepare(self, request: EditRequest) -> Edit:
        """Returns the edit for a request, with its id and time; writes nothing."""
        import uuid

        time = self._clock()
        body = request.model_dump(mode="json")
        unique = {"request": body, "time": time.isoformat(), "nonce": uuid.uuid4().hex}
        return Edit(**{**request.__dict__, "id": short_id(unique), "time": time})

    def add(
        self,
        edit: Edit,
        *,
        artifact: Artifact,
        payload: bytes | None,
        activate: bool,
        provenance: Provenance | None = None,
        settings: Mapping[str, str] | None = None,
        snapshot: Snapshot | None = None,
        shared_by: str | None = None,
    ) -> tuple[Operation, Edit]:
        """Appends an edit with its artifact, in one transaction.

        Args:
            edit: From ``prepare``.
            artifact: What the model learned, or that it failed to.
            payload: Its tensors as safetensors bytes.
            activate: Whether the edit joins the view.
            provenance: Recorded with the operation.
            settings: Settings to store in the same transaction.
            snapshot: See ``NewEdit``.
            shared_by: See ``NewEdit``.

        Returns:
            The operation, and the edit with its status after it.
        """
        new = NewEdit(edit, artifact, payload, activate, snapshot, shared_by)
        return self.add_many([new], provenance=provenance, settings=settings)[0]

    def add_many(
        self,
        new: Sequence[NewEdit],
        *,
        provenance: Provenance | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> list[tuple[Operation, Edit]]:
        """Appends edits, one operation each, in one transaction: all of them or none.

        Planning and syncing take most of the time of a small transaction, so adding many edits at
        once takes a fraction of the time.

        Args:
            new: The edits, in order.
            provenance: Recorded with the operations.
            settings: Settings to store in the same transaction.

        Returns:
            For each, the operation, and the edit with its status after it.
        """
        if not new:
            return []
        try:
            operations = self._append(new, provenance, settings, is_new=True)
        except Duplicate:  # a payload is stored already, which is rare
            operations = self._append(new, provenance, settings, is_new=False)
        return [
            (operation, one.edit.model_copy(update={"status": one.status}))
            for operation, one in zip(operations, new, strict=True)
        ]

    def _append(
        self,
        new: Sequence[NewEdit],
        provenance: Provenance | None,
        settings: Mapping[str, str] | None,
        *,
        is_new: bool,
    ) -> list[Operation]:
        operations: list[Operation] = []
        with self._db.transaction():
            self._remember(settings or {})
            # All reads come before the first write, so that the rows are inserted together.
            prompts = [prompt_digest(one.edit) for one in new]
            peers = self.history.peers(prompts)
            for one, prompt in zip(new, prompts, strict=True):
                artifact = one.artifact
                drafted = self.artifacts.draft(
                    artifact, one.payload, time=one.edit.time, is_new=is_new
                )
                put = self._put(one.snapshot, one.owner) if one.activate else None
                operation = self.history.add(
                    one.edit,
                    activate=one.activate,
                    peers=peers[prompt],
                    snapshot=None if put is None else (one.owner, put),
                    extra={
                        "artifact": artifact.digest,
                        "record": drafted.digest,
                        "verified": artifact.verified,
                    },
                    provenance=self._provenance(provenance, one.edit),
                    fingerprint=artifact.fingerprint,
                )
                self.artifacts.insert(drafted)
                operations.append(operation)
                peers[prompt].insert(0, one.edit.id)
        return operations

    def _put(self, snapshot: Snapshot | None, owner: str) -> str | None:
        """Stores a snapshot as a delta to the current one of the same owner."""
        if snapshot is None:
            return None
        now = self.snapshots.at(self.history.current()).get(owner)
        return self.snapshots.put(snapshot, like=now)

    def put_artifacts(
        self,
        learned: Sequence[tuple[Artifact, bytes | None]],
        *,
        provenance: Provenance | None = None,
        snapshot: Snapshot | None = None,
        shared_by: str | None = None,
        version: int | None = None,
    ) -> None:
        """Stores artifacts of edits on one model, in one transaction: a replay's batch.

        Args:
            learned: The artifacts and their tensors.
            provenance: Recorded with the batch.
            snapshot: The weights that edits share, including these edits.
            shared_by: See ``NewEdit``.
            version: First version with these weights; by default the current one.
        """
        if not learned:
            return
        model = learned[0][0]
        with self._db.transaction():
            records = {
                artifact.edit_id: self.artifacts.put(artifact, payload, time=self._clock())
                for artifact, payload in learned
            }
            how = {**self._operation_fields(provenance), "fingerprint": model.fingerprint}
            owner = shared_by or model.fingerprint
            digest = self._put(snapshot, owner)
            if digest is not None:
                start = self.history.current() if version is None else version
                how["snapshots"] = {owner: (start, digest)}
            self.history.record_batch({"model": model.model, "records": records}, **how)

    def revert(
        self,
        edit: str,
        *,
        provenance: Provenance | None = None,
        detail: Mapping[str, Any] | None = None,
        snapshots: Mapping[str, Snapshot | None] | None = None,
    ) -> ViewChanged:
        """Removes one edit, as if it had never been added; later ones stay.

        Args:
            edit: Its id, or a prefix of it.
            provenance: Recorded with the operation.
            detail: More details of the operation.
            snapshots: The weights that edits share, without this edit, by ``NewEdit.shared_by``;
                None if nothing is left.

        Raises:
            UnknownEdit, AmbiguousId: ``edit`` matches none or several.
            NotActive: The edit is not part of the current view.
        """
        edit_id = self.history.resolve_edit(edit)
        if detail is None and self.shares_weights(edit_id):
            detail = {"deferred": True}

        def act(how: dict[str, Any]) -> Operation:
            start = self.history.current() + 1
            stored = {
                owner: (start, self._put(one, owner)) for owner, one in (snapshots or {}).items()
            }
            return self.history.revert(edit_id, detail=detail, snapshots=stored, **how)

        return self._change(act, provenance)

    def adjust(
        self,
        edit: str,
        *,
        also: Sequence[AdjustedPrompt] = (),
        exclude: Sequence[str] = (),
        activate: bool = True,
        dry_run: bool = False,
        provenance: Provenance | None = None,
    ) -> Adjusted:
        """Says which prompts an edit also applies to, and which it must not apply to.

        Records nothing if the reach is so already.

        Args:
            edit: Its id, or a prefix of it.
            also: Prompts that it also applies to, as they were verified on a model.
            exclude: Prompts that it must not apply to.
            activate: Whether this applies; else it is recorded as a failed attempt.
            dry_run: Only return the result.
            provenance: Recorded with the operation.

        Raises:
            UnknownEdit, AmbiguousId: ``edit`` matches none or several.
            NotActive: The edit is not active in the current version.
            InvalidRequest: See ``check_adjustment``.
        """
        history = self.history
        found = history.check_active(history.resolve_edit(edit))
        taken, left = check_adjustment(found, [one.prompt for one in also], exclude)
        checked = tuple(one for one in also if one.prompt in taken)
        failed = [one.prompt for one in checked if not one.carries]
        outcome: Literal["adjusted", "failed", "known"] = "adjusted" if activate else "failed"
        if history.is_adjusted(found.id, taken, left, at=history.current()):
            outcome = "known"
        elif not dry_run:
            with self._db.transaction():
                how = self._operation_fields(provenance)
                history.adjust(found.id, taken, left, activate=activate, failed=failed, **how)
        last = history.last()
        now = history.adjustments([found.id], at=last.version).get(found.id, Adjustments())
        return Adjusted(
            version=format_version(last.version),
            outcome=outcome,
            verified=not failed,
            edit=found,
            also=checked,
            exclude=left,
            adjustments=extended(now, taken, left) if dry_run and activate else now,
            view=last.active_count,
            dry_run=dry_run,
        )

    def rollback(self, version: str, *, provenance: Provenance | None = None) -> ViewChanged:
        """Creates a new version with the view of ``version``.

        Raises:
            UnknownVersion: There is no such version or tag.
        """
        number = self.history.resolve(version)
        return self._change(lambda how: self.history.rollback(number, **how), provenance)

    def undo(self, *, provenance: Provenance | None = None) -> ViewChanged:
        """Undoes the last change; a second undo goes one step further back.

        Raises:
            NothingToUndo: Everything is undone.
        """
        return self._change(lambda how: self.history.undo(**how), provenance)

    def redo(self, *, provenance: Provenance | None = None) -> ViewChanged:
        """Reverses the last undo.

        Raises:
            NothingToUndo: The last change was not an undo.
        """
        return self._change(lambda how: self.history.redo(**how), provenance)

    def tag(self, version: str, name: str, *, provenance: Provenance | None = None) -> Tagged:
        """Names a version; an existing tag is moved to it.

        Raises:
            UnknownVersion: There is no such version.
            InvalidTag: The name cannot be a tag.
        """
        number = self.history.resolve(version)
        with self._db.transaction():
            self.history.tag(number, name, **self._operation_fields(provenance))
        return Tagged(tag=name, version=format_version(number))

    def import_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: OnConflict = "keep",
        dry_run: bool = False,
        provenance: Provenance | None = None,
        compare: Compare | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> Imported:
        """Imports the edits of a bundle, in one transaction and one operation.

        Args:
            path: Folder of the bundle.
            on_conflict: If an active edit of this store corrects the same prompt: ``keep`` it
                active, let the imported one ``supersede`` it, or ``error``.
            dry_run: Only return what would happen.
            provenance: Recorded with the operation.
            compare: Returns the conflicts of imported edits with others, by model and edit, given
                their ids by model. Without it, they are searched for on every opening.
            before_commit: Called before the commit. If it or ``compare`` raises, the import is
                rolled back.

        Raises:
            BundleNotFound, BundleTooNew, BundleDamaged: The bundle cannot be read.
            ImportConflict: There is a conflict and ``on_conflict`` is ``error``; or an edit has the
                id of a different edit in this store.
        """
        from editkit_store.bundle import imports

        return imports.import_bundle(
            self._db,
            self.history,
            Path(path),
            on_conflict=on_conflict,
            dry_run=dry_run,
            how=self._operation_fields(provenance),
            compare=compare,
            before_commit=before_commit,
        )

    def record_replay(
        self,
        version: int,
        *,
        fingerprint: str,
        detail: Mapping[str, Any],
        provenance: Provenance | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Operation:
        """Appends the record of a finished replay."""
        with self._db.transaction():
            self._remember(settings or {})
            how = {**self._operation_fields(provenance), "fingerprint": fingerprint}
            return self.history.replay(version, detail, **how)

    def _change(
        self, act: Callable[[dict[str, Any]], Operation], provenance: Provenance | None
    ) -> ViewChanged:
        with self._db.transaction():
            operation = act(self._operation_fields(provenance))
        return ViewChanged(
            version=format_version(operation.version),
            view=operation.active_count,
            operation=operation.kind,
            detail=describe(operation),
            relearned=tuple(operation.detail.get("relearned", ())),
            lost=tuple(operation.detail.get("lost", ())),
        )

    def _operation_fields(self, provenance: Provenance | None) -> dict[str, Any]:
        return {
            "provenance": self._provenance(provenance),
            "time": self._clock(),
            "fingerprint": self.setting("fingerprint"),
        }

    def _provenance(self, given: Provenance | None, edit: Edit | None = None) -> Provenance:
        """Fills in missing fields: author, user and host."""
        import socket  # lazy, like getpass, uuid and tempfile: not needed for reading

        given = given or Provenance()
        user = given.user or user_name()
        requested = edit.author if edit else None
        return given.model_copy(
            update={
                "author": given.author or requested or os.environ.get("EDITKIT_AUTHOR") or user,
                "agent": given.agent or (edit.agent if edit else None),
                "conversation": given.conversation or (edit.conversation if edit else None),
                "user": user,
                "host": given.host or socket.gethostname(),
                "reason": given.reason or (edit.reason if edit else None),
            }
        )
