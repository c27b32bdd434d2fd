"""A running model with its history: the state that the parts of a kit share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from editkit.config import JudgeName
from editkit.engines.base import Engine, View
from editkit.history.views import Views
from editkit.methods.opened import Methods
from editkit_store import Store
from editkit_store.errors import StoreError
from editkit_store.history.versions import format_version
from editkit_store.records import Provenance

__all__ = ["RunningModel"]


@dataclass
class RunningModel:
    """A running model with its history.

    Attributes:
        store: The open history.
        engine: The running model.
        methods: Its methods.
        views: Its views of the history.
        provenance: Recorded with every operation.
        remembered: Name by which another process can load the model, if there is one.
        judge: What decides whether a prompt asks for an edit.
        writing: Lock held while the history or the model changes.
    """

    store: Store
    engine: Engine
    methods: Methods
    views: Views
    provenance: Provenance
    remembered: str | None
    judge: JudgeName
    writing: threading.RLock = field(default_factory=threading.RLock)

    def view(self, version: str | None) -> View:
        """Returns the view of a version, or the running model's current view for ``None``.

        Raises:
            UnknownVersion: No such version.
            ArtifactsMissing: The version holds edits that this model has not learned.
        """
        if version is None:
            return self.engine.view
        return self.views.at(self.store.history.resolve(version))

    def follow(self, *, like: View | None = None) -> None:
        """Moves the running model to the current version.

        Args:
            like: A view of another version with the same edits, to reuse.
        """
        self.engine.view = self.views.at(self.store.history.current(), like=like)

    @property
    def version(self) -> str:
        """Name of the current version of the history."""
        return format_version(self.store.history.current())

    def settings(self) -> dict[str, str]:
        """Returns the settings of this model that the store does not hold yet."""
        model = self.store.setting("model")
        wanted = {}
        if model is None and self.remembered is not None:
            wanted["model"] = self.remembered
        if model in (None, self.remembered) and self.store.setting("fingerprint") is None:
            wanted["fingerprint"] = self.engine.fingerprint
        if self.store.setting("judge") is None:
            wanted["judge"] = self.judge
        return wanted

    def refuse_closed(self) -> None:
        """Raises if the kit was closed.

        Raises:
            StoreError: The kit was closed, and its edits were removed from the model.
        """
        if not self.engine.is_open:
            raise StoreError(
                f"the kit on '{self.store.path}' is closed, so its edits no longer apply",
                path=self.store.path,
                hint="open it again with editkit.open",
            )
