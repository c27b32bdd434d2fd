"""Flips bytes and looks what editkit makes of it: `python -m faults.damage KIND ORIGINAL FOLDER`.

One JSON line on stdin is one byte to flip, one on stdout what came of it. Each is tried on a fresh
copy; a byte that kills or hangs this process is known to the one that asked.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import append
from faults.harness import at_version, everything

from editkit_store import Store, digest_bytes, open_store
from editkit_store.digest import digest_json
from editkit_store.errors import EditkitError


class Finding(Exception):
    """How a trial ended, before its end."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.detail = detail


def flip(path: Path, at: int, mask: int) -> None:
    """Changes one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ mask]))


# Stores --------------------------------------------------------------------------------------


class OfStore:
    """Trials on a store file, opened to read or to write."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = original
        self._folder = folder
        self._count = 0
        with open_store(original) as store:
            self._expected = everything(store)

    def tried(self, asked: dict[str, Any]) -> dict[str, str]:
        """Flips a byte of a copy and uses it."""
        self._count += 1  # a new name each time: DuckDB keeps what it knows of a file by its name
        copy = self._folder / f"{self._count}.db"
        shutil.copyfile(self._original, copy)
        flip(copy, asked["at"], asked["mask"])
        try:
            return self._used(copy, write=asked["write"])
        finally:
            for name in (copy, copy.with_name(copy.name + ".wal")):
                name.unlink(missing_ok=True)

    def _used(self, copy: Path, *, write: bool) -> dict[str, str]:
        try:
            store = open_store(copy, write=write)
        except EditkitError as error:
            return {"outcome": "refused", "detail": type(error).__name__}
        try:
            found = store.verify()
            if not found.ok:
                self._look_around(store)
                return {"outcome": "found", "detail": found.problems[0].kind}
            self._compare(store, "after verify said that all is well")
            if write:
                append(store, "afterwards", "all is well")
        except EditkitError as error:
            return {"outcome": "late", "detail": f"{type(error).__name__}: {error}"}
        finally:
            self._close(store)
        if write:
            self._check_written(copy)
        return {"outcome": "harmless", "detail": "read and written" if write else "read"}

    def _compare(self, store: Store, when: str) -> None:
        seen = everything(store)
        if seen != self._expected:
            differ = {
                n for n in seen.keys() | self._expected if seen.get(n) != self._expected.get(n)
            }
            raise Finding("wrong", f"{when}, these differ: {sorted(differ)}")

    def _look_around(self, store: Store) -> None:
        """Reads what there is: wrong answers are excused now, tracebacks are not."""
        for look in (store.log, store.status, lambda: everything(store)):
            with contextlib.suppress(EditkitError):
                look()

    def _close(self, store: Store) -> None:
        with contextlib.suppress(EditkitError):
            store.close()

    def _check_written(self, copy: Path) -> None:
        """What was written to a store that verified is a store that verifies."""
        try:
            with open_store(copy) as store:
                found = store.verify()
                if not found.ok:
                    raise Finding("wrong", f"after writing: {found.problems[:3]}")
                for version in range(store.history.current()):
                    if digest_json(at_version(store, version)) != self._expected[f"v{version}"]:
                        raise Finding("wrong", f"after writing, v{version} differs")
        except EditkitError as error:
            raise Finding("wrong", f"after writing: {type(error).__name__}: {error}") from error


