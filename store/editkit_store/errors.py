"""Every error that a caller of editkit can meet from the store, and the root of all of them.

EditkitError
├── StoreError                  the file
│   ├── StoreNotFound           no file at that path
│   ├── StoreExists             asked to create, something is there
│   ├── NotAStore               not DuckDB, or DuckDB without our tables
│   ├── StoreDamaged            checksums or structure do not hold
│   ├── StoreLocked             another process holds it
│   ├── StoreUnwritable         full disk, read-only file or folder
│   │   └── OutputUnwritable    likewise, of a file with results
│   ├── StoreGone               removed or replaced while it was open
│   ├── StoreChanged            written to by somebody else while it was open
│   ├── UnsafeTarget            asked to write a result over a store
│   └── SchemaMismatch          written by a newer (or not yet migrated older) editkit
├── HistoryError                what was asked of the history
│   ├── UnknownVersion          no such version or tag
│   ├── UnknownEdit             no such edit id
│   ├── AmbiguousId             an id prefix that several edits share
│   ├── NotActive               the edit is not part of the current view
│   ├── InvalidTag              a name that cannot be a tag
│   ├── ImportConflict          edits of a bundle are at odds with those here
│   └── NothingToUndo           the end of the undo (or redo) chain
├── BundleError                 the folder to export to, or to import from
│   ├── BundleNotFound          no bundle there
│   ├── BundleExists            asked to make one, something is there
│   ├── BundleUnwritable        full disk, missing permission
│   ├── BundleTooNew            made by a newer editkit
│   └── BundleDamaged           altered, incomplete, or never a bundle
├── QueryFailed                 a query that the store does not answer
│   └── QueryStopped            one that took too long, or that nobody waited for
├── InvalidRequest              an edit request that cannot be carried out
└── InvalidRecord               a stored record that does not parse

The model side adds its own branch in ``editkit.errors``. The root lives here, in the lowest layer,
so that the command line can catch everything without importing torch.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "AmbiguousId",
    "BundleDamaged",
    "BundleError",
    "BundleExists",
    "BundleNotFound",
    "BundleTooNew",
    "BundleUnwritable",
    "EditkitError",
    "HistoryError",
    "ImportConflict",
    "InvalidRecord",
    "InvalidRequest",
    "InvalidTag",
    "NotAStore",
    "NotActive",
    "NothingToUndo",
    "OutputUnwritable",
    "QueryFailed",
    "QueryStopped",
    "SchemaMismatch",
    "StoreChanged",
    "StoreDamaged",
    "StoreError",
    "StoreExists",
    "StoreGone",
    "StoreLocked",
    "StoreNotFound",
    "StoreUnwritable",
    "UnknownEdit",
    "UnknownVersion",
    "UnsafeTarget",
]


class EditkitError(Exception):
    """Root of every error that editkit raises on purpose.

    Attributes:
        code: Stable, machine-readable name of the error class; servers and agents match on it.
        hint: What to do next, or ``None``.
    """

    code: str = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(EditkitError):
    """The store file cannot be used as asked."""

    code = "store"

    def __init__(self, message: str, *, path: Path | str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = Path(path)


class StoreNotFound(StoreError):
    """No store at that path."""

    code = "store_not_found"


class StoreGone(StoreError):
    """The file of an open store was removed or replaced."""

    code = "store_gone"


class StoreChanged(StoreError):
    """The file of an open store was written to by somebody else."""

    code = "store_changed"


class UnsafeTarget(StoreError):
    """A result was to be written over a store, or over a file that belongs to one."""

    code = "unsafe_target"


class StoreExists(StoreError):
    """Something is already at the path where a store should be created."""

    code = "store_exists"


class NotAStore(StoreError):
    """The file is not a DuckDB file, or not one that editkit made."""

    code = "not_a_store"


class StoreDamaged(StoreError):
    """The file is a store, but its bytes do not hold together."""

    code = "store_damaged"


class StoreLocked(StoreError):
    """Another process holds the store open.

    Attributes:
        pid: Process id of the holder, where the operating system tells it.
    """

    code = "store_locked"

    def __init__(
        self, message: str, *, path: Path | str, pid: int | None, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.pid = pid


class StoreUnwritable(StoreError):
    """The store cannot be written: full disk, missing permission, read-only file."""

    code = "store_unwritable"


class OutputUnwritable(StoreUnwritable):
    """A page, a picture or a table cannot be written where its caller wanted it."""


class SchemaMismatch(StoreError):
    """The store's schema is newer than this editkit, or older and opened for reading only.

    Attributes:
        found: Schema version in the file.
        supported: Newest schema version this editkit knows.
    """

    code = "schema_mismatch"

    def __init__(
        self, message: str, *, path: Path | str, found: int, supported: int, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.found = found
        self.supported = supported


class HistoryError(EditkitError):
    """The history does not hold what was asked for."""

    code = "history"


class UnknownVersion(HistoryError):
    """No version, tag or version expression of that name.

    Attributes:
        text: What was asked for.
        current: Newest version in the store.
    """

    code = "unknown_version"

    def __init__(self, message: str, *, text: str, current: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.current = current


class UnknownEdit(HistoryError):
    """No edit with that id or id prefix."""

    code = "unknown_edit"

    def __init__(self, message: str, *, text: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text


class AmbiguousId(HistoryError):
    """Several edits share the prefix.

    Attributes:
        matches: The ids that begin with it (at most ten).
    """

    code = "ambiguous_id"

    def __init__(
        self, message: str, *, text: str, matches: tuple[str, ...], hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.matches = matches


class NotActive(HistoryError):
    """The edit exists but is not part of the current view."""

    code = "not_active"

    def __init__(self, message: str, *, edit_id: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.edit_id = edit_id


class InvalidTag(HistoryError):
    """A name that cannot serve as a tag."""

    code = "invalid_tag"


class ImportConflict(HistoryError):
    """Edits of a bundle are at odds with those here, and nothing was imported.

    Attributes:
        edit_ids: Ids of the bundle's edits.
    """

    code = "import_conflict"

    def __init__(self, message: str, *, edit_ids: tuple[str, ...], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.edit_ids = edit_ids


class NothingToUndo(HistoryError):
    """There is no further operation to undo, or no undo to redo."""

    code = "nothing_to_undo"


class BundleError(EditkitError):
    """A bundle cannot be made or read as asked.

    Attributes:
        path: Its folder.
    """

    code = "bundle"

    def __init__(self, message: str, *, path: Path | str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = Path(path)


class BundleNotFound(BundleError):
    """There is no bundle at that path."""

    code = "bundle_not_found"


class BundleExists(BundleError):
    """Something is already where a bundle should be made."""

    code = "bundle_exists"


class BundleUnwritable(BundleError):
    """The bundle cannot be written: full disk, missing permission, no such folder."""

    code = "bundle_unwritable"


class BundleTooNew(BundleError):
    """The bundle has a format that only a newer editkit reads."""

    code = "bundle_too_new"


class BundleDamaged(BundleError):
    """The bundle is not what an export wrote; nothing was imported.

    Attributes:
        file: The offending file, relative to the folder.
    """

    code = "bundle_damaged"

    def __init__(
        self, message: str, *, path: Path | str, file: str, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.file = file


class InvalidRequest(EditkitError):
    """An edit request that cannot be carried out: empty, too long, contradictory.

    Attributes:
        field: Name of the offending field of the request, where one is to blame.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class QueryFailed(EditkitError):
    """A query of somebody's own that the store does not answer."""

    code = "query_failed"


class QueryStopped(QueryFailed):
    """A query that was stopped before its end."""

    code = "query_stopped"


class InvalidRecord(EditkitError):
    """A stored record that this editkit cannot read."""

    code = "invalid_record"
