"""Reading a store: settings, log, versions, exports, verification."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from editkit_store.artifacts.artifacts import Artifacts
from editkit_store.artifacts.snapshots import Snapshots
from editkit_store.database import schema
from editkit_store.database.connection import Database
from editkit_store.database.holding import log_path
from editkit_store.database.size import space
from editkit_store.digest import digest_json
from editkit_store.errors import StoreUnwritable, UnknownEdit, UnknownVersion
from editkit_store.history.describe import describe
from editkit_store.history.log import History, Operation, prompt_digest
from editkit_store.history.versions import format_version
from editkit_store.records import (
    EditRequest,
    LogEntry,
    Provenance,
    Shown,
    Status,
    Table,
    Verified,
)
from editkit_store.verify.check import verify

if TYPE_CHECKING:
    from editkit_store.bundle.records import Exported
    from editkit_store.database.sandbox import SqlQuery

__all__ = ["StoreReader"]


class StoreReader:
    """The methods of ``Store`` that read.

    Attributes:
        history: Operations and versions.
        artifacts: Artifacts of edits on models.
        snapshots: The weights that edits share, at every version.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock
        # Cached settings, valid until a transaction fails: every operation reads some.
        self._known: tuple[int, dict[str, str]] | None = None
        self.history = History(database)
        self.artifacts = Artifacts(database)
        self.snapshots = Snapshots(database)

    @property
    def path(self) -> Path:
        """The DuckDB file."""
        return self._db.path

    @property
    def is_writable(self) -> bool:
        """Whether the store was opened for writing."""
        return not self._db.read_only

    def check_writable(self) -> None:
        """Raises ``StoreUnwritable`` if the store was opened for reading."""
        if not self.is_writable:
            raise StoreUnwritable(
                f"the store '{self.path}' is read-only",
                path=self.path,
                hint="open it without read_only",
            )

    def setting(self, name: str) -> str | None:
        """Returns the value of a setting."""
        if self._known is None or self._known[0] != self._db.failures:
            rows = self._db.query("SELECT name, value FROM settings")
            self._known = self._db.failures, {str(key): str(value) for key, value in rows}
        return self._known[1].get(name)

    def version(self) -> str:
        """Returns the name of the current version."""
        return format_version(self.history.current())

    def count_requests(self, request: EditRequest) -> int:
        """Returns how many edits of the current version were made from exactly this request."""
        digest = digest_json(request.model_dump(mode="json"))
        return self.history.members_with_request(digest, self.history.current())

    def shares_weights(self, edit_id: str) -> bool:
        """Returns whether an edit's artifact on any model shares weights with other edits."""
        return any(
            one.usable and one.metrics.get("snapshot") is not None
            for one in self.artifacts.of_edit(edit_id)
        )

    def takes_learning(self, edit: str) -> bool:
        """Returns whether reverting an edit requires learning, because weights are shared.

        Args:
            edit: Its id, or a prefix of it.

        Raises:
            UnknownEdit, AmbiguousId: It matches none or several.
        """
        edit_id = self.history.resolve_edit(edit)
        return self.shares_weights(edit_id) or self.brings_back_mixed(edit_id)

    def brings_back_mixed(self, edit: str) -> bool:
        """Returns whether reverting an edit would reactivate an older one that shares weights.

        Args:
            edit: Its id, or a prefix of it.

        Raises:
            UnknownEdit, AmbiguousId: It matches none or several.
        """
        edit_id, current = self.history.resolve_edit(edit), self.history.current()
        known = self.history.edits([edit_id], at=current)[edit_id]
        peers = self.history.same_prompt(prompt_digest(known), current)
        return peers[:1] == [edit_id] and any(map(self.shares_weights, peers[1:2]))

    def log(
        self,
        *,
        limit: int | None = None,
        at: str | None = None,
        before: int | None = None,
        containing: str | None = None,
        redacted: bool = False,
    ) -> list[LogEntry]:
        """Returns operations, newest first.

        Args:
            limit: At most this many.
            at: Read the log as it was at this version.
            before: Only those before this position in the log, for paging.
            containing: Only those that match this text, see ``History.operations``.
            redacted: Leave out the operating system's user, which is the default author.

        Raises:
            UnknownVersion: ``at`` does not name a version.
        """
        version = self.history.current() if at is None else self.history.resolve(at)
        return self._entries(
            self.history.operations(
                limit=limit,
                at=None if at is None else version,
                before=before,
                containing=containing,
                redacted=redacted,
            ),
            version,
            redacted=redacted,
        )

    def _entries(self, operations: list[Operation], at: int, *, redacted: bool) -> list[LogEntry]:
        edits = self.history.edits([o.edit_id for o in operations if o.edit_id], at=at)
        names: dict[int, list[str]] = {}
        for name, version in self.history.tags().items():
            names.setdefault(version, []).append(name)
        entries = []
        for operation in operations:
            edit = edits.get(operation.edit_id or "")
            provenance = _redacted(operation.provenance) if redacted else operation.provenance
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
                    author=provenance.author,
                    reason=provenance.reason,
                    time=operation.time,
                    tags=tuple(names.get(operation.version, ())) if operation.changed else (),
                    detail=describe(operation),
                    digest=operation.digest,
                )
            )
        return entries

    def show(self, name: str, *, redacted: bool = False) -> Shown:
        """Returns one version in full; for an edit id, the version that added it.

        Args:
            name: Version expression, or an edit's id.
            redacted: Leave out the operating system's user, the host and the command line.

        Raises:
            UnknownVersion: ``name`` names neither a version nor an edit.
            AmbiguousId: Several edit ids start with it.
        """
        try:
            number = at = self.history.resolve(name)
            operation = self.history.maker(number) if number else None
            subject = operation.edit_id if operation else None
        except UnknownVersion as unknown:
            try:
                subject = self.history.resolve_edit(name)
            except UnknownEdit:
                raise unknown from None
            operation = self.history.origin(subject)
            number, at = operation.version, self.history.current()
        now = self.history.current()
        entry = self._entries([operation], now, redacted=redacted)[0] if operation else None
        provenance = operation.provenance if operation else None
        edits = self.history.edits([subject], at=self.history.current()) if subject else {}
        said = self.history.adjustments([subject], at=at) if subject else {}
        return Shown(
            version=format_version(number),
            tags=tuple(name for name, at in self.history.tags().items() if at == number),
            view=self.history.active_count(number),
            operation=entry,
            provenance=_redacted(provenance) if provenance and redacted else provenance,
            edit=edits.get(subject) if subject else None,
            adjustments=said.get(subject or ""),
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
        """Exports edits and their artifacts to a new folder, a bundle.

        Args:
            path: The folder.
            to: Version whose edits are exported, including superseded ones.
            since: Leave out edits that are active at this version, and superseded ones.
            only: Leave out edits that are not active at this version, and superseded ones.
            tool: Tool and version, for the manifest.

        Raises:
            UnknownVersion: An expression does not name a version.
            BundleExists, BundleUnwritable: The path exists, or cannot be written.
            StoreDamaged: A digest does not match; nothing was written.
        """
        from editkit_store.bundle import exports
        from editkit_store.bundle.records import BundleSelection

        selection = BundleSelection(to=to, from_=since, only=only)
        return exports.export(self._db, self.history, Path(path), selection=selection, tool=tool)

    def verify(self, *, head: str | None = None) -> Verified:
        """Recomputes every digest and returns the mismatches; see ``verify``."""
        return verify(self._db, head=head)

    def sql(
        self, query: str | SqlQuery, *, seconds: float | None = None, cells: int | None = None
    ) -> Table:
        """Runs a SQL query: one SELECT, on a copy, which needs disk space for a second file.

        Args:
            query: The SQL; or a ``sandbox.SqlQuery``, which can be stopped.
            seconds: Time limit.
            cells: Maximum number of values in the result.

        Raises:
            QueryFailed: It is not one SELECT, DuckDB rejects it, or its result is too large.
            QueryStopped: It was stopped.
            StoreUnwritable: There is no space for the copy.
        """
        from editkit_store.database.sandbox import SqlQuery

        asked = SqlQuery(query) if isinstance(query, str) else query
        return asked.run(self._db, seconds=seconds, cells=cells)

    def status(self) -> Status:
        """Returns the status of the store."""
        last = self.history.last()
        wal = log_path(self.path)
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


def _redacted(provenance: Provenance) -> Provenance:
    """Removes everything that identifies the machine and its user."""
    is_named = provenance.author != provenance.user
    return provenance.model_copy(
        update={
            "author": provenance.author if is_named else None,
            "user": None, "host": None, "command": None,
        }
    )  # fmt: skip
