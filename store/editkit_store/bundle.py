"""Bundles: edits and what they became, as a folder of JSON and safetensors files.

An export of the same store is the same bytes, wherever and whenever it is made. An import checks
all of a bundle before it writes anything, and is one operation, which can be taken back like any
other. It brings edits with the ids and times that they have. It never overwrites: an edit that is
here already stays as it is, and unless the caller asks otherwise, so does an active edit of ours
that corrects the same prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from editkit_store.artifacts import ROW, Artifacts
from editkit_store.bundle_contents import Contents, read_contents
from editkit_store.bundle_folder import (
    ARTIFACTS,
    EDITS,
    FORMAT,
    MANIFEST,
    OPERATIONS,
    Writer,
    new_folder,
    tensor_file,
)
from editkit_store.bundle_records import (
    BundledArtifact,
    Clash,
    Compare,
    Counts,
    Exported,
    Imported,
    Manifest,
    OnConflict,
    Selection,
)
from editkit_store.connection import Database
from editkit_store.digest import canonical_json, digest_bytes, digest_json
from editkit_store.errors import ImportConflict, StoreDamaged
from editkit_store.history import History, prompt_digest
from editkit_store.records import Edit
from editkit_store.versions import format_version

__all__ = ["bring", "export"]

_OPERATION = (
    "seq", "kind", "version", "changed", "edit_id", "target_version", "undo_version",
    "redo_version", "active_count", "time", "fingerprint", "provenance", "detail",
    "parent_digest", "digest",
)  # fmt: skip

_EDITS = """
    SELECT e.edit_id, e.added_at, e.request, o.seq, o.version, o.digest, o.provenance,
           row_number() OVER (PARTITION BY e.prompt_digest ORDER BY e.ordinal DESC) = 1
    FROM edits e JOIN operations o ON o.seq = e.seq
    WHERE e.edit_id IN (
        SELECT edit_id FROM membership WHERE version <= ?
        GROUP BY edit_id HAVING arg_max(member, version)
    )
    ORDER BY e.ordinal
