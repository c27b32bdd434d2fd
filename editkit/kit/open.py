"""``editkit.open``: from a path and a model to a kit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from editkit.config import GraceConfig, PresetName, TrainConfig
from editkit.engines.transformers.site import default_site, find_site
from editkit.kit import Kit
from editkit.methods.elder.shape import ElderShape
from editkit.methods.grace.restore import learned_encoder, learned_place
from editkit.models.aliases import DEFAULT_MODEL
from editkit.models.load import ModelSpec, load_model
from editkit.models.progress import Progress
from editkit_store import Store, open_store
from editkit_store.records import Provenance

if TYPE_CHECKING:  # it loads PEFT
    from editkit.methods.elder.config import ElderConfig

__all__ = ["open"]


def open(  # noqa: A001  (the name that design and users want: editkit.open, like gzip.open)
    store: str | os.PathLike[str] | Store = "history.db",
    *,
    model: ModelSpec | None = None,
    preset: PresetName = "default",
    grace: GraceConfig | Mapping[str, Any] | None = None,
    elder: ElderConfig | Mapping[str, Any] | None = None,
    train: TrainConfig | Mapping[str, Any] | None = None,
    read_only: bool = False,
    missing: Literal["error", "skip"] = "error",
    dtype: Any = None,
    device: Any = None,
    trust_remote_code: bool = False,
    allow_pickle: bool | None = None,
    provenance: Provenance | None = None,
    progress: Progress | None = None,
) -> Kit:
    """Returns a running model with the history at ``store``, its current edits in place.

    Args:
        store: Path of the DuckDB file; made when there is none. Or a store that is open already,
            which the kit leaves open: for another model beside one that runs.
        model: Alias, hub id, folder, GGUF file, or a loaded ``(model, tokenizer)``; by default what
            the store remembers, else ``smollm2-135m``.
        preset: ``default``, or ``paper`` for the published constants.
        grace: Settings of GRACE on top of the preset.
        elder: Likewise the shape of ELDER's adaptors; those that a history has keep theirs.
        train: Likewise how they learn.
        read_only: Share the store with other readers; nothing can be added. Without a file the
            history is empty and none is made.
        missing: Edits of the history that this model has not learned: ``error`` refuses to open
            (an unedited answer would be silently wrong), ``skip`` leaves them out until ``replay``.
        dtype: Precision of a model loaded by name; see ``load_model``.
        device: Where to put a model loaded by name.
        trust_remote_code: Run Python code that came with a model loaded by name.
        allow_pickle: Read pickled weights of a model loaded by name, or of the sentence encoder,
            where there are no safetensors; see ``load_model``.
        provenance: Written down with every operation.
        progress: Told about fetching and loading.

    Raises:
        UnknownModel, ModelUnavailable, UnsupportedModel, UnknownSite: The model's side.
        NotAStore, StoreDamaged, StoreLocked, SchemaMismatch, StoreUnwritable: The store's side.
        ArtifactsMissing: See ``missing``.
    """
    given = store if isinstance(store, Store) else None
    path = store.path if isinstance(store, Store) else Path(store)
    opened = given or _existing(path, read_only)
    try:
        spec = model or (opened.setting("model") if opened else None) or DEFAULT_MODEL
        loaded = load_model(
            spec,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            progress=progress,
        )
        config = _placed(_config(preset, grace), _asked_for(grace), opened, loaded.fingerprint)
        site = (
            find_site(loaded.model, config.site)
            if config.site
            else default_site(loaded.model, preset=preset)
        )
        # A store is made only once the model is there: a mistyped name leaves no file behind.
        opened = opened or open_store(":memory:" if read_only else path, write=True, create=True)
        return Kit(
            opened,
            loaded,
            site=site,
            config=config,
            elder=ElderShape(preset, elder),
            train=_training(preset, train),
            remembered=_remembered_name(spec),
            skip_missing=missing == "skip",
            keeps_store=given is not None,
            allow_pickle=allow_pickle,
            provenance=_provenance(provenance),
        )
    except BaseException:
        if opened is not None and given is None:
            opened.close()
        raise


def _existing(path: Path, read_only: bool) -> Store | None:
    """Opens the file first where there is one: its errors should not wait for a model to load."""
    return open_store(path, write=not read_only) if os.path.exists(path) else None


def _config(preset: PresetName, changes: GraceConfig | Mapping[str, Any] | None) -> GraceConfig:
    if isinstance(changes, GraceConfig):
        return changes
    return GraceConfig.of(preset, **(changes or {}))


def _training(preset: PresetName, changes: TrainConfig | Mapping[str, Any] | None) -> TrainConfig:
    if isinstance(changes, TrainConfig):
        return changes
    return TrainConfig.of(preset, **(changes or {}))


def _asked_for(changes: GraceConfig | Mapping[str, Any] | None) -> set[str]:
    if isinstance(changes, GraceConfig):
        return changes.model_fields_set
    return set(changes or {})


def _placed(
    config: GraceConfig, asked: set[str], store: Store | None, fingerprint: str
) -> GraceConfig:
    """Returns the settings with the site that the history was learned at, unless one was asked for.

    All edits of a model share one site. A preset or a newer editkit may choose another by itself;
    the edits that are there would then be out of reach.
    """
    place = None if store is None else learned_place(store, fingerprint)
    if place is None:
        return config
    known = {"site": place[0], "position": place[1], "key": place[2].partition(":")[0]}
    if known["key"] == "sentence" and store is not None:
        known["sentence_encoder"] = learned_encoder(store, fingerprint) or config.sentence_encoder
    return config.model_copy(update={n: v for n, v in known.items() if n not in asked})


def _provenance(given: Provenance | None) -> Provenance:
    from editkit import __version__

    given = given or Provenance()
    return given.model_copy(update={"tool": given.tool or f"editkit {__version__}"})


def _remembered_name(spec: Any) -> str | None:
    """Returns the name by which a later process can load the same model, if there is one."""
    if not isinstance(spec, str | os.PathLike):
        return None
    path = Path(spec).expanduser()
    return str(path.resolve()) if path.exists() else str(spec)
