"""The store: one DuckDB file behind one object, opened to read or to write.

Every writing method is one transaction: after it returns, the operation is durable; if it raises,
or the process dies inside it, the file is as before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from editkit_store import schema
from editkit_store.artifacts import Artifacts
from editkit_store.connection import Database, publish
from editkit_store.describe import describe
from editkit_store.digest import digest_json, short_id
from editkit_store.errors import StoreExists, StoreUnwritable, UnknownEdit, UnknownVersion
from editkit_store.history import History, Operation
from editkit_store.records import (
    Artifact,
    Edit,
    EditRequest,
    LogEntry,
    Provenance,
    Shown,
    Status,
    Tagged,
    Verified,
    ViewChanged,
)
from editkit_store.verify import verify
from editkit_store.versions import format_version

__all__ = ["Store", "open_store"]


MEMORY = ":memory:"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def open_store(
    path: str | os.PathLike[str],
    *,
    write: bool = False,
    create: bool = False,
    wait: float | None = None,
    clock: Callable[[], datetime] = _utc_now,
) -> Store:
    """Opens the store at ``path``.

    Args:
        path: The DuckDB file; ``:memory:`` is an empty store that lives as long as the process.
        write: Open to write: the only process on the file. An older schema is migrated.
        create: With ``write``, make the file when there is none.
        wait: Seconds to wait while another process holds it; ``None`` takes ``EDITKIT_LOCK_WAIT``,
            else 2.
        clock: Source of operation times; UTC now by default.

    Raises:
        StoreNotFound: No file there, and not ``create``.
        NotAStore: Something else is there.
        StoreDamaged: Its checksums do not hold.
        StoreLocked: Another process holds it; the error names its process id.
        SchemaMismatch: A newer editkit wrote it.
        StoreUnwritable: No permission or no space.
    """
    if str(path) == MEMORY:
        database = Database.create(Path(MEMORY))
        schema.migrate(database, now=clock)
        return Store(database, clock=clock)
    where = Path(path)
    if write and create and not os.path.exists(where):
        # Another process may have been faster, which is as good.
        with contextlib.suppress(StoreExists):
            _create(where, clock)
    database = Database.open(where, read_only=not write, wait=wait)
    try:
        if write and schema.require(database) < schema.SCHEMA_VERSION:
            schema.migrate(database, now=clock)
        schema.require(database)
    except BaseException:
        database.close()
        raise
    return Store(database, clock=clock)


def _create(path: Path, clock: Callable[[], datetime]) -> None:
    """Makes a complete empty store beside ``path`` and gives it its name in one step."""
    import tempfile

    parent = path.parent
    if parent.is_dir() and not os.access(parent, os.W_OK):
        raise StoreUnwritable(
            f"the folder '{parent}' cannot be written to, so no store can be made there",
            path=path,
            hint="name another place with --store",
        )
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}-", dir=parent if parent.is_dir() else None
    ) as folder:
        fresh = Path(folder) / "new.db"
        target = fresh if parent.is_dir() else path  # a missing folder fails with the path in it
        database = Database.create(target)
        try:
            schema.migrate(database, now=clock)
            database.checkpoint()
        finally:
            database.close()
        publish(fresh, path)


class Store:
    """An open history. Use as a context manager; ``open_store`` makes one."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock
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
        row = self._db.one("SELECT value FROM settings WHERE name = ?", [name])
        return None if row is None else str(row[0])

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
        with self._db.transaction():
            self._remember(settings or {})
            record = self.artifacts.put(artifact, payload, time=edit.time)
            operation = self.history.add(
                edit,
                activate=activate,
                extra={
                    "artifact": artifact.digest,
                    "record": record,
                    "verified": artifact.verified,
                },
                provenance=self._provenance(provenance, edit),
                fingerprint=artifact.fingerprint,
            )
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
        operation = None
        try:
            number = self.history.resolve(name)
        except UnknownVersion as unknown:
            try:
                edit_id = self.history.resolve_edit(name)
            except UnknownEdit:
                raise unknown from None
            added = [
                o for o in self.history.operations() if o.kind == "add" and o.edit_id == edit_id
            ]
            operation, number = added[0], added[0].version
        operation = operation or (self.history.maker(number) if number else None)
        entry = self._entries([operation], self.history.current())[0] if operation else None
        subject = operation.edit_id if operation else None
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

    def verify(self) -> Verified:
        """Derives every digest anew and returns what does not hold; see ``verify``."""
        return verify(self._db)

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
            store=str(self.path),
            operations=self.history.count(),
            schema_version=schema.found_version(self._db),
            tags={name: format_version(at) for name, at in self.history.tags().items()},
            models=self.artifacts.counts(),
        )


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return "unknown"
