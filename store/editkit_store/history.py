"""The history: an append-only log of operations, and the view of active edits at every version.

``v0`` is the untouched model. Each operation that changes the set of edits makes the next version;
versions form a line, and a rollback makes a *new* version whose view equals an older one. What a
version changed is stored as membership rows (this edit came, that one went), so any past view is
one query away and nothing is ever rewritten.

A *member* is an edit that was added and not taken back. A member is *active* unless a newer member
corrects the same prompt (it is then *superseded*), so taking back the newer one brings the older
one back without any bookkeeping.

Undo and redo are operations too. Each version remembers which version the next undo takes back
(``undo_version``) and which undo the next redo takes back (``redo_version``); with U, R these two,
p the version before and x the version to undo:

    add, revert, rollback, import  v = p + 1: U(v) = v,        R(v) = none
    undo of x = U(p)               v = p + 1: U(v) = U(x - 1), R(v) = v    (view of x - 1)
    redo of n = R(p), n undid x    v = p + 1: U(v) = x,        R(v) = R(n - 1)   (view of x)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from editkit_store.connection import Database
from editkit_store.digest import canonical_json, digest_bytes, digest_json
from editkit_store.errors import (
    AmbiguousId,
    InvalidRecord,
    NotActive,
    NothingToUndo,
    UnknownEdit,
)
from editkit_store.records import Edit, EditRequest, EditStatus, OperationKind, Provenance
from editkit_store.versions import check_tag, parse_version

__all__ = ["History", "Operation", "prompt_digest"]

# Membership of every edit at a version: the newest row at or before it counts.
_MEMBERS = """
    SELECT edit_id FROM membership WHERE version <= ?
    GROUP BY edit_id HAVING arg_max(member, version)
