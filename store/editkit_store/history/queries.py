"""Queries of the history at any version: operations, views, and the state of each edit.

A *member* of a version is an edit that was added and not reverted by then. A member is *active*
unless a newer member corrects the same prompt (it is then *superseded*).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from editkit_store.database.connection import Database
from editkit_store.digest import digest_json
from editkit_store.errors import AmbiguousId, InvalidRecord, UnknownEdit, UnknownVersion
from editkit_store.history.columns import containing_text
from editkit_store.history.versions import parse_version
from editkit_store.records import Edit, EditRequest, EditStatus, OperationKind, Provenance

__all__ = ["Operation", "Past", "prompt_digest"]

# Membership of every edit at a version: the newest row at or before it applies.
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


RESTORING: tuple[OperationKind, ...] = ("rollback", "undo", "redo")
"""Operations that restore the members of their target version."""

_START = Operation(
    0, "import", 0, False, None, None, None, None, 0, datetime.min, None, Provenance(), {}, None, ""
)


def prompt_digest(request: EditRequest) -> str:
    """Returns the digest of the corrected input: its prompt, or its whole conversation."""
    if request.chat is not None:
        return digest_json([message.model_dump(mode="json") for message in request.chat])
    return digest_json(request.prompt)


class Past:
    """Reads operations, versions and edits."""

    def __init__(self, database: Database) -> None:
        self._db = database
        # The end of the log, cached because no other process can write. A failed transaction may
        # have moved it, so a failure invalidates the cache.
        self._known: tuple[int, Operation] | None = None
        self._placed: tuple[int, int] | None = None  # likewise, the newest edit's place
        self._sharing: tuple[int, set[str]] | None = None  # likewise, see ``_shared``
        self._turns: tuple[tuple[int, int, int], dict[str, bool]] | None = None
        self._restores: tuple[int, dict[int, int]] | None = None  # likewise, see ``_same``

    # Reading ----------------------------------------------------------------------------------

    def current(self) -> int:
        """Returns the number of the current version."""
        return self.last().version

    def last(self) -> Operation:
        """Returns the newest operation, or the start of the log."""
        with self._db.turn:  # another thread's transaction may be changing it
            if self._known is None or self._known[0] != self._db.failures:
                found = self._operations("ORDER BY seq DESC LIMIT 1")
                self._known = self._db.failures, found[0] if found else _START
            return self._known[1]

    def maker(self, version: int) -> Operation:
        """Returns the operation that made ``version``; for v0 the start of the log."""
        found = self._operations("WHERE version = ? AND changed", [version])
        return found[0] if found else _START

    def origin(self, edit_id: str) -> Operation:
        """Returns the operation that added an edit."""
        return self._operations("WHERE seq = (SELECT seq FROM edits WHERE edit_id = ?)", [edit_id])[
            0
        ]

    def operations(
        self,
        *,
        limit: int | None = None,
        at: int | None = None,
        before: int | None = None,
        containing: str | None = None,
        redacted: bool = False,
    ) -> list[Operation]:
        """Returns operations, newest first.

        Args:
            limit: At most this many.
            at: Only those up to and including the one that made this version.
            before: Only those before this position in the log.
            containing: Only those that match this text, ignoring case: in prompt, target or another
                of ``SEARCHED``, in author, reason or a tag of the version, or the kind or version
                itself.
            redacted: Do not match the operating system's user.
        """
        conditions = ["true"]
        parameters: list[object] = []
        if at is not None:
            conditions.append("seq <= ?")
            parameters.append(self.maker(at).seq)
        if before is not None:
            conditions.append("seq < ?")
            parameters.append(before)
        if containing:
            found = containing_text(redacted=redacted)
            conditions.append(f"({found})")
            parameters += [containing.lower()] * found.count("?")
        bound = "" if limit is None else f"LIMIT {int(limit)}"
        where = " AND ".join(conditions)
        return self._operations(f"WHERE {where} ORDER BY seq DESC {bound}", parameters)

    def count(self) -> int:
        """Returns the number of operations."""
        row = self._db.one("SELECT count(*) FROM operations")
        return int(row[0]) if row else 0

    def tags(self) -> dict[str, int]:
        """Returns every tag and the number of the version that it names now."""
        rows = self._db.query(
            "SELECT name, arg_max(version, seq) FROM tags GROUP BY name ORDER BY 1"
        )
        return {name: int(version) for name, version in rows}

    def resolve(self, text: str) -> int:
        """Returns the number of the version that an expression names.

        Raises:
            UnknownVersion: The expression does not name a version.
        """
        current = self.current()
        with contextlib.suppress(UnknownVersion):  # most expressions are not tags
            return parse_version(text, current=current, tags={})
        return parse_version(text, current=current, tags=self.tags())

    def resolve_edit(self, text: str) -> str:
        """Returns the full id of the edit with the prefix ``text``.

        Raises:
            UnknownEdit: No edit has the prefix.
            AmbiguousId: Several edits have the prefix.
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
                hint="give more digits; matches: " + ", ".join(matches[:5]),
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

    def line(self, version: int) -> set[int]:
        """Returns the versions that led to one, without those that a rollback or undo discarded.

        A version that restores an older one is left out too; the older one and its line are
        included.
        """
        rows = self._db.query(
            "SELECT version, target_version FROM operations WHERE changed AND version <= ? "
            "AND kind IN ('rollback', 'undo', 'redo')",
            [version],
        )
        restores = {int(made): int(target) for made, target in rows}
        found: set[int] = set()
        while version > 0:
            if version in restores:
                version = restores[version]
            else:
                found.add(version)
                version -= 1
        return found

    def in_order(self, ids: Collection[str]) -> list[str]:
        """Returns edits of this history, oldest first."""
        rows = self._db.query(
            "SELECT edit_id FROM edits WHERE edit_id IN (SELECT unnest(?)) ORDER BY ordinal",
            [list(ids)],
        )
        return [str(row[0]) for row in rows]

    def active_among(self, ids: Collection[str], version: int) -> list[str]:
        """Returns which of some edits are active at ``version``, in the order given."""
        states = self._states(list(ids), version)
        return [edit_id for edit_id in ids if states.get(edit_id) == "active"]

    def method_names(self) -> list[str]:
        """Returns the methods that edits of this history were made with, at any version."""
        rows = self._db.query("SELECT DISTINCT method FROM edits ORDER BY method")
        return [str(row[0]) for row in rows]

    def methods_of(self, ids: Collection[str]) -> dict[str, str]:
        """Returns the methods that edits were made with, by their ids."""
        rows = self._db.query(
            "SELECT edit_id, method FROM edits WHERE edit_id IN (SELECT unnest(?))", [list(ids)]
        )
        return {str(edit_id): str(method) for edit_id, method in rows}

    def active_count(self, version: int) -> int:
        """Returns the number of edits active at ``version``."""
        which = "SELECT active_count FROM operations WHERE version = ? AND changed"
        row = self._db.one(which, [version])
        return int(row[0]) if row else 0

    def edits(
        self, ids: Sequence[str], *, at: int, active: Collection[str] = ()
    ) -> dict[str, Edit]:
        """Returns edits by id, with their status at version ``at``.

        Args:
            ids: The edits.
            at: Version.
            active: Those of them that are known to be active at it, to save the query.
        """
        if not ids:
            return {}
        rows = self._db.query(
            "SELECT e.edit_id, e.request, e.added_at, o.changed FROM edits e "
            "JOIN operations o ON o.seq = e.seq WHERE e.edit_id IN (SELECT unnest(?))",
            [list(ids)],
        )
        known: dict[str, EditStatus] = dict.fromkeys(active, "active")
        states = known | self._states([edit_id for edit_id in ids if edit_id not in known], at)
        return {
            edit_id: _edit(
                edit_id, request, added, states.get(edit_id, "reverted" if changed else "failed")
            )
            for edit_id, request, added, changed in rows
        }

    def requests(self, ids: Sequence[str] | None = None) -> dict[str, EditRequest]:
        """Returns the requests that edits were made from, by id, oldest first.

        Args:
            ids: The edits; by default all that were ever recorded.
        """
        which, given = ("", []) if ids is None else ("WHERE edit_id IN (SELECT unnest(?))", [ids])
        rows = self._db.query(f"SELECT edit_id, request FROM edits {which} ORDER BY ordinal", given)
        return {str(edit_id): EditRequest.model_validate_json(text) for edit_id, text in rows}

    def active(self, version: int) -> list[Edit]:
        """Returns the edits active at ``version``, oldest first."""
        ids = self.active_ids(version)
        found = self.edits(ids, at=version)
        return [found[edit_id] for edit_id in ids]

    def members_with_request(self, digest: str, version: int) -> int:
        """Returns how many members at ``version`` were made from exactly this request."""
        row = self._db.one(
            f"SELECT count(*) FROM edits WHERE request_digest = ? AND edit_id IN ({_MEMBERS})",
            [digest, version],
        )
        return int(row[0]) if row else 0

    def same_prompt(self, digest: str, version: int) -> list[str]:
        """Returns the members at ``version`` that correct the same prompt, newest first."""
        return self._members_among(self.peers([digest])[digest], version)

    def peers(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Returns every edit ever made for some prompts, newest first, by the prompts' digests."""
        # The index is faster for one prompt, a single pass for many.
        which = "= ?" if len(digests) == 1 else "IN (SELECT unnest(?))"
        rows = self._db.query(
            f"SELECT prompt_digest, edit_id, ordinal FROM edits WHERE prompt_digest {which}",
            [digests[0] if len(digests) == 1 else list(digests)],
        )
        found: dict[str, list[str]] = {digest: [] for digest in digests}
        for digest, edit_id, _ in sorted(rows, key=lambda row: -row[2]):
            found[digest].append(str(edit_id))
        return found

    def _members_among(self, ids: Sequence[str], version: int) -> list[str]:
        if not ids:  # most prompts have no edit yet
            return []
        rows = self._db.query(
            "SELECT edit_id FROM membership WHERE version <= ? AND edit_id IN (SELECT unnest(?)) "
            "GROUP BY edit_id HAVING arg_max(member, version)",
            [version, list(ids)],
        )
        inside = {row[0] for row in rows}
        return [edit_id for edit_id in ids if edit_id in inside]

    def moves(self, before: int, after: int) -> tuple[list[str], list[str]] | None:
        """Returns the same as ``changes``, faster and in no order, without reading any edit.

        ``None`` if one of the prompts has several edits, of which only the newest is active.

        Args:
            before: Version.
            after: Version, earlier or later.
        """
        turned = self._turned(before, after)
        if not self._shared().isdisjoint(turned):
            return None
        came = [edit_id for edit_id, joined in turned.items() if joined]
        went = [edit_id for edit_id, joined in turned.items() if not joined]
        return came, went

    def _turned(self, before: int, after: int) -> dict[str, bool]:
        """Returns the edits that are members at only one of the versions: True for added ones.

        The last result is cached: a rollback needs it for its view and again for its record.
        """
        before, after = self._same(before), self._same(after)
        first, second = sorted((before, after))
        key = (self._db.failures, first, second)
        known = self._turns  # another thread may replace it
        if known is None or known[0] != key:
            # Every row of an edit flips its membership, so the first and the last row between the
            # versions suffice. Grouping in DuckDB takes longer than reading a thousand rows.
            rows: list[Any] = self._db.query(
                "SELECT edit_id, member FROM membership WHERE version > ? AND version <= ? "
                "ORDER BY version",
                [first, second],
            )
            began, ended = dict(reversed(rows)), dict(rows)
            known = key, {edit: joined for edit, joined in began.items() if ended[edit] == joined}
            self._turns = known
        if before <= after:
            return known[1]
        return {edit_id: not joined for edit_id, joined in known[1].items()}

    def _same(self, version: int) -> int:
        """Returns the version whose members ``version`` restored by a rollback, undo or redo.

        The rows between the two versions then need not be read.
        """
        with self._db.turn:
            if self._restores is None or self._restores[0] != self._db.failures:
                rows = self._db.query(
                    "SELECT version, target_version FROM operations "
                    # Only earlier ones: in an altered file, a cycle would never end.
                    "WHERE kind IN (SELECT unnest(?)) AND changed AND target_version < version",
                    [list(RESTORING)],
                )
                self._restores = self._db.failures, {int(v): int(target) for v, target in rows}
            while (target := self._restores[1].get(version)) is not None:
                version = target
            return version

    def _shared(self) -> set[str]:
        """Returns the edits that share their prompt with another edit; read once."""
        with self._db.turn:  # an edit that another thread adds meanwhile would stay missing
            if self._sharing is None or self._sharing[0] != self._db.failures:
                rows = self._db.query(
                    "SELECT edit_id FROM edits SEMI JOIN (SELECT prompt_digest FROM edits "
                    "GROUP BY prompt_digest HAVING count(*) > 1) USING (prompt_digest)"
                )
                self._sharing = self._db.failures, {str(row[0]) for row in rows}
            return self._sharing[1]

    def changes(self, before: int, after: int) -> tuple[list[str], list[str]]:
        """Returns which edits are active at one version and not at another, oldest first.

        Runs in time proportional to the changes between the two, not to the history.

        Args:
            before: Version.
            after: Version, earlier or later.

        Returns:
            The added and the removed edits, from ``before`` to ``after``.
        """
        before, after = self._same(before), self._same(after)
        first, second = sorted((before, after))
        rows = self._db.query(
            """
            WITH touched AS (
                SELECT DISTINCT edit_id FROM membership
                WHERE version > $first AND version <= $second
            ), prompts AS (
                SELECT DISTINCT prompt_digest FROM edits SEMI JOIN touched USING (edit_id)
            ), peers AS (
                SELECT edit_id, prompt_digest, ordinal FROM edits SEMI JOIN prompts
                USING (prompt_digest)
            ), members AS (
                SELECT edit_id,
                       coalesce(arg_max(member, version) FILTER (version <= $first), false) AS old,
                       arg_max(member, version) AS new
                FROM membership SEMI JOIN peers USING (edit_id)
                WHERE version <= $second GROUP BY edit_id
            ), states AS (
                SELECT edit_id, ordinal,
                       old AND ordinal = max(ordinal) FILTER (old) OVER prompt AS was,
                       new AND ordinal = max(ordinal) FILTER (new) OVER prompt AS now
                FROM peers JOIN members USING (edit_id)
                WINDOW prompt AS (PARTITION BY prompt_digest)
            )
            SELECT edit_id, now FROM states WHERE was != now ORDER BY ordinal
            """,
            {"first": first, "second": second},
        )
        came = [str(edit_id) for edit_id, joined in rows if joined]
        went = [str(edit_id) for edit_id, joined in rows if not joined]
        return (came, went) if before <= after else (went, came)

    def _states(self, ids: Sequence[str], version: int) -> dict[str, EditStatus]:
        """Returns the status of the members among ``ids`` at ``version``: active or superseded."""
        if not ids:
            return {}
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