"""


_PART = 200  # artifacts whose tensors are held in memory at a time


# Exporting -----------------------------------------------------------------------------------


def export(
    database: Database, history: History, path: Path, *, selection: Selection, tool: str
) -> Exported:
    """Writes a bundle; see ``Store.export``."""
    version = history.resolve(selection.to)
    edits = _selected(database, history, version, selection)
    with new_folder(path) as writer:
        head, operations = _write_log(database, writer, version)
        writer.lines(EDITS, edits)
        digests, artifacts = _write_artifacts(database, writer, [edit["id"] for edit in edits])
        _write_tensors(database, writer, digests)
        manifest = Manifest(
            format=FORMAT,
            tool=tool,
            version=version,
            current=history.current(),
            selection=selection,
            head=head,
            counts=Counts(
                edits=len(edits), artifacts=artifacts, operations=operations, tensors=len(digests)
            ),
            files=dict(writer.files),
        )
        data = (canonical_json(manifest.model_dump(mode="json")) + "\n").encode()
        writer.put(MANIFEST, [data])
    return Exported(
        bundle=str(path),
        version=format_version(version),
        head=head,
        manifest=digest_bytes(data),
        edits=len(edits),
        artifacts=artifacts,
        tensors=len(digests),
        bytes=sum(file.bytes for file in writer.files.values()),
    )


def _selected(
    database: Database, history: History, version: int, selection: Selection
) -> list[dict[str, Any]]:
    """Returns the lines of the edits that were asked for, oldest first."""
    without: set[str] = set()
    within: set[str] | None = None
    if selection.from_ is not None:
        without = set(history.active_ids(history.resolve(selection.from_)))
    if selection.only is not None:
        within = set(history.active_ids(history.resolve(selection.only)))
    # A superseded edit comes along only where all do: without the newer one it would be active.
    is_all = selection.from_ is None and within is None
    return [
        {
            "id": edit_id,
            "time": added.isoformat(),
            "status": "active" if active else "superseded",
            "request": json.loads(request),
            "operation": {"seq": seq, "version": made, "digest": digest},
            "provenance": json.loads(provenance),
        }
        for edit_id, added, request, seq, made, digest, provenance, active in database.query(
            _EDITS, [version]
        )
        if (is_all or active) and edit_id not in without and (within is None or edit_id in within)
    ]


def _write_log(database: Database, writer: Writer, version: int) -> tuple[str | None, int]:
    """Writes the log up to a version; returns its head and its length."""
    members: dict[int, list[list[Any]]] = {}
    for row in database.query(
        "SELECT version, edit_id, member FROM membership WHERE version <= ? ORDER BY ALL",
        [version],
    ):
        members.setdefault(row[0], []).append(list(row))
    head: str | None = None
    count = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal head, count
        columns = ", ".join(_OPERATION)
        sql = f"SELECT {columns} FROM operations WHERE version <= ? ORDER BY seq"
        for part in database.stream(sql, [version]):
            for row in part:
                line = _operation(row, members)
                body = {name: value for name, value in line.items() if name != "digest"}
                if line["parent_digest"] != head or digest_json(body) != line["digest"]:
                    raise StoreDamaged(
                        f"operation {line['seq']} of the store '{database.path}' was altered",
                        path=database.path,
                        hint="`editkit verify` says more; restore the file from a copy",
                    )
                head, count = line["digest"], count + 1
                yield line

    writer.lines(OPERATIONS, lines())
    return head, count


def _operation(row: Sequence[Any], members: Mapping[int, list[list[Any]]]) -> dict[str, Any]:
    line = dict(zip(_OPERATION, row, strict=True))
    return {
        **line,
        "time": line["time"].isoformat(),
        "provenance": json.loads(line["provenance"]),
        "detail": json.loads(line["detail"]),
        "membership": members.get(line["version"], []) if line["changed"] else [],
    }


def _write_artifacts(
    database: Database, writer: Writer, edit_ids: Sequence[str]
) -> tuple[list[str], int]:
    """Writes what the edits became; returns the tensors of that, and the number of lines."""
    names = ROW.split(", ")
    order = {edit_id: place for place, edit_id in enumerate(edit_ids)}
    found = [
        dict(zip(names, row, strict=True))
        for row in database.query(
            f"SELECT {ROW} FROM artifacts WHERE edit_id IN (SELECT unnest(?))", [list(edit_ids)]
        )
    ]
    found.sort(key=lambda line: (order[line["edit_id"]], line["fingerprint"]))
    for line in found:
        line["metrics"] = json.loads(line["metrics"])
        line["conflicts"] = None if line["conflicts"] is None else json.loads(line["conflicts"])
        line["learned_at"] = line["learned_at"].isoformat()
    writer.lines(ARTIFACTS, found)
    return sorted({line["digest"] for line in found if line["digest"] is not None}), len(found)


def _write_tensors(database: Database, writer: Writer, digests: Sequence[str]) -> None:
    missing = set(digests)
    streamed = database.stream(
        "SELECT digest, bytes FROM payloads WHERE digest IN (SELECT unnest(?))", [list(digests)]
    )
    for part in streamed:
        for digest, data in part:
            if digest_bytes(data) == digest:
                writer.put(tensor_file(digest), [data])
                missing.discard(digest)
    for digest in sorted(missing):
        raise StoreDamaged(
            f"payload '{digest}' is missing or was altered",
            path=database.path,
            hint="`editkit verify` says more; restore the file from a copy",
        )


# Importing -----------------------------------------------------------------------------------


class _Plan(NamedTuple):
    """What an import will do.

    Attributes:
        edits: Edits to bring, oldest first.
        joining: Ids of those that join the view, superseded ones among them.
        artifacts: Artifacts to bring.
        result: What to tell the caller.
    """

    edits: list[Edit]
    joining: list[str]
    artifacts: list[BundledArtifact]
    result: Imported


def bring(
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
    """Brings the edits of a bundle; see ``Store.bring``."""
    if on_conflict not in ("keep", "supersede", "error"):
        raise ValueError(f"on_conflict is 'keep', 'supersede' or 'error', not '{on_conflict}'")
    contents = read_contents(path)
    plan = _planned(_Here(database, history), contents, on_conflict)
    result = plan.result.model_copy(update={"dry_run": dry_run})
    if dry_run or not (plan.edits or plan.artifacts):
        return result
    with database.transaction():

        def detail() -> dict[str, Any]:
            return {
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

        operation = history.bring(plan.edits, plan.joining, detail, **how)
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
    """What the store that imports knows about the edits of a bundle."""

    def __init__(self, database: Database, history: History) -> None:
        self._db = database
        self.history = history

    def requests(self, edit_ids: Sequence[str]) -> dict[str, str]:
        """Returns those that are here, and the digests of their requests."""
        return dict(
            self._db.query(
                "SELECT edit_id, request_digest FROM edits WHERE edit_id IN (SELECT unnest(?))",
                [list(edit_ids)],
            )
        )

    def with_keys(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Returns id and target of the edits that came with idempotency keys, by these."""
        rows = self._db.query(
            "SELECT e.idempotency_key, e.edit_id, e.target FROM edits e "
            "JOIN operations o ON o.seq = e.seq "
            "WHERE o.changed AND e.idempotency_key IN (SELECT unnest(?)) ORDER BY e.ordinal",
            [list(keys)],
        )
        return {key: (edit_id, target) for key, edit_id, target in rows}

    def active(self, prompts: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Returns id and target of the active edits of prompts, by the prompts' digests."""
        active = self.history.active_ids(self.history.current())
        rows = self._db.query(
            "SELECT prompt_digest, edit_id, target FROM edits "
            "WHERE prompt_digest IN (SELECT unnest(?)) AND edit_id IN (SELECT unnest(?))",
            [list(prompts), active],
        )
        return {prompt: (edit_id, target) for prompt, edit_id, target in rows}

    def learned(self, edit_ids: Sequence[str]) -> set[tuple[str, str]]:
        """Returns which edits were tried on which models."""
        rows = self._db.query(
            "SELECT edit_id, fingerprint FROM artifacts WHERE edit_id IN (SELECT unnest(?))",
            [list(edit_ids)],
        )
        return {(str(edit_id), str(model)) for edit_id, model in rows}

    def place(self, fingerprint: str) -> tuple[bool, Any]:
        """Returns whether a model has learned anything here, and where it learned the newest."""
        newest = Artifacts(self._db).newest(fingerprint, method="grace")
        return newest is not None, None if newest is None else _place(newest[1])


def _planned(here: _Here, contents: Contents, on_conflict: OnConflict) -> _Plan:
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
    artifacts, elsewhere = _wanted(here, contents, {*known, *(edit.id for edit in edits)})
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
        version=format_version(last.version + (1 if edits else 0)),
        view=last.active_count + len(active) - replaced,
        edits=tuple(edit.id for edit in edits),
        active=tuple(edit.id for edit in edits if edit.id in active),
        known=tuple(edit.id for edit in contents.edits if edit.id in known),
        kept=tuple(clashes) if is_kept else (),
        superseded=() if is_kept else tuple(clashes),
        same_key=tuple(same_key),
        artifacts=len(artifacts),
        models=tuple(sorted({one.fingerprint for one in artifacts})),
        elsewhere=elsewhere,
        learned=learned,
    )
    return _Plan(edits, joining, artifacts, result)


