"""Model files from the Hugging Face hub, or from its local cache.

huggingface_hub raises different exceptions for every kind of failure, and some of them change
between releases. This module translates all of them to one `HubRefusal`.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from .progress import Progress, watched
from .weights import PICKLED, only_pickled

__all__ = ["HubRefusal", "fetch_snapshot", "is_hub_id"]

PROBE_SECONDS = 5.0
"""Timeout after which the hub counts as unreachable."""

_SMALL_FILES = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
    "*.py",
    "LICENSE*",
    "NOTICE*",
)
# Repositories may contain the same weights in several formats, e.g. `consolidated.safetensors`.
_SAFETENSORS = "model*.safetensors"

Reason = Literal["offline", "gated", "missing", "pickle", "unusable"]


class HubRefusal(Exception):
    """The hub does not provide the model.

    Attributes:
        reason: `offline` (no answer), `gated` (answered, access denied), `missing` (no such
            repository, or a private one), `pickle` (has only pickled weights, which are refused) or
            `unusable` (has no weights that can be loaded).
        detail: Description of what happened.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def is_hub_id(name: str) -> bool:
    """Returns whether the name has the form of a hub repository: ``owner/name``.

    The hub allows neither ``..`` nor ``--`` in names; the cache uses the latter for the slash, so
    two repositories would otherwise share a folder.
    """
    shaped = re.fullmatch(r"\w[\w.\-]*/\w[\w.\-]*", name) is not None
    return shaped and ".." not in name and "--" not in name


def fetch_snapshot(
    hub_id: str,
    into: Path,
    *,
    name: str,
    progress: Progress,
    revision: str | None = None,
    allow_pickle: bool = False,
) -> str:
    """Puts a repository's config, tokenizer and weights into a folder; prefers safetensors.

    A complete copy in the hub's own cache folder is used without network access, so models that
    other tools fetched work offline. The files are hard-linked if possible, which takes no space
    and survives a clean-up of the hub's cache.

    Args:
        hub_id: ``owner/name``.
        into: Existing empty folder.
        name: The user's name of the model, for the progress.
        progress: Reports bytes.
        revision: The commit to fetch; by default the newest.
        allow_pickle: Whether to accept pickled weights if there are no safetensors.

    Returns:
        The commit that the files belong to.

    Raises:
        HubRefusal: The model cannot be fetched.
        OSError: The disk is full or not writable.
    """
    formats = (_SAFETENSORS, PICKLED) if allow_pickle else (_SAFETENSORS,)
    snapshot = _local_snapshot(hub_id, revision, formats)
    if snapshot is None:
        try:
            snapshot = _download(hub_id, revision, formats, name, progress)
        except HubRefusal as refusal:
            if refusal.reason == "offline" and _local_snapshot(hub_id, revision, (PICKLED,)):
                detail = f"the copy of {hub_id!r} on this disk has its weights pickled only"
                raise HubRefusal("pickle", f"{detail}, and {refusal.detail}") from refusal
            raise
    weights = _weights(_names(snapshot), formats)
    files = [file for file in snapshot.iterdir() if file.is_file() and _wanted(file.name, weights)]
    # All are checked before the first is linked: after an error another source fills the folder.
    places = [_inside(file, snapshot, hub_id) for file in files]
    for file, place in zip(files, places, strict=True):
        _link(place, into / file.name)
    return snapshot.name


def _inside(file: Path, snapshot: Path, hub_id: str) -> Path:
    """Returns the real path of a snapshot's file, which must be inside the hub's cache."""
    from huggingface_hub import constants

    place = file.resolve()
    repository = snapshot.resolve().parents[1]
    if not any(
        place.is_relative_to(p) for p in (repository, Path(constants.HF_HUB_CACHE).resolve())
    ):
        raise HubRefusal(
            "unusable", f"{file.name!r} in the hub's copy of {hub_id!r} is a link out of it"
        )
    return place


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _weights(names: Iterable[str], formats: Sequence[str]) -> str | None:
    """Returns the first pattern of weights that matches any of these files."""
    found = list(names)
    return next((pattern for pattern in formats if fnmatch.filter(found, pattern)), None)


