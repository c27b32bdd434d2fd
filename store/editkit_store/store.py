"""The store: one DuckDB file behind one object, opened to read or to write.

Every writing method is one transaction: after it returns, the operation is durable; if it raises,
or the process dies inside it, the file is as before.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from editkit_store import schema
from editkit_store.artifacts import Artifacts
from editkit_store.connection import Database
from editkit_store.describe import describe
from editkit_store.digest import digest_json, short_id
from editkit_store.errors import (
    StoreError,
    UnknownEdit,
    UnknownVersion,
)
from editkit_store.history import History, Operation
from editkit_store.inspection import plain, space
from editkit_store.records import (
    Artifact,
    Edit,
    EditRequest,
    LogEntry,
    Provenance,
    Shown,
    Status,
    Table,
    Tagged,
    Verified,
    ViewChanged,
)
from editkit_store.translation import Duplicate
from editkit_store.verify import verify
from editkit_store.versions import format_version

if TYPE_CHECKING:
    from editkit_store.bundle_records import Compare, Exported, Imported, OnConflict

__all__ = ["Store"]


class Store:
    """An open history. Use as a context manager; ``open_store`` makes one."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock
        # Settings, as long as no transaction failed: every operation asks for some.
        self._known: tuple[int, dict[str, str]] | None = None
        self.history = History(database)
        self.artifacts = Artifacts(database)

    @property
    def path(self) -> Path:
        """The DuckDB file."""
        return self._db.path

    @property
    def is_writable(self) -> bool:
        """Whether the store was opened to write."""
        return not self._db.read_only

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

    # Settings ---------------------------------------------------------------------------------

    def setting(self, name: str) -> str | None:
        """Returns what the store remembers under ``name``."""
        if self._known is None or self._known[0] != self._db.failures:
            rows = self._db.query("SELECT name, value FROM settings")
            self._known = self._db.failures, {str(key): str(value) for key, value in rows}
        return self._known[1].get(name)

    def remember(self, **settings: str) -> None:
        """Remembers settings, e.g. ``model="gpt2"``, for later commands."""
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
        """Returns the edit that a request would become, with its id and time; writes nothing."""
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
    ) -> tuple[Operation, Edit]:
        """Appends an edit with what it became, in one transaction.

        Args:
            edit: From ``prepare``.
            artifact: What the model at hand learned (or failed to).
            payload: Its tensors as safetensors bytes.
            activate: Whether the edit joins the view.
            provenance: Who and why.
            settings: What to remember in the same transaction.

        Returns:
            The operation, and the edit with its status after it.
        """

        def append(*, is_new: bool) -> Operation:
            with self._db.transaction():
                self._remember(settings or {})
                # All that is read comes before anything is written: the rows then go in together.
                drafted = self.artifacts.draft(artifact, payload, time=edit.time, is_new=is_new)
                operation = self.history.add(
                    edit,
                    activate=activate,
                    extra={
                        "artifact": artifact.digest,
                        "record": drafted.digest,
                        "verified": artifact.verified,
                    },
                    provenance=self._provenance(provenance, edit),
                    fingerprint=artifact.fingerprint,
                )
                self.artifacts.insert(drafted)
            return operation

        try:
            operation = append(is_new=True)
        except Duplicate:  # nobody learns the same numbers twice; should they, look first
            operation = append(is_new=False)
        status = "active" if activate else "failed"
        return operation, edit.model_copy(update={"status": status})

    def put_artifacts(
        self,
        learned: Sequence[tuple[Artifact, bytes | None]],
        *,
        provenance: Provenance | None = None,
    ) -> None:
        """Stores what edits became on one model, in one transaction: a replay's batch."""
        if not learned:
            return
        model = learned[0][0]
        with self._db.transaction():
            records = {
                artifact.edit_id: self.artifacts.put(artifact, payload, time=self._clock())
                for artifact, payload in learned
            }
            how = {**self._how(provenance), "fingerprint": model.fingerprint}
            self.history.learned({"model": model.model, "records": records}, **how)

    def revert(self, edit: str, *, provenance: Provenance | None = None) -> ViewChanged:
        """Takes one edit back, as if it had never been; later ones stay.

        Raises:
            UnknownEdit, AmbiguousId: ``edit`` names none or several.
            NotActive: It is not part of the current view.
        """
        edit_id = self.history.resolve_edit(edit)
        return self._change(lambda how: self.history.revert(edit_id, **how), provenance)

    def rollback(self, version: str, *, provenance: Provenance | None = None) -> ViewChanged:
        """Makes a new version whose view equals that of ``version``.

        Raises:
            UnknownVersion: No such version or tag.
        """
        number = self.history.resolve(version)
        return self._change(lambda how: self.history.rollback(number, **how), provenance)

    def undo(self, *, provenance: Provenance | None = None) -> ViewChanged:
        """Takes the last change back; a second undo goes one further back.

        Raises:
            NothingToUndo: Everything is undone.
        """
        return self._change(lambda how: self.history.undo(**how), provenance)

    def redo(self, *, provenance: Provenance | None = None) -> ViewChanged:
        """Takes the last undo back.

        Raises:
            NothingToUndo: The last change was not an undo.
        """
        return self._change(lambda how: self.history.redo(**how), provenance)

    def tag(self, version: str, name: str, *, provenance: Provenance | None = None) -> Tagged:
        """Names a version; a name in use moves there.

        Raises:
            UnknownVersion: No such version.
            InvalidTag: The name cannot be a tag.
        """
        number = self.history.resolve(version)
        with self._db.transaction():
            self.history.tag(number, name, **self._how(provenance))
        return Tagged(tag=name, version=format_version(number))

    def bring(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: OnConflict = "keep",
        dry_run: bool = False,
        provenance: Provenance | None = None,
        compare: Compare | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> Imported:
        """Brings the edits of a bundle, in one transaction and one operation.

        Args:
            path: Its folder.
            on_conflict: Where an active edit of ours corrects the same prompt: ``keep`` it active,
                let the imported one ``supersede`` it, or ``error``.
            dry_run: Only say what would happen.
            provenance: Who and why.
            compare: Returns with which other edits those brought are in conflict, by model and
                edit, given their ids by model. Left out, it is found out at every opening.
            before_commit: Called when all is written. Where it or ``compare`` raises, nothing was.

        Raises:
            BundleNotFound, BundleTooNew, BundleDamaged: The bundle cannot be read as it is.
            ImportConflict: Asked for with ``error``; or an edit has the id of another one here.
        """
        from editkit_store import bundle

        return bundle.bring(
            self._db,
            self.history,
            Path(path),
            on_conflict=on_conflict,
            dry_run=dry_run,
            how=self._how(provenance),
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
            how = {**self._how(provenance), "fingerprint": fingerprint}
            return self.history.replay(version, detail, **how)

    def _change(
        self, act: Callable[[dict[str, Any]], Operation], provenance: Provenance | None
    ) -> ViewChanged:
        with self._db.transaction():
            operation = act(self._how(provenance))
        return ViewChanged(
            version=format_version(operation.version),
            view=operation.active_count,
            operation=operation.kind,
            detail=describe(operation),
        )

    def _how(self, provenance: Provenance | None) -> dict[str, Any]:
        return {
            "provenance": self._provenance(provenance),
            "time": self._clock(),
            "fingerprint": self.setting("fingerprint"),
        }

    def _provenance(self, given: Provenance | None, edit: Edit | None = None) -> Provenance:
        """Fills what the caller left open: the author, the user and the host."""
        import socket  # like getpass, uuid and tempfile: reading commands do without

        given = given or Provenance()
        user = given.user or _user()
        asked = edit.author if edit else None
        return given.model_copy(
            update={
                "author": given.author or asked or os.environ.get("EDITKIT_AUTHOR") or user,
                "agent": given.agent or (edit.agent if edit else None),
                "conversation": given.conversation or (edit.conversation if edit else None),
                "user": user,
                "host": given.host or socket.gethostname(),
                "reason": given.reason or (edit.reason if edit else None),
            }
        )

    # Reading ----------------------------------------------------------------------------------

    def version(self) -> str:
        """Returns the name of the current version."""
        return format_version(self.history.current())

    def count_requests(self, request: EditRequest) -> int:
        """Returns how many members of the current version came of exactly this request."""
        digest = digest_json(request.model_dump(mode="json"))
        return self.history.members_with_request(digest, self.history.current())

    def log(self, *, limit: int | None = None, at: str | None = None) -> list[LogEntry]:
        """Returns the operations, newest first.

        Args:
            limit: At most so many.
            at: Read the log as it stood at this version.

        Raises:
            UnknownVersion: ``at`` names none.
        """
        version = self.history.current() if at is None else self.history.resolve(at)
        return self._entries(
            self.history.operations(limit=limit, at=None if at is None else version), version
        )

    def _entries(self, operations: list[Operation], at: int) -> list[LogEntry]:
        edits = self.history.edits([o.edit_id for o in operations if o.edit_id], at=at)
        names: dict[int, list[str]] = {}
        for name, version in self.history.tags().items():
            names.setdefault(version, []).append(name)
        entries = []
        for operation in operations:
            edit = edits.get(operation.edit_id or "")
            entries.append(
                LogEntry(
                    seq=operation.seq,
                    version=format_version(operation.version),
                    operation=operation.kind,
                    changed=operation.changed,
                    edit_id=operation.edit_id,
                    prompt=edit.prompt if edit else None,
                    target=edit.target if edit else None,
                    method=edit.method if edit else None,
                    status=edit.status if edit else None,
                    author=operation.provenance.author,
                    reason=operation.provenance.reason,
                    time=operation.time,
                    tags=tuple(names.get(operation.version, ())) if operation.changed else (),
                    detail=describe(operation),
                    digest=operation.digest,
                )
            )
        return entries

    def show(self, name: str) -> Shown:
        """Returns one version in full; an edit id shows the version that added it.

        Raises:
            UnknownVersion: ``name`` names neither a version nor an edit.
            AmbiguousId: It begins several edit ids.
        """
        try:
            number = self.history.resolve(name)
            operation = self.history.maker(number) if number else None
            subject = operation.edit_id if operation else None
        except UnknownVersion as unknown:
            try:
                subject = self.history.resolve_edit(name)
            except UnknownEdit:
                raise unknown from None
            operation = self.history.origin(subject)
            number = operation.version
        entry = self._entries([operation], self.history.current())[0] if operation else None
        edits = self.history.edits([subject], at=self.history.current()) if subject else {}
        return Shown(
            version=format_version(number),
            tags=tuple(name for name, at in self.history.tags().items() if at == number),
            view=self.history.active_count(number),
            operation=entry,
            provenance=operation.provenance if operation else None,
            edit=edits.get(subject) if subject else None,
            artifacts=tuple(self.artifacts.of_edit(subject)) if subject else (),
            edits=tuple(self.history.active(number)),
        )

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        to: str = "@",
        since: str | None = None,
        only: str | None = None,
        tool: str = "editkit",
    ) -> Exported:
        """Writes edits and what they became into a new folder, a bundle.

        Args:
            path: The folder.
            to: Version whose edits are exported, superseded ones among them.
            since: Leave out what is active at this version, and superseded edits.
            only: Leave out what is not active at this version, and superseded edits.
            tool: Tool and version, for the manifest.

        Raises:
            UnknownVersion: An expression names no version.
            BundleExists, BundleUnwritable: Something is there, or it cannot be written.
            StoreDamaged: A digest does not hold; nothing was written.
        """
        from editkit_store import bundle
        from editkit_store.bundle_records import Selection

        selection = Selection(to=to, from_=since, only=only)
        return bundle.export(self._db, self.history, Path(path), selection=selection, tool=tool)

    def verify(self, *, head: str | None = None) -> Verified:
        """Derives every digest anew and returns what does not hold; see ``verify``."""
        return verify(self._db, head=head)

    def sql(self, query: str) -> Table:
        """Answers a query in SQL, of a store that is open to read.

        Raises:
            QueryFailed: DuckDB refuses it, e.g. because it would write.
            StoreError: The store is open to write.
        """
        if self.is_writable:
            raise StoreError(
                "queries are answered by a store that is open to read only", path=self.path
            )
        columns, rows = self._db.ask(query)
        return Table(columns=tuple(columns), rows=tuple(tuple(map(plain, row)) for row in rows))

    def status(self) -> Status:
        """Returns where the store stands."""
        last = self.history.last()
        wal = self.path.with_name(self.path.name + ".wal")
        return Status(
            version=format_version(last.version),
            edits=last.active_count,
            model=self.setting("model"),
            fingerprint=self.setting("fingerprint"),
            store_bytes=sum(file.stat().st_size for file in (self.path, wal) if file.exists()),
            space={
                **space(self._db),
                "write_ahead_log": wal.stat().st_size if wal.exists() else 0,
            },
            store=str(self.path),
            operations=self.history.count(),
            schema_version=schema.found_version(self._db),
            tags={name: format_version(at) for name, at in self.history.tags().items()},
            models=self.artifacts.counts(),
        )


@functools.cache
def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return "unknown"
