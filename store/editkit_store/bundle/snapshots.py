"""Snapshots in a bundle: the weights that its edits share, at the exported version.

One line of `snapshots.jsonl` for each snapshot, and one file with the raw bytes of each tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from editkit_store.artifacts.snapshots import ITEMS, Snapshot, Snapshots, Tensor
from editkit_store.bundle.folder import SNAPSHOTS, Reader, Writer, adaptor_file
from editkit_store.bundle.records import BundledSnapshot, TensorLine
from editkit_store.database.connection import Database
from editkit_store.digest import digest_bytes, digest_json

__all__ = ["Bundled", "read_snapshots", "write_snapshots"]


class Bundled(NamedTuple):
    """Snapshots of a bundle.

    Attributes:
        found: Snapshots by owner; see ``NewEdit.shared_by``.
        files: The files of their tensors.
    """

    found: dict[str, Snapshot]
    files: set[str]


def write_snapshots(
    database: Database, writer: Writer, edit_ids: Sequence[str], version: int
) -> bool:
    """Writes the weights that some of the edits share with others.

    Returns:
        Whether there are any.

    Raises:
        StoreDamaged: A snapshot cannot be read.
    """
    rows = database.query(
        "SELECT DISTINCT coalesce(json_extract_string(metrics, '$.shared_by'), fingerprint) "
        "FROM artifacts WHERE usable AND json_extract_string(metrics, '$.snapshot') IS NOT NULL "
        "AND edit_id IN (SELECT unnest(?))",
        [list(edit_ids)],
    )
    owners = {str(row[0]) for row in rows}
    snapshots = Snapshots(database)
    # From operations in the exported log, which omits a later replay of an older version.
    found = database.query(
        "SELECT s.fingerprint, s.digest FROM snapshot_versions s JOIN operations o USING (seq) "
        "WHERE o.version <= ? QUALIFY row_number() OVER "
        "(PARTITION BY s.fingerprint ORDER BY s.version DESC, s.seq DESC) = 1",
        [version],
    )
    placed = {str(owner): str(digest) for owner, digest in found if digest and owner in owners}
    lines = []
    for owner, digest in sorted(placed.items()):
        snapshot = snapshots.get(digest)
        tensors = {}
        for name, (dtype, shape, data) in snapshot.tensors.items():
            one = digest_bytes(data)
            tensors[name] = [dtype, list(shape), one]
            if adaptor_file(one) not in writer.files:
                writer.put(adaptor_file(one), [data])
        lines.append(
            {"fingerprint": owner, "digest": digest, "settings": dict(snapshot.settings),
             "tensors": tensors}
        )  # fmt: skip
    if lines:
        writer.lines(SNAPSHOTS, lines)
    return bool(lines)


def read_snapshots(reader: Reader, placed: Mapping[str, str | None]) -> Bundled:
    """Returns the snapshots of a bundle, with every tensor checked against its digest.

    Args:
        reader: Reads its files.
        placed: The digests in the log at the bundle's version, by owner.

    Raises:
        BundleDamaged: They are not as an export wrote them.
    """
    found: dict[str, Snapshot] = {}
    files: set[str] = set()
    if SNAPSHOTS not in reader.manifest.files:
        return Bundled(found, files)
    for line, plain in reader.records(SNAPSHOTS, BundledSnapshot):
        name = f"the snapshot of {line.fingerprint}"
        if line.fingerprint in found:
            raise reader.damaged(SNAPSHOTS, f"has {name} twice")
        if placed.get(line.fingerprint) != line.digest:
            raise reader.damaged(SNAPSHOTS, f"has {name}, but its log gives another one")
        manifest = {"settings": plain["settings"], "tensors": plain["tensors"]}
        if digest_json(manifest) != line.digest:
            raise reader.damaged(SNAPSHOTS, f"has {name} with another digest than its own")
        tensors = {one: _tensor(reader, one, about) for one, about in line.tensors.items()}
        files.update(adaptor_file(about[2]) for about in line.tensors.values())
        found[line.fingerprint] = Snapshot(plain["settings"], tensors)
    return Bundled(found, files)


def _tensor(reader: Reader, name: str, about: TensorLine) -> Tensor:
    dtype, shape, digest = about
    file = adaptor_file(digest)
    if file not in reader.manifest.files:
        raise reader.damaged(file, "is missing")
    data = reader.read(file)
    count = 1
    for length in shape:
        count *= length
    if digest_bytes(data) != digest or dtype not in ITEMS or len(data) != count * ITEMS[dtype]:
        raise reader.damaged(file, f"is not the tensor '{name}' that the snapshot has")
    return Tensor(dtype, tuple(shape), data)
