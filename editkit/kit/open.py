"""``editkit.open``: from a path and a model to a kit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from editkit.config import PresetName, ScopeName
from editkit.engines.load import load_engine
from editkit.history.views import Views
from editkit.kit.kit import Kit
from editkit.kit.running import RunningModel
from editkit.kit.scoping import judge_name, reader_of
from editkit.methods.opened import Methods
from editkit.models.aliases import DEFAULT_MODEL
from editkit.models.load import ModelSpec
from editkit.models.progress import Progress
from editkit_store import Store, open_store
from editkit_store.records import Provenance

__all__ = ["open"]


def open(  # noqa: A001  (deliberate: editkit.open, like gzip.open)
    store: str | os.PathLike[str] | Store = "history.db",
    *,
    model: ModelSpec | None = None,
    preset: PresetName = "default",
    methods: Mapping[str, Any] | None = None,
    judge: str | None = None,
    scope: ScopeName | None = None,
    read_only: bool = False,
    missing: Literal["error", "skip"] = "error",
    dtype: Any = None,
    device: Any = None,
    trust_remote_code: bool = False,
    allow_pickle: bool | None = None,
    provenance: Provenance | None = None,
    progress: Progress | None = None,
    **arguments: Any,
) -> Kit:
    """Returns a running model with the history at ``store``, its current edits in place.

    Args:
        store: Path of the DuckDB file, which is created if it does not exist; or an open store,
            which the kit does not close: to run another model on the same history.
        model: Alias, hub id, folder, GGUF file, or a loaded ``(model, tokenizer)``; by default the
            model that the store remembers, else ``smollm2-135m``.
        preset: ``default``, or ``paper`` for the published constants.
        methods: Settings of editing methods on top of the preset, by the method's name: e.g.
            ``{"grace": {"scope": "strict"}, "elder": {"top_k": 1, "train": {"steps": 20}}}``.
        judge: What decides whether a prompt asks for an edit: ``encoder``, a trained judge over a
            small encoder; ``none``, each method's own keys. By default what the history has, else
            ``encoder``, and ``none`` with the preset ``paper``.
        scope: How far edits reach that do not say so themselves: ``strict``, ``balanced`` or
            ``broad``. By default what the history has, else ``balanced``.
        read_only: Share the store with other readers; nothing can be added. If the file does not
            exist, the history is empty and no file is created.
        missing: What to do about edits that this model has not learned: ``error`` refuses to open
            (an unedited answer would be silently wrong), ``skip`` omits them until ``replay``.
        dtype: Precision of a model loaded by name; see ``load_model``.
        device: Device of a model loaded by name.
        trust_remote_code: Run Python code that ships with a model loaded by name.
        allow_pickle: Read pickled weights of a model loaded by name, or of the sentence encoder,
            if there are no safetensors; see ``load_model``.
        provenance: Recorded with every operation.
        progress: Reports fetching and loading.
        **arguments: Settings of a method under its name, ``grace={...}`` for
            ``methods={"grace": {...}}``; and ``train={...}`` for those of ELDER's training.

    Raises:
        UnknownModel, ModelUnavailable, UnsupportedModel, UnknownSite: The model cannot be used.
        InvalidRequest: There is no such judge.
        UnsupportedMethod, TypeError, ValueError: Settings of an unknown method, or invalid ones.
        NotAStore, StoreDamaged, StoreLocked, SchemaMismatch, StoreUnwritable: The store cannot be
            used.
        ArtifactsMissing: See ``missing``.
    """
    given = store if isinstance(store, Store) else None
    path = store.path if isinstance(store, Store) else Path(store)
    opened = given or _open_existing(path, read_only)
    engine = None
    try:
        spec = model or (opened.setting("model") if opened else None) or DEFAULT_MODEL
        engine = load_engine(
            spec,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            progress=progress,
        )
        # Created only after the model has loaded: a mistyped name leaves no file behind.
        opened = opened or open_store(":memory:" if read_only else path, write=True, create=True)
        decides = judge_name(judge, opened, preset)
        known = Methods(
            engine, opened, methods or {}, arguments, preset=preset, allow_pickle=allow_pickle
        )
        engine.reader = reader_of(decides, engine, opened, _scope(scope, opened, known))
        views = Views(opened, engine, known, skip_missing=missing == "skip")
        running = RunningModel(
            opened, engine, known, views, _provenance(provenance), _remembered_name(spec), decides
        )
        running.follow()
        views.warn_of_unusable(opened.history.current())
        return Kit(running, keeps_store=given is not None)
    except BaseException:
        if engine is not None:
            engine.close()
        if opened is not None and given is None:
            opened.close()
        raise


def _open_existing(path: Path, read_only: bool) -> Store | None:
    """Opens the store file if it exists: its errors should not wait for the model to load."""
    return open_store(path, write=not read_only) if os.path.exists(path) else None


def _scope(given: ScopeName | None, store: Store, methods: Methods) -> ScopeName:
    """Returns how far edits reach by default."""
    chosen = given or store.setting("scope")
    for name in get_args(ScopeName):
        if name == chosen:
            return cast("ScopeName", name)
    return next((one.scope for one in methods if one.scope is not None), "balanced")


def _provenance(given: Provenance | None) -> Provenance:
    from editkit import __version__

    given = given or Provenance()
    return given.model_copy(update={"tool": given.tool or f"editkit {__version__}"})


def _remembered_name(spec: Any) -> str | None:
    """Returns the name by which another process can load the same model, if there is one."""
    if not isinstance(spec, str | os.PathLike):
        return None
    path = Path(spec).expanduser()
    return str(path.resolve()) if path.exists() else str(spec)
