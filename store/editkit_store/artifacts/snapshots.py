"""Snapshots: the weights that edits of a method share, at each version of the history.

A snapshot is a set of named tensors, and settings. Its *manifest* contains the digest of every
tensor, so the digest of the manifest identifies the snapshot, and a tensor that two snapshots share
is stored once. A changed tensor is stored as a delta to one that is stored in full (see
``deltas``), unless that saves little; so no tensor needs more than one other, however long the
history is.

Each snapshot belongs to an *owner*: the key under which a method stores the weights that its edits
share on one model, by default the model's fingerprint (see ``NewEdit.shared_by``). Rows of
``snapshot_versions`` record which operation changed an owner's weights to which snapshot. The
newest row up to a version applies to that version; one without a digest means that nothing is
learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from editkit_store.artifacts.deltas import packed, unpacked
from editkit_store.database.connection import Database
from editkit_store.digest import canonical_json, digest_bytes
from editkit_store.errors import StoreDamaged

__all__ = [
    "ITEMS",
    "Placed",
    "Snapshot",
    "Snapshots",
    "Tensor",
    "digest_of",
    "read_manifest",
    "restored",
]

ITEMS = {"U8": 1, "I16": 2, "F16": 2, "BF16": 2, "F32": 4, "I64": 8}
"""Bytes of an item of each dtype; the names are those of safetensors."""

_WORTH = 0.8
"""Maximum size of a stored delta, as a fraction of the full tensor."""


class Tensor(NamedTuple):
    """One tensor: little-endian items in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Snapshot(NamedTuple):
    """The weights that edits share.

    Attributes:
        settings: Plain data: everything that is not a tensor.
        tensors: By name.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Placed(NamedTuple):
    """A change of an owner's weights.

    Attributes:
        version: First version with these weights.
        seq: The operation.
        digest: The snapshot; None if nothing is learned.
    """

    version: int
    seq: int
    digest: str | None


class Snapshots:
    """Reads and writes snapshots. Writing happens inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, snapshot: Snapshot, *, like: str | None = None) -> str:
        """Stores a snapshot; returns its digest.

        Args:
            snapshot: What to store.
            like: An earlier snapshot with probably similar tensors, as a base for deltas.

        Raises:
            ValueError: The length of a tensor does not match its dtype and shape.
        """
        manifest = _manifest(snapshot)
        text = canonical_json(manifest)
        digest = digest_bytes(text.encode())
        if self._db.one("SELECT 1 FROM snapshots WHERE digest = ?", [digest]) is not None:
            return digest
        wanted = {
            said[2]: (said[0], snapshot.tensors[name].data, name)
            for name, said in manifest["tensors"].items()
        }
        for known in self._known(list(wanted)):
            del wanted[known]
        bases = self._bases(like, [name for _, _, name in wanted.values()])
        rows = [
            _row(one, data, ITEMS[dtype], bases.get(name))
            for one, (dtype, data, name) in wanted.items()
        ]
        self._db.insert("tensors", rows)
        self._db.insert("snapshots", [[digest, text]])
        return digest

    def place(self, owner: str, digest: str | None, *, version: int, seq: int) -> None:
        """Records the snapshot that an owner has from a version on."""
        self._db.insert("snapshot_versions", [[owner, version, seq, digest]])

    def placed(self, owner: str) -> list[Placed]:
        """Returns all changes of an owner's weights; the last one of a version applies."""
        rows = self._db.query(
            "SELECT version, seq, digest FROM snapshot_versions WHERE fingerprint = ? "
            "ORDER BY version, seq",
            [owner],
        )
        return [Placed(int(version), int(seq), digest) for version, seq, digest in rows]

    def at(self, version: int) -> dict[str, str | None]:
        """Returns the digest of each owner's snapshot at a version, by owner.

        Owners that had learned nothing by then are included, with None.
        """
        if self._db.one("SELECT 1 FROM snapshot_versions LIMIT 1") is None:
            return {}  # most histories have none, and planning the query takes five times as long
        rows = self._db.query(
            "SELECT fingerprint, CASE WHEN version <= $at THEN digest END FROM snapshot_versions "
            "QUALIFY row_number() OVER (PARTITION BY fingerprint "
            "ORDER BY version <= $at DESC, version DESC, seq DESC) = 1",
            {"at": version},
        )
        return {str(owner): digest for owner, digest in rows}

    def get(self, digest: str, *, only: Sequence[str] | None = None) -> Snapshot:
        """Returns a snapshot; every tensor is checked against its digest.

        Args:
            digest: Digest of the snapshot.
            only: Names of the tensors to read; by default all.

        Raises:
            StoreDamaged: The snapshot or a tensor is missing or was altered; the message names it.
        """
        manifest = self._read(digest)
        said = manifest["tensors"]
        names = list(said) if only is None else [name for name in only if name in said]
        found = self._tensors([said[name][2] for name in names])
        tensors = {}
        for name in names:
            dtype, shape, wanted = said[name]
            tensors[name] = Tensor(dtype, tuple(shape), found[wanted])
        return Snapshot(manifest["settings"], tensors)

    def digests(self, digest: str) -> dict[str, str]:
        """Returns the digests of a snapshot's tensors, by name.

        Raises:
            StoreDamaged: The snapshot is missing or was altered.
        """
        return {name: said[2] for name, said in self._read(digest)["tensors"].items()}

    def _read(self, digest: str) -> dict[str, Any]:
        row = self._db.one("SELECT manifest FROM snapshots WHERE digest = ?", [digest])
        if row is None:
            raise self._damaged(f"snapshot '{digest}' is missing")
        try:
            return read_manifest(digest, row[0])
        except ValueError as error:
            raise self._damaged(f"snapshot '{digest}' {error}") from error

    def _known(self, digests: Sequence[str]) -> list[str]:
        rows = self._db.query(
            "SELECT digest FROM tensors WHERE digest IN (SELECT unnest(?))", [list(digests)]
        )
        return [str(row[0]) for row in rows]

    def _bases(self, like: str | None, names: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        """Returns tensors that are stored in full, as bases for deltas."""
        if like is None:
            return {}
        theirs = self.digests(like)
        asked = {name: theirs[name] for name in names if name in theirs}
        rows = self._db.query(
            "SELECT digest, coalesce(base, digest) FROM tensors WHERE digest IN (SELECT unnest(?))",
            [list(asked.values())],
        )
        whole = {str(digest): str(base) for digest, base in rows}
        found = self._tensors(list(whole.values()))
        return {
            name: (whole[digest], found[whole[digest]])
            for name, digest in asked.items()
            if digest in whole
        }

    def _tensors(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Returns tensors by digest."""
        rows = self._stored(digests)
        bases = {base for _, base, _, _ in rows.values() if base is not None}
        rows |= self._stored([base for base in bases if base not in rows])
        found: dict[str, bytes] = {}
        # Whole tensors first.
        for digest, (size, base, length, data) in sorted(
            rows.items(), key=lambda row: row[1][1] is not None
        ):
            under = b"" if base is None else found.get(base)
            try:
                if under is None:
                    raise ValueError(f"needs the tensor '{base}', which is missing")
                found[digest] = restored(digest, data, under, size, length)
            except ValueError as error:
                raise self._damaged(f"tensor '{digest}' {error}") from error
        for digest in digests:
            if digest not in found:
                raise self._damaged(f"tensor '{digest}' is missing")
        return {digest: found[digest] for digest in digests}

    def _stored(self, digests: Sequence[str]) -> dict[str, tuple[int, str | None, int, bytes]]:
        rows = self._db.query(
            "SELECT digest, item, base, length, bytes FROM tensors "
            "WHERE digest IN (SELECT unnest(?))",
            [list(digests)],
        )
        return {digest: (item, base, length, data) for digest, item, base, length, data in rows}

    def _damaged(self, message: str) -> StoreDamaged:
        return StoreDamaged(message, path=self._db.path, hint="restore the file from a copy")


def digest_of(snapshot: Snapshot) -> str:
    """Returns the digest that a snapshot is stored under.

    Raises:
        ValueError: The length of a tensor does not match its dtype and shape.
    """
    return digest_bytes(canonical_json(_manifest(snapshot)).encode())


def read_manifest(digest: str, text: str) -> dict[str, Any]:
    """Returns a manifest, checked against its digest.

    Raises:
        ValueError: It was altered.
    """
    if digest_bytes(text.encode("utf-8", errors="surrogatepass")) != digest:
        raise ValueError("does not match its digest")
    found: dict[str, Any] = json.loads(text)
    return found


def restored(digest: str, data: bytes, base: bytes, size: int, length: int) -> bytes:
    """Returns a tensor from its stored form, checked against its digest.

    Raises:
        ValueError: It is not the tensor of that digest.
    """
    found = unpacked(data, base, size, length)
    if digest_bytes(found) != digest:
        raise ValueError("does not match its digest")
    return found


def _manifest(snapshot: Snapshot) -> dict[str, Any]:
    tensors = {}
    for name, (dtype, shape, data) in snapshot.tensors.items():
        count = 1
        for length in shape:
            count *= length
        if dtype not in ITEMS or len(data) != count * ITEMS[dtype]:
            raise ValueError(f"tensor '{name}' is not {dtype} of shape {shape}")
        tensors[name] = [dtype, list(shape), digest_bytes(data)]
    return {"settings": dict(snapshot.settings), "tensors": tensors}


def _row(digest: str, data: bytes, size: int, base: tuple[str, bytes] | None) -> list[object]:
    whole = packed(data, b"", size)
    if base is not None:
        change = packed(data, base[1], size)
        if len(change) <= _WORTH * len(whole):
            return [digest, base[0], size, len(data), change]
    return [digest, None, size, len(data), whole]
