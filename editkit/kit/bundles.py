"""Bundles: exporting edits with their artifacts from a history, and importing them into one."""

from __future__ import annotations

import os

from editkit.errors import ArtifactsMissing
from editkit.kit.running import RunningModel
from editkit.methods.conflicts import find_conflicts
from editkit_store.bundle.records import Exported, Imported, OnConflict

__all__ = ["Bundles"]


class Bundles:
    """Exports from and imports into the history of a running model; see ``Kit``.

    Args:
        running: The running model.
    """

    def __init__(self, running: RunningModel) -> None:
        self._running = running

    def export_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        to: str = "@",
        since: str | None = None,
        only: str | None = None,
    ) -> Exported:
        """Writes edits and their artifacts to a new folder; see ``Store.export``."""
        running = self._running
        with running.writing:
            tool = running.provenance.tool or "editkit"
            return running.store.export(path, to=to, since=since, only=only, tool=tool)

    def import_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: OnConflict = "keep",
        dry_run: bool = False,
    ) -> Imported:
        """Imports the edits of a bundle into the history; see ``Kit.import_bundle``."""
        running = self._running
        with running.writing:
            try:
                result = running.store.import_bundle(
                    path,
                    on_conflict=on_conflict,
                    dry_run=dry_run,
                    provenance=running.provenance,
                    compare=lambda learned: find_conflicts(running.store, learned),
                    before_commit=self._check_import,
                )
            except BaseException:
                running.views.reload()  # they may hold what was rolled back
                raise
            running.follow()
        return result

    def _check_import(self) -> None:
        """Loads the imported version before the commit: if the model cannot, the import fails."""
        self._running.views.reload()
        try:
            self._running.view("@")
        except ArtifactsMissing as error:
            error.hint = (
                "nothing was imported. `editkit import` needs no model, and `editkit replay` then "
                "learns them; or editkit.open(..., missing='skip'), import_bundle, replay"
            )
            raise