def _known(here: _Here, contents: Contents) -> set[str]:
    """Returns the edits that are here already.

    Raises:
        ImportConflict: One has the id of another edit.
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
    """Returns the edits that join the view, those active then, and those at odds with ours.

    The newest edit of a prompt decides for the older ones beneath it: where it stays out, or is
    here already, an older one must not become active in its place.
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
    """Returns the artifacts to bring, and how many are left out for the place they belong to.

    All that a model learned has to be at one module: with another one among them, the history
    could not be opened. And which rows meet those of ours nobody knows yet: null has it found out.
    """
    learned = here.learned(sorted(edit_ids))
    places: dict[str, tuple[bool, Any]] = {}
    wanted: list[BundledArtifact] = []
    elsewhere = 0
    for one in contents.artifacts:
        if one.edit_id not in edit_ids or (one.edit_id, one.fingerprint) in learned:
            continue
        if one.fingerprint not in places:
            places[one.fingerprint] = here.place(one.fingerprint)
        has_ours, ours = places[one.fingerprint]
        if has_ours and one.digest is not None and one.method == "grace":
            if _place(contents.reader.read(tensor_file(one.digest))) != ours:
                elsewhere += 1
                continue
            one = one.model_copy(update={"conflicts": None})
        wanted.append(one)
    return wanted, elsewhere


def _place(payload: bytes) -> tuple[Any, ...] | None:
    """Returns what a GRACE payload's edits share, the module first; None for other bytes."""
    try:
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        about = json.loads(header["__metadata__"]["editkit"])
        return about["site"], about["position"], about.get("format")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