"""


class Operation(NamedTuple):
    """One row of the log, as stored."""

    seq: int
    kind: OperationKind
    version: int
    changed: bool
    edit_id: str | None
    target_version: int | None
    undo_version: int | None
    redo_version: int | None
    active_count: int
    time: datetime
    fingerprint: str | None
    provenance: Provenance
    detail: Mapping[str, Any]
    parent_digest: str | None
    digest: str


_START = Operation(
    0, "import", 0, False, None, None, None, None, 0, datetime.min, None, Provenance(), {}, None, ""
)


def prompt_digest(request: EditRequest) -> str:
    """Returns what identifies the corrected input: its prompt, or its whole conversation."""
    if request.chat is not None:
        return digest_json([message.model_dump(mode="json") for message in request.chat])
    return digest_json(request.prompt)


class History:
    """Reads and appends operations. Appending happens inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # Reading ----------------------------------------------------------------------------------

    def current(self) -> int:
        """Returns the number of the current version."""
        return self.last().version

    def last(self) -> Operation:
        """Returns the newest operation, or the start of the log."""
        found = self._operations("ORDER BY seq DESC LIMIT 1")
        return found[0] if found else _START

    def maker(self, version: int) -> Operation:
        """Returns the operation that made ``version``; for v0 the start of the log."""
        found = self._operations("WHERE version = ? AND changed", [version])
        return found[0] if found else _START

    def operations(self, *, limit: int | None = None, at: int | None = None) -> list[Operation]:
        """Returns operations, newest first.

        Args:
            limit: At most so many.
            at: Only those up to and including the one that made this version.
        """
        where, parameters = "", []
        if at is not None:
            where = "WHERE seq <= ?"
            parameters = [self.maker(at).seq]
        bound = "" if limit is None else f"LIMIT {int(limit)}"
        return self._operations(f"{where} ORDER BY seq DESC {bound}", parameters)

    def count(self) -> int:
        """Returns the number of operations."""
        row = self._db.one("SELECT count(*) FROM operations")
        return int(row[0]) if row else 0

    def tags(self) -> dict[str, int]:
        """Returns every tag and the number of the version it names now."""
        rows = self._db.query(
            "SELECT name, arg_max(version, seq) FROM tags GROUP BY name ORDER BY 1"
        )
        return {name: int(version) for name, version in rows}

    def resolve(self, text: str) -> int:
        """Returns the number of the version that an expression names.

        Raises:
            UnknownVersion: It names none.
        """
        return parse_version(text, current=self.current(), tags=self.tags())

    def resolve_edit(self, text: str) -> str:
        """Returns the full id of the edit that begins with ``text``.

        Raises:
            UnknownEdit: None does.
            AmbiguousId: Several do.
        """
        asked = text.strip().lower()
        rows = self._db.query(
            "SELECT edit_id FROM edits WHERE starts_with(edit_id, ?) ORDER BY ordinal LIMIT 11",
            [asked],
        )
        if not asked or not rows:
            raise UnknownEdit(
                f"there is no edit '{text}'", text=text, hint="`editkit log` lists the edit ids"
            )
        if len(rows) > 1:
            matches = tuple(str(row[0]) for row in rows[:10])
            raise AmbiguousId(
                f"'{text}' begins {'more than ten' if len(rows) > 10 else len(rows)} edit ids",
                text=text,
                matches=matches,
                hint="give more digits; they are: " + ", ".join(matches[:5]),
            )
        return str(rows[0][0])

    def active_ids(self, version: int) -> list[str]:
        """Returns the ids of the edits active at ``version``, oldest first."""
        rows = self._db.query(
            f"SELECT edit_id FROM edits WHERE edit_id IN ({_MEMBERS}) "
            "QUALIFY row_number() OVER (PARTITION BY prompt_digest ORDER BY ordinal DESC) = 1 "
            "ORDER BY ordinal",
            [version],
        )
        return [str(row[0]) for row in rows]

    def active_count(self, version: int) -> int:
        """Returns the number of edits active at ``version``."""
        return self.maker(version).active_count

    def edits(self, ids: Sequence[str], *, at: int) -> dict[str, Edit]:
        """Returns edits by id, with their status at version ``at``."""
        if not ids:
            return {}
        rows = self._db.query(
            "SELECT e.edit_id, e.request, e.added_at, o.changed FROM edits e "
            "JOIN operations o ON o.seq = e.seq WHERE e.edit_id IN (SELECT unnest(?))",
            [list(ids)],
        )
        states = self._states(ids, at)
        return {
            edit_id: _edit(
                edit_id, request, added, states.get(edit_id, "reverted" if changed else "failed")
            )
            for edit_id, request, added, changed in rows
        }

    def active(self, version: int) -> list[Edit]:
        """Returns the edits active at ``version``, oldest first."""
        ids = self.active_ids(version)
        found = self.edits(ids, at=version)
        return [found[edit_id] for edit_id in ids]

    def members_with_request(self, digest: str, version: int) -> int:
        """Returns how many members at ``version`` came of exactly this request."""
        row = self._db.one(
            f"SELECT count(*) FROM edits WHERE request_digest = ? AND edit_id IN ({_MEMBERS})",
            [digest, version],
        )
        return int(row[0]) if row else 0

    def same_prompt(self, digest: str, version: int) -> list[str]:
        """Returns the members at ``version`` that correct the same prompt, newest first."""
        rows = self._db.query(
            f"SELECT edit_id FROM edits WHERE prompt_digest = ? AND edit_id IN ({_MEMBERS}) "
            "ORDER BY ordinal DESC",
            [digest, version],
        )
        return [str(row[0]) for row in rows]

    def _states(self, ids: Sequence[str], version: int) -> dict[str, EditStatus]:
        """Members among ``ids`` at ``version``: active or superseded."""
        rows = self._db.query(
            """
            WITH peers AS (
                SELECT edit_id, prompt_digest, ordinal FROM edits WHERE prompt_digest IN
                    (SELECT prompt_digest FROM edits WHERE edit_id IN (SELECT unnest(?)))
            ), members AS (
                SELECT edit_id FROM membership
                WHERE version <= ? AND edit_id IN (SELECT edit_id FROM peers)
                GROUP BY edit_id HAVING arg_max(member, version)
            )
            SELECT edit_id,
                   row_number() OVER (PARTITION BY prompt_digest ORDER BY ordinal DESC) = 1
            FROM peers SEMI JOIN members USING (edit_id)
            """,
            [list(ids), version],
        )
        return {edit_id: "active" if newest else "superseded" for edit_id, newest in rows}

    # Appending --------------------------------------------------------------------------------

    def add(self, edit: Edit, *, activate: bool, extra: Mapping[str, Any], **how: Any) -> Operation:
        """Appends an edit; with ``activate`` it joins the view, else it is a failed attempt."""
        last = self.last()
        older = self.same_prompt(prompt_digest(edit), last.version)
        detail = {
            "request": self._insert(edit, last.seq + 1),
            "supersedes": older[:1] if activate else [],
            **extra,
        }
        return self._append(
            "add",
            last,
            edit_id=edit.id,
            membership=[(edit.id, True)] if activate else None,
            active_count=last.active_count + (1 if activate and not older else 0),
            detail=detail,
            time=edit.time,
            **how,
        )

    def bring(
        self, edits: Sequence[Edit], active: Collection[str], extra: Mapping[str, Any], **how: Any
    ) -> Operation:
        """Appends an import: edits that another history made, in their order.

        Args:
            edits: They keep their ids and times.
            active: Ids of those that join the view.
            extra: What else the operation says about itself.
            **how: Time, provenance and model.
        """
        last = self.last()
        requests = {edit.id: self._insert(edit, last.seq + 1) for edit in edits}
        rows = [(edit_id, True) for edit_id in sorted(active)]
        self._db.insert("membership", [[last.version + 1, *row] for row in rows])
        count = len(self.active_ids(last.version + 1))
        return self._append(
            "import",
            last,
            membership=rows,
            active_count=count,
            detail={"requests": requests, **extra},
            is_member_stored=True,
            **how,
        )

    def _insert(self, edit: Edit, seq: int) -> str:
        """Inserts the row of an edit that an operation brings; returns its request's digest."""
        request = edit.model_dump(mode="json", exclude={"id", "time", "status"})
        text = canonical_json(request)
        digest = digest_bytes(text.encode("utf-8", errors="surrogatepass"))
        self._db.execute(
            "INSERT INTO edits SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(ordinal), 0) + 1, "
            "? FROM edits",
            [
                edit.id, seq, text, digest, prompt_digest(edit), edit.prompt, edit.target,
                edit.kind, edit.method, _naive(edit.time), edit.idempotency_key,
            ],
        )  # fmt: skip
        return digest

    def with_key(self, key: str) -> str | None:
        """Returns the newest edit that came with an idempotency key, failed attempts left out."""
        row = self._db.one(
            "SELECT e.edit_id FROM edits e JOIN operations o ON o.seq = e.seq "
            "WHERE e.idempotency_key = ? AND o.changed ORDER BY e.ordinal DESC LIMIT 1",
            [key],
        )
        return None if row is None else str(row[0])

    def revert(self, edit_id: str, **how: Any) -> Operation:
        """Appends an operation that takes one edit out, as if it had never been.

        Raises:
            NotActive: It is not part of the current view.
        """
        last = self.last()
        edit = self.edits([edit_id], at=last.version)[edit_id]
        if edit.status not in ("active", "superseded"):
            what = (
                "failed and never was active"
                if edit.status == "failed"
                else "is taken back already"
            )
            raise NotActive(f"edit '{edit_id}' {what}", edit_id=edit_id)
        peers = self.same_prompt(prompt_digest(edit), last.version)
        return self._append(
            "revert",
            last,
            edit_id=edit_id,
            membership=[(edit_id, False)],
            # With an older correction of the same prompt beneath it, that one is active again.
            active_count=last.active_count - (1 if len(peers) == 1 else 0),
            detail={"restores": peers[1:2] if peers[:1] == [edit_id] else []},
            **how,
        )

    def rollback(self, version: int, **how: Any) -> Operation:
        """Appends an operation whose view equals that of ``version``."""
        return self._restore("rollback", version, {}, **how)

    def undo(self, **how: Any) -> Operation:
        """Appends an operation that takes the last one back; repeated, it goes further back.

        Raises:
            NothingToUndo: Everything is undone.
        """
        last = self.last()
        undone = last.undo_version
        if undone is None:
            raise NothingToUndo("there is nothing to undo", hint="`editkit log` shows the history")
        return self._restore(
            "undo", undone - 1, {"undoes": undone, "undone": self.maker(undone).kind}, **how
        )

    def redo(self, **how: Any) -> Operation:
        """Appends an operation that takes the last undo back.

        Raises:
            NothingToUndo: The last change was not an undo.
        """
        last = self.last()
        if last.redo_version is None:
            raise NothingToUndo("there is nothing to redo", hint="redo follows an undo")
        undone = int(self.maker(last.redo_version).detail["undoes"])
        return self._restore(
            "redo", undone, {"redoes": undone, "redone": self.maker(undone).kind}, **how
        )

    def tag(self, version: int, name: str, **how: Any) -> Operation:
        """Appends an operation that names ``version``; a name in use moves there.

        Raises:
            InvalidTag: ``name`` cannot be a tag.
        """
        check_tag(name)
        operation = self._append(
            "tag", self.last(), target_version=version, detail={"tag": name}, **how
        )
        self._db.insert("tags", [[operation.seq, name, version]])
        return operation

    def learned(self, detail: Mapping[str, Any], **how: Any) -> Operation:
        """Appends the record of artifacts that a replay stored; the view stays."""
        return self._append("replay", self.last(), detail=detail, **how)

    def replay(self, version: int, detail: Mapping[str, Any], **how: Any) -> Operation:
        """Appends the record of a replay up to ``version``; the view stays."""
        return self._append("replay", self.last(), target_version=version, detail=detail, **how)

    def _restore(
        self, kind: OperationKind, version: int, detail: Mapping[str, Any], **how: Any
    ) -> Operation:
        last = self.last()
        rows = self._db.query(
            f"WITH now AS ({_MEMBERS}), wanted AS ({_MEMBERS}) "
            "SELECT coalesce(n.edit_id, w.edit_id), w.edit_id IS NOT NULL "
            "FROM now n FULL JOIN wanted w USING (edit_id) "
            "WHERE n.edit_id IS NULL OR w.edit_id IS NULL ORDER BY 1",
            [last.version, version],
        )
        return self._append(
            kind,
            last,
            target_version=version,
            membership=[(str(edit_id), bool(member)) for edit_id, member in rows],
            active_count=self.active_count(version),
            detail=detail,
            **how,
        )

    def _append(
        self,
        kind: OperationKind,
        last: Operation,
        *,
        provenance: Provenance,
        time: datetime,
        fingerprint: str | None,
        detail: Mapping[str, Any],
        edit_id: str | None = None,
        target_version: int | None = None,
        membership: Iterable[tuple[str, bool]] | None = None,
        active_count: int | None = None,
        is_member_stored: bool = False,
    ) -> Operation:
        changed = membership is not None
        version = last.version + 1 if changed else last.version
        undo, redo = (
            self._chain(kind, last, version)
            if changed
            else (
                last.undo_version,
                last.redo_version,
            )
        )
        rows = [[version, member_id, member] for member_id, member in membership or ()]
        body: dict[str, Any] = {
            "seq": last.seq + 1,
            "kind": kind,
            "version": version,
            "changed": changed,
            "edit_id": edit_id,
            "target_version": target_version,
            "undo_version": undo,
            "redo_version": redo,
            "active_count": last.active_count if active_count is None else active_count,
            "time": _naive(time).isoformat(),
            "fingerprint": fingerprint,
            "provenance": provenance.model_dump(mode="json"),
            "detail": dict(detail),
            "parent_digest": last.digest or None,
        }
        digest = digest_json({**body, "membership": rows})
        self._db.insert(
            "operations",
            [
                [
                    *(body[name] for name in (
                        "seq", "kind", "version", "changed", "edit_id", "target_version",
                        "undo_version", "redo_version", "active_count",
                    )),
                    _naive(time), fingerprint, canonical_json(body["provenance"]),
                    canonical_json(body["detail"]), body["parent_digest"], digest,
                ]
            ],
        )  # fmt: skip
        if not is_member_stored:
            self._db.insert("membership", rows)
        return Operation(
            seq=body["seq"], kind=kind, version=version, changed=changed, edit_id=edit_id,
            target_version=target_version, undo_version=undo, redo_version=redo,
            active_count=body["active_count"], time=time, fingerprint=fingerprint,
            provenance=provenance, detail=body["detail"], parent_digest=body["parent_digest"],
            digest=digest,
        )  # fmt: skip

    def _chain(
        self, kind: OperationKind, last: Operation, version: int
    ) -> tuple[int | None, int | None]:
        """The undo and redo pointers of a new version; the module's head has the algebra."""
        if kind == "undo" and last.undo_version is not None:
            return self.maker(last.undo_version - 1).undo_version, version
        if kind == "redo" and last.redo_version is not None:
            undone = int(self.maker(last.redo_version).detail["undoes"])
            return undone, self.maker(last.redo_version - 1).redo_version
        return version, None

    def _operations(self, tail: str, parameters: Sequence[Any] = ()) -> list[Operation]:
        rows = self._db.query(
            "SELECT seq, kind, version, changed, edit_id, target_version, undo_version, "
            "redo_version, active_count, time, fingerprint, provenance, detail, parent_digest, "
            f"digest FROM operations {tail}",
            parameters,
        )
        return [
            Operation(
                **{
                    **dict(zip(Operation._fields, row, strict=True)),
                    "time": row[9].replace(tzinfo=UTC),
                    "provenance": Provenance.model_validate_json(row[11]),
                    "detail": json.loads(row[12]),
                }
            )
            for row in rows
        ]


def _edit(edit_id: str, request: str, added: datetime, status: EditStatus) -> Edit:
    try:
        return Edit.model_validate(
            {
                **json.loads(request),
                "id": edit_id,
                "time": added.replace(tzinfo=UTC),
                "status": status,
            }
        )
    except ValueError as error:
        raise InvalidRecord(
            f"edit '{edit_id}' does not parse: {error}",
            hint="it may come from a newer editkit; upgrade to read it",
        ) from error


def _naive(time: datetime) -> datetime:
    """DuckDB's TIMESTAMP holds no zone; ours are UTC."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
