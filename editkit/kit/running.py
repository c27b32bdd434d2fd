"""A running model with its history: what the parts of a kit share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

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
        provenance: What is written down with every operation.
        remembered: Name by which another process can load the model, if there is one.
        writing: Held by whoever changes the history or the model; writers take turns.
    """

    store: Store
    engine: Engine
    methods: Methods
    views: Views
    provenance: Provenance
    remembered: str | None
    writing: threading.RLock = field(default_factory=threading.RLock)

    def view(self, version: str | None) -> View:
        """Returns the view of a version; of ``None`` the one that the running model follows.

        Raises:
            UnknownVersion: No such version.
            ArtifactsMissing: It holds edits this model has not learned.
        """
        if version is None:
            return self.engine.view
        return self.views.at(self.store.history.resolve(version))

    def follow(self, *, like: View | None = None) -> None:
        """Moves the running model on to the current version.

        Args:
            like: The view of another version with the same edits.
        """
        self.engine.view = self.views.at(self.store.history.current(), like=like)

    @property
    def version(self) -> str:
        """Name of the current version of the history."""
        return format_version(self.store.history.current())

    def settings(self) -> dict[str, str]:
        """Returns what the store does not remember yet and should."""
        model = self.store.setting("model")
        wanted = {}
        if model is None and self.remembered is not None:
            wanted["model"] = self.remembered
        if model in (None, self.remembered) and self.store.setting("fingerprint") is None:
            wanted["fingerprint"] = self.engine.fingerprint
        return wanted

    def refuse_closed(self) -> None:
        """Refuses to go on without the edits.

        Raises:
            StoreError: The kit was closed, and its edits are off the model.
        """
        if not self.engine.is_open:
            raise StoreError(
                f"the kit on '{self.store.path}' is closed, and its edits are off the model",
                path=self.store.path,
                hint="open it again with editkit.open",
            )
