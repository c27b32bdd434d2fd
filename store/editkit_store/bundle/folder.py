"""The folder of a bundle: written atomically, and read as untrusted input.

    manifest.json                        what is in the bundle, one canonical JSON object
    edits.jsonl                          edits, oldest first, one canonical JSON object per line
    artifacts.jsonl                      their artifacts, likewise
    operations.jsonl                     the log that the edits come from, likewise
    tensors/<64 hex digits>.safetensors  tensors, by the SHA-256 of the file
    snapshots.jsonl                      weights that edits share, one canonical JSON object each
    adaptors/<64 hex digits>.bin         their tensors, by the SHA-256 of the file

The manifest has length and SHA-256 of every other file; the folder may contain nothing else.
Bundles are untrusted: links and devices are not opened, no name leads out of the folder, and any
problem with a file raises a ``BundleDamaged`` that names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from editkit_store.bundle.records import BundledFile, Manifest
from editkit_store.database.files import sync
from editkit_store.database.outputs import refuse_store
from editkit_store.digest import canonical_json, digest_bytes
from editkit_store.errors import (
    BundleDamaged,
    BundleExists,
    BundleNotFound,
    BundleTooNew,
    BundleUnwritable,
)
from editkit_store.records import Record

__all__ = [
    "ADJUSTED_FORMAT",
    "ARTIFACTS",
    "EDITS",
    "FORMAT",
    "MANIFEST",
    "MIXED_FORMAT",
    "OPERATIONS",
    "SNAPSHOTS",
    "Reader",
    "Writer",
    "adaptor_file",
    "is_tensor_file",
    "new_folder",
    "tensor_file",
]

FORMAT = "editkit.bundle.1"

MIXED_FORMAT = "editkit.bundle.2"
"""Format of a bundle with snapshots; one without has the first, which every editkit reads."""

ADJUSTED_FORMAT = "editkit.bundle.3"
"""Format of a bundle whose log holds adjustments, with or without snapshots."""

_FORMATS = (FORMAT, MIXED_FORMAT, ADJUSTED_FORMAT)

MANIFEST = "manifest.json"
EDITS = "edits.jsonl"
ARTIFACTS = "artifacts.jsonl"
OPERATIONS = "operations.jsonl"
SNAPSHOTS = "snapshots.jsonl"
TENSORS = "tensors"
ADAPTORS = "adaptors"

MAX_MANIFEST = 1 << 28
"""Bytes; room for the tensors of two million edits."""

_LINES = (EDITS, ARTIFACTS, OPERATIONS)
_TENSOR = re.compile(rf"{TENSORS}/[0-9a-f]{{64}}\.safetensors")
_ADAPTOR = re.compile(rf"{ADAPTORS}/[0-9a-f]{{64}}\.bin")
_FORMAT = re.compile(r"editkit\.bundle\.([1-9][0-9]{0,8})")

RecordT = TypeVar("RecordT", bound=Record)


def tensor_file(digest: str) -> str:
    """Returns the file of a tensor, relative to the folder."""
    return f"{TENSORS}/{digest.removeprefix('sha256:')}.safetensors"


def is_tensor_file(name: str) -> bool:
    """Returns whether a file is a tensor of an artifact."""
    return _TENSOR.fullmatch(name) is not None


def adaptor_file(digest: str) -> str:
    """Returns the file of a snapshot's tensor, relative to the folder."""
    return f"{ADAPTORS}/{digest.removeprefix('sha256:')}.bin"


# Writing -------------------------------------------------------------------------------------


