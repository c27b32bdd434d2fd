"""The history: an append-only log of operations, and the view of active edits at every version.

``v0`` is the unedited model. Each operation that changes the set of edits creates the next version;
versions form a line, and a rollback creates a *new* version whose view equals an older one. The
changes of a version are stored as membership rows (edits added and removed), so any past view is
one query, and nothing is ever rewritten.

A *member* is an edit that was added and not reverted. A member is *active* unless a newer member
corrects the same prompt (it is then *superseded*), so reverting the newer one reactivates the older
one without any bookkeeping.

Undo and redo are operations too. Each version stores which version the next undo undoes
(``undo_version``) and which undo the next redo reverses (``redo_version``); with U, R these two,
p the version before and x the version to undo:

    add, adjust, revert, rollback, import
                                   v = p + 1: U(v) = v,        R(v) = none
    undo of x = U(p)               v = p + 1: U(v) = U(x - 1), R(v) = v    (view of x - 1)
    redo of n = R(p), n undid x    v = p + 1: U(v) = x,        R(v) = R(n - 1)   (view of x)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from editkit_store.artifacts.snapshots import Snapshots
from editkit_store.digest import canonical_json, digest_bytes, digest_json
from editkit_store.errors import (
    NotActive,
    NothingToUndo,
)
from editkit_store.history.adjustments import AdjustedPast
from editkit_store.history.columns import EDIT
from editkit_store.history.queries import RESTORING, Operation, prompt_digest
from editkit_store.history.versions import check_tag
from editkit_store.records import COLUMNS, Edit, OperationKind, Provenance

__all__ = ["History", "Operation", "prompt_digest"]


class History(AdjustedPast):
    """Reads and appends operations. Appending happens inside the caller's transaction."""

    def add(
        self,
        edit: Edit,
        *,
        activate: bool,
        extra: Mapping[str, Any],
        peers: Sequence[str] | None = None,
        snapshot: tuple[str, str] | None = None,
        **how: Any,
    ) -> Operation:
        """Appends an edit; with ``activate`` it joins the view, else it is a failed attempt.

        Args:
            edit: The edit.
            activate: See above.
            extra: More details of the operation.
            peers: The edits of its prompt, newest first, if known.
            snapshot: Owner and digest of the weights that it shares; see ``NewEdit.shared_by``.
            **how: Time, provenance and model.
        """
        last = self.last()
        if peers is None:
            peers = self.peers([prompt_digest(edit)])[prompt_digest(edit)]
        older = self._members_among(peers, last.version)
        if peers and self._sharing is not None:
            self._sharing[1].update(peers, [edit.id])
        detail = {
            "request": self._insert([edit], last.seq + 1)[edit.id],
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
            snapshots={snapshot[0]: (last.version + 1, snapshot[1])} if snapshot else None,
            **how,
        )

    def import_edits(
        self,
        edits: Sequence[Edit],
        active: Collection[str],
        extra: Callable[[], Mapping[str, Any]],
        *,
        adjusts: bool = False,
        snapshots: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Operation:
        """Appends an import: edits of another history, in order.

        Args:
            edits: They keep their ids and times.
            active: Ids of the edits that join the view.
            extra: Returns more details of the operation; called after the edits are inserted, so
                that it can insert artifacts.
            adjusts: Whether these details change the reach of edits that are here already.
            snapshots: Digests of the weights that edits share, by ``NewEdit.shared_by``.
            **how: Time, provenance and model.
        """
        last = self.last()
        self._sharing = None
        requests = self._insert(edits, last.seq + 1)
        brought = [[edit.id, _naive(edit.time).isoformat()] for edit in edits]
        more = extra()
        rows = [(edit_id, True) for edit_id in sorted(active)]
        self._db.insert("membership", [[last.version + 1, *row] for row in rows])
        count = len(self.active_ids(last.version + 1))
        return self._append(
            "import",
            last,
            # Artifacts alone do not change the view.
            membership=rows if edits or adjusts else None,
            active_count=count,
            detail={"requests": requests, "brought": brought, **more},
            is_member_stored=True,
            snapshots={
                owner: (last.version + bool(edits or adjusts), digest)
                for owner, digest in (snapshots or {}).items()
            },
            **how,
        )

    def _insert(self, edits: Sequence[Edit], seq: int) -> dict[str, str]:
        """Inserts the edits of an operation; returns the digests of their requests."""
        if self._placed is None or self._placed[0] != self._db.failures:
            row = self._db.one("SELECT max(ordinal) FROM edits")
            self._placed = self._db.failures, int(row[0] or 0) if row else 0
        last = self._placed[1]
        digests, rows = {}, []
        for ordinal, edit in enumerate(edits, last + 1):
            request = edit.model_dump(mode="json", exclude={"id", "time", "status"})
            text = canonical_json(request)
            digest = digest_bytes(text.encode("utf-8", errors="surrogatepass"))
            digests[edit.id] = digest
            values = {name: request.get(name) for name in COLUMNS} | {
                "edit_id": edit.id,
                "seq": seq,
                "request": text,
                "request_digest": digest,
                "prompt_digest": prompt_digest(edit),
                "added_at": _naive(edit.time),
                "ordinal": ordinal,
            }
            rows.append([values[name] for name in EDIT])
        self._placed = self._placed[0], last + len(rows)
        self._db.insert("edits", rows)
        return digests

    def with_key(self, key: str) -> str | None:
        """Returns the newest edit with an idempotency key, not counting failed attempts."""
        row = self._db.one(
            "SELECT e.edit_id FROM edits e JOIN operations o ON o.seq = e.seq "
            "WHERE e.idempotency_key = ? AND o.changed ORDER BY e.ordinal DESC LIMIT 1",
            [key],
        )
        return None if row is None else str(row[0])

    def revert(
        self, edit_id: str, *, detail: Mapping[str, Any] | None = None, **how: Any
    ) -> Operation:
        """Appends an operation that removes one edit, as if it had never been added.

        Args:
            edit_id: The edit.
            detail: More details of the operation.
            **how: Time, provenance, model, and the new shared weights.

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
            # An older correction of the same prompt, if there is one, becomes active again.
            active_count=last.active_count - (1 if len(peers) == 1 else 0),
            detail={"restores": peers[1:2] if peers[:1] == [edit_id] else [], **(detail or {})},
            **how,
        )

    def adjust(
        self,
        edit_id: str,
        also: Sequence[str],
        exclude: Sequence[str],
        *,
        activate: bool = True,
        failed: Sequence[str] = (),
        **how: Any,
    ) -> Operation:
        """Appends an operation that says which prompts an edit also applies to, and which not.

        Args:
            edit_id: The edit.
            also: Prompts that it also applies to.
            exclude: Prompts that it must not apply to.
            activate: Whether this applies, in a new version; else it is a failed attempt.
            failed: Those of ``also`` at which the edit does not give its target.
            **how: Time, provenance and model.

        Raises:
            NotActive: It is not active in the current version.
        """
        last = self.last()
        self.check_active(edit_id)
        detail = {"also": list(also), "not": list(exclude), "failed": list(failed)}
        return self._append(
            "adjust",
            last,
            edit_id=edit_id,
            membership=[] if activate else None,  # the same edits stay active
            detail=detail,
            **how,
        )

    def check_active(self, edit_id: str) -> Edit:
        """Returns an edit that is active in the current version.

        Raises:
            NotActive: It is not.
        """
        edit = self.edits([edit_id], at=self.current())[edit_id]
        if edit.status != "active":
            raise NotActive(f"edit '{edit_id}' is not active: it is {edit.status}", edit_id=edit_id)
        return edit

    def rollback(self, version: int, **how: Any) -> Operation:
        """Appends an operation whose view equals that of ``version``."""
        return self._restore("rollback", version, {}, **how)

    def undo(self, **how: Any) -> Operation:
        """Appends an operation that undoes the last one; repeated, it goes further back.

        Raises:
            NothingToUndo: Everything is undone.
        """
        undone = self.to_undo()
        return self._restore(
            "undo", undone - 1, {"undoes": undone, "undone": self.maker(undone).kind}, **how
        )

    def redo(self, **how: Any) -> Operation:
        """Appends an operation that reverses the last undo.

        Raises:
            NothingToUndo: The last change was not an undo.
        """
        undone = self.to_redo()
        return self._restore(
            "redo", undone, {"redoes": undone, "redone": self.maker(undone).kind}, **how
        )

    def to_undo(self) -> int:
        """Returns the version that the next undo undoes: the view becomes that of the one before.

        Raises:
            NothingToUndo: Everything is undone.
        """
        undone = self.last().undo_version
        if undone is None:
            raise NothingToUndo("there is nothing to undo", hint="`editkit log` shows the history")
        return undone

    def to_redo(self) -> int:
        """Returns the version whose view the next redo restores.

        Raises:
            NothingToUndo: The last change was not an undo.
        """
        redone = self.last().redo_version
        if redone is None:
            raise NothingToUndo("there is nothing to redo", hint="redo follows an undo")
        return int(self.maker(redone).detail["undoes"])

    def tag(self, version: int, name: str, **how: Any) -> Operation:
        """Appends an operation that names ``version``; an existing tag is moved to it.

        Raises:
            InvalidTag: ``name`` cannot be a tag.
        """
        check_tag(name)
        operation = self._append(
            "tag", self.last(), target_version=version, detail={"tag": name}, **how
        )
        self._db.insert("tags", [[operation.seq, name, version]])
        return operation

    def record_batch(self, detail: Mapping[str, Any], **how: Any) -> Operation:
        """Appends the record of artifacts that a replay stored; the view does not change."""
        return self._append("replay", self.last(), detail=detail, **how)

    def replay(self, version: int, detail: Mapping[str, Any], **how: Any) -> Operation:
        """Appends the record of a replay up to ``version``; the view does not change."""
        return self._append("replay", self.last(), target_version=version, detail=detail, **how)

    def _restore(
        self, kind: OperationKind, version: int, detail: Mapping[str, Any], **how: Any
    ) -> Operation:
        last = self.last()
        turned = sorted(self._turned(last.version, version).items())
        moved = self.moves(last.version, version)  # cached, unlike a count
        count = (
            self.active_count(version)
            if moved is None
            else last.active_count + len(moved[0]) - len(moved[1])
        )
        return self._append(
            kind,
            last,
            target_version=version,
            membership=turned,
            active_count=count,
            detail=detail,
            snapshots=self._restored_snapshots(version, last.version),
            **how,
        )

    def _restored_snapshots(self, version: int, current: int) -> dict[str, tuple[int, str | None]]:
        """Returns the changes of shared weights when ``version`` is restored."""
        snapshots = Snapshots(self._db)
        now = snapshots.at(current)
        if not now:
            return {}
        return {
            owner: (current + 1, digest)
            for owner, digest in snapshots.at(version).items()
            if now[owner] != digest
        }

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
        snapshots: Mapping[str, tuple[int, str | None]] | None = None,
    ) -> Operation:
        """Appends an operation.

        ``snapshots`` gives the new shared weights, and from which version on; the operation's
        detail records them, by ``NewEdit.shared_by``.
        """
        changed = membership is not None
        if snapshots:
            changes = {owner: list(one) for owner, one in sorted(snapshots.items())}
            detail = {**detail, "snapshots": changes}
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
        if snapshots:
            placed = Snapshots(self._db)
            for owner, (start, one) in snapshots.items():
                placed.place(owner, one, version=start, seq=body["seq"])
        operation = Operation(
            seq=body["seq"], kind=kind, version=version, changed=changed, edit_id=edit_id,
            target_version=target_version, undo_version=undo, redo_version=redo,
            active_count=body["active_count"], time=time, fingerprint=fingerprint,
            provenance=provenance, detail=body["detail"], parent_digest=body["parent_digest"],
            digest=digest,
        )  # fmt: skip
        self._known = self._db.failures, operation
        if kind in ("adjust", "import"):
            self._adjusting = None
        if kind in RESTORING and target_version is not None and self._restores is not None:
            self._restores[1][version] = target_version
        return operation

    def _chain(
        self, kind: OperationKind, last: Operation, version: int
    ) -> tuple[int | None, int | None]:
        """Returns the undo and redo pointers of a new version; see the rules above."""
        if kind == "undo" and last.undo_version is not None:
            return self.maker(last.undo_version - 1).undo_version, version
        if kind == "redo" and last.redo_version is not None:
            undone = int(self.maker(last.redo_version).detail["undoes"])
            return undone, self.maker(last.redo_version - 1).redo_version
        return version, None


def _naive(time: datetime) -> datetime:
    """Converts a time to naive UTC: DuckDB's TIMESTAMP has no time zone."""
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