def _wanted(name: str, weights: str | None) -> bool:
    patterns = (*_SMALL_FILES, weights) if weights else _SMALL_FILES
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _local_snapshot(hub_id: str, revision: str | None, formats: Sequence[str]) -> Path | None:
    """Returns a complete copy in the hub's cache folder, or ``None``."""
    from huggingface_hub import snapshot_download

    for weights in formats:
        try:
            folder = Path(
                snapshot_download(
                    hub_id,
                    revision=revision,
                    local_files_only=True,
                    allow_patterns=["config.json", weights],
                )
            )
        except (OSError, ValueError):
            continue  # absent, incomplete, or an invalid id: the hub's answer will tell
        names = _names(folder)
        if "config.json" in names and _shards_present(folder, names, weights):
            return folder
    return None


def _shards_present(folder: Path, names: list[str], weights: str) -> bool:
    """Returns whether all shards are present; older caches do not record completeness."""
    shards = fnmatch.filter(names, weights)
    counted = [re.fullmatch(r".*-\d+-of-0*(\d+)\.\w+", shard) for shard in shards]
    return bool(shards) and all(m is None or len(shards) >= int(m[1]) for m in counted)


def _download(
    hub_id: str, revision: str | None, formats: Sequence[str], name: str, progress: Progress
) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    from .quiet import quiet_hub

    try:
        # First a request with a short timeout: the download itself would retry for much longer.
        info: Any = HfApi().model_info(
            hub_id, revision=revision, timeout=PROBE_SECONDS, files_metadata=True
        )
        if re.fullmatch("[0-9a-f]{40}", info.sha or "") is None:
            # huggingface_hub would use it in folder names.
            raise HubRefusal("unusable", f"the hub names no commit of {hub_id!r}, but {info.sha!r}")
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        weights = _weights(sizes, formats)
        if weights is None or "config.json" not in sizes:
            raise _unusable(hub_id, sizes)
        chosen = [file for file in sizes if "/" not in file and _wanted(file, weights)]
        blobs = Path(constants.HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}" / "blobs"
        before = _folder_bytes(blobs)
        total = sum(sizes[file] for file in chosen)
        with (
            quiet_hub(),
            watched(
                progress,
                f"Downloading {name}",
                total=total,
                measure=lambda: _folder_bytes(blobs) - before,
            ),
        ):
            return Path(snapshot_download(hub_id, revision=revision, allow_patterns=chosen))
    except HubRefusal:
        raise
    except Exception as error:
        # huggingface_hub passes on exceptions of its HTTP library, which has changed between
        # releases; so the kind is determined from attributes and names, not from the class.
        raise _refusal(hub_id, error) from error


def _refusal(hub_id: str, error: Exception) -> Exception:
    """Translates a failed request; returns errors that do not concern the hub unchanged."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EACCES, errno.EROFS}:
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, GatedRepoError):
        return HubRefusal("gated", "the hub asks to accept the licence first")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return HubRefusal("missing", f"the hub has no public repository {hub_id!r}")
    if status == 401 and "Invalid credentials" not in str(error):
        # Without credentials the hub answers 401 for both missing and private repositories.
        return HubRefusal("missing", f"the hub has no public repository {hub_id!r}")
    if status in {401, 403}:
        return HubRefusal("gated", f"the hub denied access (HTTP {status})")
    if isinstance(error, OSError) or status is not None or _is_transport_error(error):
        return HubRefusal("offline", f"the hub did not answer: {first_line}")
    return error


def _is_transport_error(error: Exception) -> bool:
    return any(
        kind.__name__ in {"HTTPError", "RequestError", "TransportError", "XetDownloadError"}
        for kind in type(error).__mro__
    )


def _unusable(hub_id: str, names: Iterable[str]) -> HubRefusal:
    """Returns the reason why a repository cannot be used."""
    found = [name for name in names if "/" not in name]
    if "config.json" in found and fnmatch.filter(found, PICKLED):
        return HubRefusal("pickle", f"{hub_id!r} has its weights pickled only, not as safetensors")
    if fnmatch.filter(found, "*.gguf"):
        what = "GGUF files only; download one of them and pass its path as the model"
    elif "adapter_config.json" in found:
        what = "an adapter, not a whole model"
    elif "config.json" in found and (file := only_pickled(found)):
        what = f"no safetensors, only {file!r}, which cannot be loaded"
    else:
        what = "no config.json with safetensors or PyTorch weights"
    return HubRefusal("unusable", f"{hub_id!r} holds {what}")


def _folder_bytes(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:
        return 0  # not created yet, or a file was renamed meanwhile


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)  # another disk, or a file system without links