class Writer:
    """Writes the files of a bundle and collects their entries for the manifest.

    Attributes:
        files: Length and SHA-256 of the files written, by name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, BundledFile] = {}

    def put(self, name: str, parts: Iterable[bytes]) -> None:
        """Writes a file."""
        path = self._folder / name
        if "/" in name:
            path.parent.mkdir(exist_ok=True)
        digest, length = hashlib.sha256(), 0
        with path.open("xb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
                length += len(part)
        self.files[name] = BundledFile(bytes=length, sha256=digest.hexdigest())

    def lines(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Writes a file with one record per line."""
        self.put(name, ((canonical_json(record) + "\n").encode() for record in records))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Writer]:
    """Yields a writer whose files are in a new folder ``path`` when the block ends.

    They are written to a temporary folder next to it and synced; the folder is then renamed.

    Raises:
        BundleExists: The path exists and is not an empty folder.
        BundleUnwritable: No permission, no space, or no parent folder.
        UnsafeTarget: The path is a store, or belongs to one.
    """
    target = Path(os.path.realpath(path))
    refuse_store(path)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise _occupied(path)
    temporary = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        try:
            yield Writer(temporary)
            _sync(temporary)
            os.rename(temporary, target)
            sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if target.is_dir() and any(target.iterdir()):  # another process created it first
            raise _occupied(path) from error
        raise BundleUnwritable(
            f"the bundle '{path}' cannot be written: {error.strerror or error}",
            path=path,
            hint="name another folder; the one above it must exist",
        ) from error


def _occupied(path: Path) -> BundleExists:
    return BundleExists(
        f"'{path}' exists already and is not an empty folder",
        path=path,
        hint="name a new folder; an export never writes into an old one",
    )


def _sync(folder: Path) -> None:
    """Syncs everything below a folder, names last.

    All files are written before the first sync, so that they share one journal commit.
    """
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(place) / name)
        sync(Path(place))


# Reading -------------------------------------------------------------------------------------