class OfLog:
    """Trials on the write-ahead log that a killed process left beside a store."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._original = original
        self._folder = folder
        self._count = 0
        self._copy()
        with open_store(self._place) as store:
            self._digests = [one.digest for one in store.history.operations()[::-1]]
            current = store.history.current()
            self._views = [digest_json(at_version(store, v)) for v in range(current + 1)]

    @property
    def _place(self) -> Path:
        return self._folder / f"{self._count}.db"

    def _copy(self) -> Path:
        self._count += 1
        log = self._place.with_name(self._place.name + ".wal")
        shutil.copyfile(self._original, self._place)
        shutil.copyfile(self._original.with_name(self._original.name + ".wal"), log)
        return log

    def tried(self, asked: dict[str, Any]) -> dict[str, str]:
        """Flips a byte of the log beside a copy, and opens the copy."""
        log = self._copy()
        flip(log, asked["at"], asked["mask"])
        try:
            return self._used()
        finally:
            for name in (self._place, log):
                name.unlink(missing_ok=True)

    def _used(self) -> dict[str, str]:
        try:
            with open_store(self._place) as store:
                found = store.verify()
                if not found.ok:
                    return {"outcome": "found", "detail": found.problems[0].kind}
                digests = [one.digest for one in store.history.operations()[::-1]]
                current = store.history.current()
                views = [digest_json(at_version(store, v)) for v in range(current + 1)]
        except EditkitError as error:
            return {"outcome": "refused", "detail": type(error).__name__}
        if (digests, views) == (self._digests, self._views):
            return {"outcome": "harmless", "detail": ""}
        # A beginning of the history, whole in itself.
        if digests == self._digests[: len(digests)] and views == self._views[: len(views)]:
            lost = len(self._digests) - len(digests)
            return {"outcome": "shortened", "detail": f"{lost} operations lost, unnoticed"}
        return {"outcome": "wrong", "detail": f"{len(digests)} operations, other than before"}


# Bundles -------------------------------------------------------------------------------------


class OfBundle:
    """Trials on the files of a bundle: flipped in place, imported, and flipped back."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._bundle = folder / "bundle"
        shutil.copytree(original, self._bundle)
        self._store = self._fresh()
        with self._fresh() as whole:
            whole.import_bundle(self._bundle)
            self._expected = _brought(whole)

    def _fresh(self) -> Store:
        return open_store(":memory:", write=True, create=True)

    def tried(self, asked: dict[str, Any]) -> dict[str, str]:
        """Flips a byte of one file and imports the bundle into an empty history."""
        path = self._bundle / asked["file"]
        flip(path, asked["at"], asked["mask"])
        try:
            self._store.import_bundle(self._bundle)
        except EditkitError as error:
            if self._store.history.count() or _brought(self._store)[0]:
                raise Finding("wrong", f"refused ({error}), but not all of it") from error
            return {"outcome": "refused", "detail": type(error).__name__}
        finally:
            flip(path, asked["at"], asked["mask"])
        with self._store as store:
            self._store = self._fresh()
            if not (found := store.verify()).ok:
                return {"outcome": "found", "detail": found.problems[0].kind}
            if _brought(store) != self._expected:
                raise Finding("wrong", "other edits were imported than exported")
        return {"outcome": "harmless", "detail": "what was imported is what was exported"}


def _brought(store: Store) -> tuple[list[Any], list[Any], list[str]]:
    """What an import brings: edits, artifacts, and the digests of the tensors' bytes."""
    ids = [str(row[0]) for row in store._db.query("SELECT edit_id FROM edits ORDER BY ordinal")]
    edits = store.history.edits(ids, at=store.history.current())
    return (
        [edits[edit_id].model_dump(mode="json") for edit_id in ids],
        [one.model_dump(mode="json") for i in ids for one in store.artifacts.of_edit(i)],
        sorted(digest_bytes(row[0]) for row in store._db.query("SELECT bytes FROM payloads")),
    )


KINDS: dict[str, Callable[[Path, Path], OfStore | OfLog | OfBundle]] = {
    "store": OfStore,
    "log": OfLog,
    "bundle": OfBundle,
}


def main(kind: str, original: str, folder: str) -> None:
    """Tries what stdin asks for, until it ends."""
    trials = KINDS[kind](Path(original), Path(folder))
    for line in sys.stdin:
        try:
            answer = trials.tried(json.loads(line))
        except Finding as found:
            answer = {"outcome": found.outcome, "detail": found.detail}
        except BaseException as error:
            said = "".join(traceback.format_exception(error))
            answer = {"outcome": "traceback", "detail": said}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
