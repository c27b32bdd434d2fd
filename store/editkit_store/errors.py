"""The errors of the store, and the root of all errors of editkit.

EditkitError
├── StoreError                  the file
│   ├── StoreNotFound           no file at that path
│   ├── StoreExists             asked to create, but the path exists
│   ├── NotAStore               not DuckDB, or DuckDB without editkit's tables
│   ├── StoreDamaged            checksums or structure are invalid
│   ├── StoreLocked             another process holds it
│   ├── StoreUnwritable         full disk, read-only file or folder
│   │   └── OutputUnwritable    likewise, for an output file
│   ├── StoreGone               removed or replaced while it was open
│   ├── StoreChanged            written to by another process while it was open
│   ├── UnsafeTarget            asked to write an output over a store
│   └── SchemaMismatch          written by a newer (or not yet migrated older) editkit
├── HistoryError                requests to the history
│   ├── UnknownVersion          no such version or tag
│   ├── UnknownEdit             no such edit id
│   ├── AmbiguousId             an id prefix that several edits share
│   ├── NotActive               the edit is not part of the current view
│   ├── InvalidTag              a name that cannot be a tag
│   ├── ImportConflict          edits of a bundle conflict with those in the store
│   └── NothingToUndo           the end of the undo (or redo) chain
├── BundleError                 the folder to export to, or to import from
│   ├── BundleNotFound          no bundle at that path
│   ├── BundleExists            asked to export, but the path exists
│   ├── BundleUnwritable        full disk, missing permission
│   ├── BundleTooNew            made by a newer editkit
│   └── BundleDamaged           altered, incomplete, or not a bundle
├── QueryFailed                 a query that cannot be answered
│   └── QueryStopped            a query that timed out or was cancelled
├── InvalidRequest              an edit request that cannot be carried out
└── InvalidRecord               a stored record that does not parse

The errors of models are in ``editkit.errors``. The root is here, in the lowest layer, so that the
command line can catch all of them without importing torch.
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
    """Root of all errors that editkit raises deliberately.

    Attributes:
        code: Stable, machine-readable name of the error class; servers and agents match on it.
        hint: What to do next, or ``None``.
    """

    code: str = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(EditkitError):
    """The store file cannot be used as requested."""

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
    """Another process wrote to the file of an open store."""

    code = "store_changed"


class UnsafeTarget(StoreError):
    """An output would overwrite a store, or a file that belongs to one."""

    code = "unsafe_target"


class StoreExists(StoreError):
    """The path where a store should be created already exists."""

    code = "store_exists"


class NotAStore(StoreError):
    """The file is not a DuckDB file, or was not created by editkit."""

    code = "not_a_store"


class StoreDamaged(StoreError):
    """The file is a store, but its contents are corrupt."""

    code = "store_damaged"


class StoreLocked(StoreError):
    """Another process holds the store open.

    Attributes:
        pid: Process id of the holder, if the operating system reports it.
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
    """An output file, such as a page, a plot or a table, cannot be written."""


class SchemaMismatch(StoreError):
    """The store's schema is newer than this editkit, or older and the store was opened read-only.

    Attributes:
        found: Schema version in the file.
        supported: Newest schema version that this editkit supports.
    """

    code = "schema_mismatch"

    def __init__(
        self, message: str, *, path: Path | str, found: int, supported: int, hint: str | None = None
    ) -> None:
        super().__init__(message, path=path, hint=hint)
        self.found = found
        self.supported = supported


class HistoryError(EditkitError):
    """The history does not contain what was requested."""

    code = "history"


class UnknownVersion(HistoryError):
    """No version, tag or version expression of that name.

    Attributes:
        text: The expression.
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
        matches: Ids with that prefix, at most ten.
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
    """A name that cannot be a tag."""

    code = "invalid_tag"


class ImportConflict(HistoryError):
    """Edits of a bundle conflict with those in the store, and nothing was imported.

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
    """A bundle cannot be exported or read as requested.

    Attributes:
        path: Folder of the bundle.
    """

    code = "bundle"

    def __init__(self, message: str, *, path: Path | str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = Path(path)


class BundleNotFound(BundleError):
    """There is no bundle at that path."""

    code = "bundle_not_found"


class BundleExists(BundleError):
    """The path where a bundle should be exported already exists."""

    code = "bundle_exists"


class BundleUnwritable(BundleError):
    """The bundle cannot be written: full disk, missing permission, no such folder."""

    code = "bundle_unwritable"


class BundleTooNew(BundleError):
    """The bundle has a format that only a newer editkit reads."""

    code = "bundle_too_new"


class BundleDamaged(BundleError):
    """The bundle is not as an export wrote it; nothing was imported.

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
        field: Name of the offending field of the request, if there is one.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class QueryFailed(EditkitError):
    """A user's query that cannot be answered."""

    code = "query_failed"


class QueryStopped(QueryFailed):
    """A query that was stopped before it finished."""

    code = "query_stopped"


class InvalidRecord(EditkitError):
    """A stored record that this editkit cannot read."""

    code = "invalid_record"