class Reader:
    """Reads the files of a bundle, and checks the length and digest of everything it returns.

    Args:
        path: The folder.

    Attributes:
        manifest: The manifest.
        digest: Digest of the manifest.

    Raises:
        BundleNotFound: There is no folder, or no manifest in it.
        BundleTooNew: It was exported by a newer editkit.
        BundleDamaged: The manifest cannot be parsed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise BundleNotFound(
                f"there is no folder '{path}'",
                path=path,
                hint="`editkit export DIR` creates a bundle",
            )
        if not os.path.lexists(path / MANIFEST):
            raise BundleNotFound(f"'{path}' is not a bundle: it has no {MANIFEST}", path=path)
        data = self._bytes(MANIFEST, None)
        self.digest = digest_bytes(data)
        self.manifest = self._manifest(data)

    def damaged(self, file: str, message: str) -> BundleDamaged:
        """Returns an error about a file."""
        return BundleDamaged(
            f"the bundle '{self.path}' is damaged: {file} {message}",
            path=self.path,
            file=file,
            hint="export it again, or copy it again; nothing was imported",
        )

    def check_names(self) -> None:
        """Compares the files in the folder with those that the manifest lists.

        Raises:
            BundleDamaged: A file is missing, or does not belong there.
        """
        listed = self.manifest.files
        is_mixed = self.manifest.format == MIXED_FORMAT or (
            self.manifest.format == ADJUSTED_FORMAT and SNAPSHOTS in listed
        )
        wanted = (*_LINES, SNAPSHOTS) if is_mixed else _LINES
        for name in wanted:
            if name not in listed:
                raise self.damaged(MANIFEST, f"does not list {name}")
        for name in sorted(listed):
            is_adaptor = is_mixed and _ADAPTOR.fullmatch(name) is not None
            if name not in wanted and not is_tensor_file(name) and not is_adaptor:
                raise self.damaged(MANIFEST, f"lists '{_shown(name)}', which no bundle has")
        found = set(self._found())
        for name in sorted(found - {MANIFEST, *listed}):
            raise self.damaged(_shown(name), "does not belong to it")
        for name in sorted(listed.keys() - found):
            raise self.damaged(name, "is missing")

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file that the manifest lists.

        Raises:
            BundleDamaged: They are not the exported ones.
        """
        entry = self.manifest.files[name]
        data = self._bytes(name, entry.bytes)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise self.damaged(name, "does not have the SHA-256 that the manifest gives")
        return data

    def records(self, name: str, kind: type[RecordT]) -> Iterator[tuple[RecordT, dict[str, Any]]]:
        """Yields the lines of a file, as records and as the plain data that they were parsed from.

        Raises:
            BundleDamaged: A line is not canonical JSON, or not a record of that kind.
        """
        data = self.read(name)
        if data and not data.endswith(b"\n"):
            raise self.damaged(name, "does not end with a newline")
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            where = f"{name}, line {number},"
            plain = self._plain(where, line)
            yield self._record(where, line, kind), plain

    def _manifest(self, data: bytes) -> Manifest:
        if not data.endswith(b"\n"):
            raise self.damaged(MANIFEST, "does not end with a newline")
        plain = self._plain(MANIFEST, data[:-1])
        named = plain.get("format")
        found = _FORMAT.fullmatch(named) if isinstance(named, str) else None
        if found is None:
            raise self.damaged(MANIFEST, "names no format of a bundle")
        if named not in _FORMATS:
            known = ", ".join(f"'{one}'" for one in _FORMATS)
            raise BundleTooNew(
                f"the bundle '{self.path}' has format '{named}'; this editkit reads {known}",
                path=self.path,
                hint="upgrade editkit; nothing was imported",
            )
        return self._record(MANIFEST, data[:-1], Manifest)

    def _plain(self, where: str, line: bytes) -> dict[str, Any]:
        """Parses a line; raises if it is not an object in canonical JSON.

        So every bundle has a unique form: no duplicate keys, no NaN, no numbers that another parser
        might read differently.
        """
        try:
            text = line.decode("utf-8")
            plain = json.loads(text)
            if not isinstance(plain, dict) or canonical_json(plain) != text:
                raise ValueError("not written as an export writes it")
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise self.damaged(where, f"is not canonical JSON: {_reason(error)}") from error
        return plain

    def _record(self, where: str, line: bytes, kind: type[RecordT]) -> RecordT:
        try:
            return kind.model_validate_json(line, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise self.damaged(
                where, f"does not read: {_shown(place)}: {_shown(first['msg'])}"
            ) from error

    def _bytes(self, name: str, length: int | None) -> bytes:
        """Returns the bytes of a regular file, after checking its length."""
        try:
            # Non-blocking, and not through links: opening a pipe would block forever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(self.path / name, flags), "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise self.damaged(name, "is not a plain file")
                if length is None and found.st_size > MAX_MANIFEST:
                    raise self.damaged(name, f"has {found.st_size} bytes, too many to be one")
                if length is not None and found.st_size != length:
                    raise self.damaged(name, f"has {found.st_size} bytes instead of {length}")
                return file.read(found.st_size)
        except OSError as error:
            raise self.damaged(name, f"cannot be read: {error.strerror}") from error
        except MemoryError as error:
            raise self.damaged(name, "is larger than the memory") from error

    def _found(self) -> Iterator[str]:
        """Yields the names of all files in the folder; raises for what no export writes."""
        try:
            for folder in ("", TENSORS, ADAPTORS):
                place = self.path / folder
                if folder and not place.exists():
                    continue
                with os.scandir(place) as entries:
                    for entry in entries:
                        name = f"{folder}/{entry.name}" if folder else entry.name
                        if entry.is_symlink():
                            raise self.damaged(_shown(name), "is a link, and a bundle has none")
                        if entry.is_file(follow_symlinks=False):
                            yield name
                        elif name not in (TENSORS, ADAPTORS):
                            raise self.damaged(_shown(name), "does not belong to it")
        except OSError as error:
            raise self.damaged(str(error.filename), f"cannot be read: {error.strerror}") from error


def _shown(text: str) -> str:
    """Returns untrusted text in a form that is safe to quote in an error."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= 100 else clean[:99] + "…"


def _reason(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, RecursionError | MemoryError):
        return "nested too deeply"
    return _shown(str(error))
