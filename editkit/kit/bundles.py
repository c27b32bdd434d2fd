"""The part of a kit that takes edits out of its history as a bundle, and brings others' in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from editkit.engines.transformers.attachment import Attachment
from editkit.errors import ArtifactsMissing
from editkit.history.views import Views
from editkit.methods.grace.restore import find_conflicts
from editkit_store import Store
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.records import Provenance

__all__ = ["BundleMethods"]


class BundleMethods:
    """Methods of ``Kit``; the attributes are the kit's."""

    store: Store
    fingerprint: str
    provenance: Provenance
    _views: Views
    _attachment: Attachment
    _writing: AbstractContextManager[Any]
    _prepare: Callable[[], None]

    def export_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        to: str = "@",
        since: str | None = None,
        only: str | None = None,
    ) -> Exported:
        """Writes edits and what they became into a new folder; see ``Store.export``."""
        with self._writing:
            tool = self.provenance.tool or "editkit"
            return self.store.export(path, to=to, since=since, only=only, tool=tool)

    def import_bundle(
        self,
        path: str | os.PathLike[str],
        *,
        on_conflict: OnConflict = "keep",
        dry_run: bool = False,
    ) -> Imported:
        """Brings the edits of a bundle into the history and onto the running model.

        Args:
            path: The bundle's folder.
            on_conflict: Where an active edit of ours corrects the same prompt: ``keep`` it active,
                let the imported one ``supersede`` it, or ``error``.
            dry_run: Only say what would happen.

        Raises:
            BundleNotFound, BundleTooNew, BundleDamaged, ImportConflict: As the store does.
            InvalidRecord: An artifact in it cannot be read.
            ArtifactsMissing: This model has not learned all of its edits, and the kit was opened to
                miss none (``missing="error"``).
            Nothing was imported then.
        """
        with self._writing:
            try:
                result = self.store.import_bundle(
                    path,
                    on_conflict=on_conflict,
                    dry_run=dry_run,
                    provenance=self.provenance,
                    compare=functools.partial(find_conflicts, self.store),
                    before_commit=self._check_import,
                )
            except BaseException:
                self._views.reload()  # it may have read what was then taken back
                self._prepare()
                raise
            self._attachment.view = self._views.at(self.store.history.current())
        return result

    def _check_import(self) -> None:
        """Reads what was written, so that an import that this model cannot follow is none."""
        self._views.reload()
        self._prepare()
        try:
            self._views.at(self.store.history.current())
        except ArtifactsMissing as error:
            error.hint = (
                "nothing was imported. `editkit import` needs no model, and `editkit replay` then "
                "learns them; or editkit.open(..., missing='skip'), import_bundle, replay"
            )
            raise
