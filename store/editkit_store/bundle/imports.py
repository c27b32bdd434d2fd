"""Importing bundles into a history.

An import checks the whole bundle before it writes anything, and is one operation, which can be
undone like any other. Edits keep their ids and times. Nothing is overwritten: an edit that exists
already is kept, and so is an active edit for the same prompt, unless the caller chooses otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from editkit_store.artifacts.artifacts import Artifacts
from editkit_store.artifacts.snapshots import Snapshot, Snapshots
from editkit_store.bundle.contents import Contents, read_contents
from editkit_store.bundle.folder import tensor_file
from editkit_store.bundle.records import (
    BundledArtifact,
    Clash,
    Compare,
    Imported,
    OnConflict,
)
from editkit_store.database.connection import Database
from editkit_store.errors import ImportConflict
from editkit_store.history.adjustments import stances
from editkit_store.history.log import History, prompt_digest
from editkit_store.history.versions import format_version
from editkit_store.history.wording import wording
from editkit_store.records import Adjustments, Edit

__all__ = ["import_bundle"]

_PART = 200  # artifacts whose tensors are in memory at once


class _Plan(NamedTuple):
    """What an import will do.

    Attributes:
        edits: Edits to import, oldest first.
        joining: Ids of those that join the view, including superseded ones.
        artifacts: Artifacts to import.
        snapshots: Shared weights to import, by owner.
        adjustments: What to record about the reach of edits.
        result: The result for the caller.
    """

    edits: list[Edit]
    joining: list[str]
    artifacts: list[BundledArtifact]
    snapshots: dict[str, Snapshot]
    adjustments: dict[str, Adjustments]
    result: Imported


def import_bundle(
    database: Database,
    history: History,
    path: Path,
    *,
    on_conflict: OnConflict,
    dry_run: bool,
    how: Mapping[str, Any],
    compare: Compare | None,
    before_commit: Callable[[], None] | None,
) -> Imported:
    """Imports the edits of a bundle; see ``Store.import_bundle``."""
    if on_conflict not in ("keep", "supersede", "error"):
        raise ValueError(f"on_conflict is 'keep', 'supersede' or 'error', not '{on_conflict}'")
    contents = read_contents(path)
    plan = _make_plan(_Here(database, history), contents, on_conflict)
    result = plan.result.model_copy(update={"dry_run": dry_run})
    if dry_run or not (plan.edits or plan.artifacts or plan.adjustments):
        return result
    with database.transaction():

        def detail() -> dict[str, Any]:
            said = {
                edit_id: one.model_dump(mode="json") for edit_id, one in plan.adjustments.items()
            }
            return {
                **({"adjustments": said} if said else {}),
                "records": _put(Artifacts(database), contents, plan.artifacts, compare),
                "bundle": {
                    "head": result.head,
                    "manifest": result.manifest,
                    "version": contents.reader.manifest.version,
                },
                "active": len(result.active),
                "artifacts": len(plan.artifacts),
                "kept": {one.edit_id: one.ours for one in result.kept},
            }

        snapshots = Snapshots(database)
        placed = {owner: snapshots.put(one) for owner, one in plan.snapshots.items()}
        operation = history.import_edits(
            plan.edits,
            plan.joining,
            detail,
            adjusts=bool(plan.adjustments),
            snapshots=placed,
            **how,
        )
        made = {"version": format_version(operation.version), "view": operation.active_count}
        done = result.model_copy(update=made)
        if before_commit is not None:
            before_commit()
    return done


def _put(
    artifacts: Artifacts,
    contents: Contents,
    wanted: Sequence[BundledArtifact],
    compare: Compare | None,
) -> dict[str, dict[str, str]]:
    """Stores artifacts; returns the digests of their records, by edit and model."""
    records: dict[str, dict[str, str]] = {}
    for at in range(0, len(wanted), _PART):
        part = wanted[at : at + _PART]
        files = [None if one.digest is None else tensor_file(one.digest) for one in part]
        payloads = [None if name is None else contents.reader.read(name) for name in files]
        times = [one.learned_at for one in part]
        digests = artifacts.put_new(list(zip(part, payloads, times, strict=True)))
        for one, digest in zip(part, digests, strict=True):
            records.setdefault(one.edit_id, {})[one.fingerprint] = digest
    learned: dict[str, list[str]] = {}
    for one in wanted:
        if one.usable:
            learned.setdefault(one.fingerprint, []).append(one.edit_id)
    found = compare(learned) if compare is not None else {}
    for fingerprint, conflicts in found.items():
        for edit_id, digest in artifacts.set_conflicts(fingerprint, conflicts).items():
            records[edit_id][fingerprint] = digest
    return records


class _Here:
    """Looks up the edits of a bundle in the importing store."""

    def __init__(self, database: Database, history: History) -> None:
        self._db = database
        self.history = history

    def requests(self, edit_ids: Sequence[str]) -> dict[str, str]:
        """Returns the edits that exist here, with the digests of their requests."""
        return dict(
            self._db.query(
                "SELECT edit_id, request_digest FROM edits WHERE edit_id IN (SELECT unnest(?))",
                [list(edit_ids)],
            )
        )

    def with_keys(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Returns id and target of the edits with these idempotency keys, by key."""
        rows = self._db.query(
            "SELECT e.idempotency_key, e.edit_id, e.target FROM edits e "
            "JOIN operations o ON o.seq = e.seq "
            "WHERE o.changed AND e.idempotency_key IN (SELECT unnest(?)) ORDER BY e.ordinal",
            [list(keys)],
        )
        return {key: (edit_id, target) for key, edit_id, target in rows}

    def active(self, prompts: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Returns id and target of the active edits for prompts, by the prompts' digests."""
        active = self.history.active_ids(self.history.current())
        rows = self._db.query(
            "SELECT prompt_digest, edit_id, target FROM edits "
            "WHERE prompt_digest IN (SELECT unnest(?)) AND edit_id IN (SELECT unnest(?))",
            [list(prompts), active],
        )
        return {prompt: (edit_id, target) for prompt, edit_id, target in rows}

    def learned(self, edit_ids: Sequence[str]) -> set[tuple[str, str]]:
        """Returns which models have tried to learn which edits."""
        rows = self._db.query(
            "SELECT edit_id, fingerprint FROM artifacts WHERE edit_id IN (SELECT unnest(?))",
            [list(edit_ids)],
        )
        return {(str(edit_id), str(model)) for edit_id, model in rows}

    def sharing(self) -> set[str]:
        """Returns the owners of shared weights here, at any version."""
        rows = self._db.query(
            "SELECT DISTINCT fingerprint FROM snapshot_versions WHERE digest IS NOT NULL"
        )
        return {str(row[0]) for row in rows}

    def place(self, fingerprint: str, method: str) -> tuple[Any, ...] | None:
        """Returns where in a model a method learned its newest edit here, by its payload."""
        newest = Artifacts(self._db).newest(fingerprint, method=method)
        return None if newest is None else _place(newest[1])


def _make_plan(here: _Here, contents: Contents, on_conflict: OnConflict) -> _Plan:
    known = _known(here, contents)
    fresh = [edit for edit in contents.edits if edit.id not in known]
    same_key = _same_key(here, fresh)
    left_out = {clash.edit_id for clash in same_key}
    edits = [edit for edit in fresh if edit.id not in left_out]
    joining, active, clashes = _joining(here, contents, edits, on_conflict)
    if clashes and on_conflict == "error":
        ids = tuple(clash.edit_id for clash in clashes)
        raise ImportConflict(
            f"{len(ids)} edits of the bundle correct what an active edit here corrects: "
            + ", ".join(f"{clash.edit_id} (ours: {clash.ours})" for clash in clashes),
            edit_ids=ids,
            hint="--on-conflict keep leaves ours active, --on-conflict supersede theirs",
        )
    brought = {edit.id for edit in edits}
    adjustments = _adjusting(here, contents, known, brought)
    artifacts, elsewhere = _wanted(here, contents, {*known, *brought})
    # Shared weights cannot be merged: the bundle's are imported only if there are none here.
    taken = here.sharing()
    snapshots = {owner: one for owner, one in contents.snapshots.items() if owner not in taken}
    learned: dict[str, int] = {}
    for one in artifacts:
        if one.usable and one.edit_id in active:
            learned[one.fingerprint] = learned.get(one.fingerprint, 0) + 1
    last = here.history.last()
    is_kept = on_conflict == "keep"
    replaced = 0 if is_kept else len(clashes)
    result = Imported(
        bundle=str(contents.reader.path),
        head=contents.reader.manifest.head,
        manifest=contents.reader.digest,
        version=format_version(last.version + (1 if edits or adjustments else 0)),
        view=last.active_count + len(active) - replaced,
        edits=tuple(edit.id for edit in edits),
        active=tuple(edit.id for edit in edits if edit.id in active),
        adjusted=tuple(adjustments),
        known=tuple(edit.id for edit in contents.edits if edit.id in known),
        kept=tuple(clashes) if is_kept else (),
        superseded=() if is_kept else tuple(clashes),
        same_key=tuple(same_key),
        artifacts=len(artifacts),
        models=tuple(sorted({one.fingerprint for one in artifacts})),
        elsewhere=elsewhere,
        snapshots=tuple(snapshots),
        unplaced=tuple(owner for owner in contents.snapshots if owner in taken),
        learned=learned,
    )
    return _Plan(edits, joining, artifacts, snapshots, adjustments, result)


def _known(here: _Here, contents: Contents) -> set[str]:
    """Returns the edits that exist here already.

    Raises:
        ImportConflict: An edit has the id of a different edit here.
    """
    known = here.requests([edit.id for edit in contents.edits])
    other = tuple(one for one, digest in known.items() if contents.requests[one] != digest)
    if other:
        raise ImportConflict(
            f"edit '{other[0]}' of the bundle has the id of another edit here",
            edit_ids=other,
            hint="one of the two was altered; `editkit verify` checks the one here",
        )
    return set(known)


def _adjusting(
    here: _Here, contents: Contents, known: set[str], brought: set[str]
) -> dict[str, Adjustments]:
    """Returns what to record about the reach of edits.

    An edit that is here already takes over only what nothing was said about here, and only while it
    is part of the view.
    """
    history, current = here.history, here.history.current()
    ours = history.adjustments(known, at=current)
    states = history.edits(sorted(known & contents.adjustments.keys()), at=current)
    found: dict[str, Adjustments] = {}
    for edit_id, said in contents.adjustments.items():
        if edit_id in brought:
            found[edit_id] = said
        elif edit_id in states and states[edit_id].status in ("active", "superseded"):
            taken = stances(ours.get(edit_id, Adjustments()))
            new = Adjustments(
                also=tuple(one for one in said.also if wording(one) not in taken),
                exclude=tuple(one for one in said.exclude if wording(one) not in taken),
            )
            if new:
                found[edit_id] = new
    return found


def _same_key(here: _Here, edits: Sequence[Edit]) -> list[Clash]:
    keys = [edit.idempotency_key for edit in edits if edit.idempotency_key is not None]
    ours = here.with_keys(keys)
    return [
        _clash(edit, ours[edit.idempotency_key])
        for edit in edits
        if edit.idempotency_key is not None and edit.idempotency_key in ours
    ]


def _joining(
    here: _Here, contents: Contents, edits: Sequence[Edit], on_conflict: OnConflict
) -> tuple[list[str], set[str], list[Clash]]:
    """Returns the edits that join the view, those active afterwards, and the conflicts.

    The newest edit of a prompt decides for the older ones: if it is left out, or exists here
    already, an older one must not become active instead.
    """
    brought = {edit.id for edit in edits}
    prompts: dict[str, list[Edit]] = {}
    for edit in contents.edits:
        prompts.setdefault(prompt_digest(edit), []).append(edit)
    decided = {digest: group for digest, group in prompts.items() if group[-1].id in brought}
    ours = here.active(list(decided))
    joining: list[str] = []
    active: set[str] = set()
    clashes: list[Clash] = []
    for digest, group in decided.items():
        if digest in ours:
            clashes.append(_clash(group[-1], ours[digest]))
            if on_conflict != "supersede":
                continue
        joining += [edit.id for edit in group if edit.id in brought]
        active.add(group[-1].id)
    return joining, active, clashes


def _clash(edit: Edit, ours: tuple[str, str]) -> Clash:
    return Clash(
        edit_id=edit.id, prompt=edit.prompt, target=edit.target, ours=ours[0], our_target=ours[1]
    )


def _wanted(
    here: _Here, contents: Contents, edit_ids: set[str]
) -> tuple[list[BundledArtifact], int]:
    """Returns the artifacts to import, and how many are left out because of their place.

    Everything that a method learned in a model has to be at one place, or the history could not be
    opened. Places are compared among payloads of one method; a payload without a place is accepted.
    Conflicts with edits here are not known yet, which null represents.
    """
    learned = here.learned(sorted(edit_ids))
    places: dict[tuple[str, str], tuple[Any, ...] | None] = {}
    wanted: list[BundledArtifact] = []
    elsewhere = 0
    for one in contents.artifacts:
        if one.edit_id not in edit_ids or (one.edit_id, one.fingerprint) in learned:
            continue
        key = one.fingerprint, one.method
        if key not in places:
            places[key] = here.place(*key)
        ours = places[key]
        if ours is not None and one.digest is not None:
            if _place(contents.reader.read(tensor_file(one.digest))) != ours:
                elsewhere += 1
                continue
            one = one.model_copy(update={"conflicts": None})
        wanted.append(one)
    return wanted, elsewhere


def _place(payload: bytes) -> tuple[Any, ...] | None:
    """Returns the place in a payload's metadata, the module first; None if it has none."""
    try:
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        about = json.loads(header["__metadata__"]["editkit"])
        return about["site"], about["position"], about.get("format")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
