"""A history without a server: the methods of ``Remote``, over the store's own file.

The store is open as short as can be: one writer keeps everybody else out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from editkit_cli.server.told import Logged
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.records import (
    Compacted,
    Initialized,
    Provenance,
    Shown,
    Status,
    Table,
    Tagged,
    Verified,
    ViewChanged,
)
from editkit_store.records.comparisons import CodebookPlot, Diff

if TYPE_CHECKING:
    from editkit.models.progress import Progress
    from editkit_store import Store

__all__ = ["Local"]


class Reverts(Protocol):
    """What can take an edit back that shares its weights: a running model."""

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """See ``Kit.revert``."""


def _opened(path: Path | str, *, write: bool = False, create: bool = False) -> Store:
    # Here, because it loads DuckDB: a command that finds a server does without.
    from editkit_store import open_store

    return open_store(path, write=write, create=create)


class Local:
    """The history in a file. Loads no model, but to take back an edit of ELDER.

    Args:
        store: Path of the store.
        provenance: What is written down with every change.
        model: Opens the running model, where one is needed.
    """

    def __init__(self, store: Path, *, provenance: Provenance, model: Callable[[], Any]) -> None:
        self._path = store
        self._provenance = provenance
        self._model = model

    def begin(self, model: str | None) -> Initialized:
        """Makes the store where there is none, and remembers a model, if one is given."""
        with _opened(self._path, write=True, create=True) as store:
            if model is not None:
                store.remember(model=model)
            return Initialized(
                store=str(self._path), model=store.setting("model"), version=store.version()
            )

    def logged(self, *, limit: int | None = None, at: str | None = None) -> Logged:
        """Returns the log, and what its table shows beside it."""
        with self._reading() as store:
            tags = [name for name, number in store.history.tags().items() if number == 0]
            return Logged(
                entries=tuple(store.log(limit=limit, at=at)),
                version=store.version(),
                first_tags=tuple(tags),
            )

    def look(self, *versions: str) -> None:
        """Refuses a missing or unreadable store, or an unknown version."""
        with self._reading() as store:
            for version in versions:
                store.history.resolve(version)

    def fingerprint(self) -> str | None:
        """Returns which model the store remembers, if there is a store."""
        if not self._path.exists():
            return None
        with self._reading() as store:
            return store.setting("fingerprint")

    def show(self, name: str) -> Shown:
        """Returns a version in full; see ``Store.show``."""
        with self._reading() as store:
            return store.show(name)

    def status(self) -> Status:
        """Returns where the store stands."""
        with self._reading() as store:
            return store.status()

    def diff(self, before: str, after: str) -> Diff:
        """Returns what changed between two versions."""
        with self._reading() as store:
            # Names are checked first: they need no numpy, the comparison of artifacts does.
            for name in (before, after):
                store.history.resolve(name)
            from editkit.history import diff as compare

            return compare.diff(store, before, after)

    def rollback(self, version: str) -> ViewChanged:
        """Makes the edits of an older version the active ones."""
        with self._writing() as store:
            return store.rollback(version, provenance=self._provenance)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """Takes one edit back; loads the model where later edits are to be learned again."""
        with self._reading() as store:
            # Deferring needs no model; but an older edit that comes back must be in the weights.
            asks = store.brings_back_mixed if defer_only else store.takes_learning
            learns = asks(edit_id)
        if learns:
            with self._model() as kit:
                able: Reverts = kit
                return able.revert(edit_id, defer_only=defer_only, progress=progress)
        with self._writing() as store:
            return store.revert(edit_id, provenance=self._provenance)

    def undo(self) -> ViewChanged:
        """Takes the last change back."""
        with self._writing() as store:
            return store.undo(provenance=self._provenance)

    def redo(self) -> ViewChanged:
        """Takes the last undo back."""
        with self._writing() as store:
            return store.redo(provenance=self._provenance)

    def tag(self, version: str, name: str) -> Tagged:
        """Names a version."""
        with self._writing() as store:
            return store.tag(version, name, provenance=self._provenance)

    def verify(self, *, head: str | None = None) -> Verified:
        """Derives every digest anew; see ``Store.verify``."""
        with self._reading() as store:
            return store.verify(head=head)

    def sql(self, query: str) -> Table:
        """Answers a query in SQL; see ``Store.sql``."""
        with self._reading() as store:
            return store.sql(query)

    def compact(self) -> Compacted:
        """Makes the file smaller."""
        with self._writing() as store:
            return store.compact()

    def export(
        self, path: str, *, to: str = "@", since: str | None = None, only: str | None = None
    ) -> Exported:
        """Writes edits into a new folder; see ``Store.export``."""
        tool = self._provenance.tool or "editkit"
        with self._reading() as store:
            return store.export(path, to=to, since=since, only=only, tool=tool)

    def import_bundle(
        self, path: str, *, on_conflict: OnConflict = "keep", dry_run: bool = False
    ) -> Imported:
        """Brings the edits of a bundle; see ``Store.import_bundle``."""
        with self._receiving(path, dry_run=dry_run) as store:

            def compare(learned: Mapping[str, Sequence[str]]) -> Any:
                from editkit.methods.conflicts import find_conflicts  # loads numpy

                return find_conflicts(store, learned)

            return store.import_bundle(
                path, on_conflict=on_conflict, dry_run=dry_run, provenance=self._provenance,
                compare=compare,
            )  # fmt: skip

    def plot(self, path: Path, *, version: str) -> CodebookPlot:
        """Draws the codebook to a file; see ``plot_codebook``."""
        from editkit.methods.grace.plot import plot_codebook

        with self._reading() as store:
            return plot_codebook(store, path, version=version)

    @contextmanager
    def _reading(self) -> Iterator[Store]:
        with _opened(self._path) as store:
            yield store

    @contextmanager
    def _writing(self) -> Iterator[Store]:
        with _opened(self._path, write=True) as store:
            yield store

    def _receiving(self, folder: str, *, dry_run: bool) -> Store:
        """The store; made where there is none, but not for a dry run or a refused bundle."""
        if self._path.exists():
            return _opened(self._path, write=not dry_run)
        empty = _opened(":memory:", write=True, create=True)
        if dry_run:
            return empty
        with empty:
            empty.import_bundle(folder, dry_run=True)
        return _opened(self._path, write=True, create=True)
