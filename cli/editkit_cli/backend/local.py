"""This process as a backend: the store's own file, and a model that is loaded when it is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editkit_cli.backend.base import (
    AddConflict,
    AddFailure,
    Backend,
    OnAdded,
    OnContradiction,
    Turns,
)
from editkit_cli.service.schemas import LogPage
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.records import (
    DEFAULT_METHOD,
    Added,
    Adjusted,
    Compacted,
    Delivery,
    EditRequest,
    Explanation,
    Generation,
    Initialized,
    MethodName,
    Provenance,
    Replayed,
    ReplayPlan,
    Shown,
    Status,
    Table,
    Tagged,
    Verified,
    ViewChanged,
)
from editkit_store.records.comparisons import CodebookPlot, Diff

if TYPE_CHECKING:
    from editkit import Kit
    from editkit.models.progress import Progress
    from editkit_cli.backend.chat import ChatBackend
    from editkit_store import Store

__all__ = ["LocalBackend"]


def _open_store(path: Path | str, *, write: bool = False, create: bool = False) -> Store:
    # Imported here because it loads DuckDB, which a command that finds a server does without.
    from editkit_store import open_store

    return open_store(path, write=write, create=create)


class LocalBackend(Backend):
    """The history in a file, and the model of this process. A context manager.

    Without a running model the store is open for one verb at a time, and no longer: a writer keeps
    everybody else out. Once a verb needs the model, it is loaded, and stays with the store open
    until the end.

    Args:
        store: Path of the store.
        provenance: Recorded with every change.
        open_kit: Loads the model with the store's edits.
    """

    def __init__(
        self,
        store: Path,
        *,
        provenance: Provenance,
        open_kit: Callable[[], AbstractContextManager[Kit]],
    ) -> None:
        self._path = store
        self._provenance = provenance
        self._open_kit = open_kit
        self._kit: Kit | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the model and the store."""
        self._kit = None
        self._stack.close()

    def load(self) -> Kit:
        """Returns the running model, after loading it if this is the first call."""
        if self._kit is None:
            self._kit = self._stack.enter_context(self._open_kit())
        return self._kit

    # The history ------------------------------------------------------------------------------

    def init_store(self, model: str | None, judge: str | None = None) -> Initialized:
        """See ``HistoryVerbs.init_store``."""
        with _open_store(self._path, write=True, create=True) as store:
            if model is not None:
                store.remember(model=model)
            if judge is not None:
                store.remember(judge=judge)
            return Initialized(
                store=str(self._path), model=store.setting("model"), version=store.version()
            )

    def log_page(self, *, limit: int | None = None, at: str | None = None) -> LogPage:
        """See ``HistoryVerbs.log_page``."""
        with self._reading() as store:
            return LogPage.of(store, limit=limit, at=at)

    def check_versions(self, *versions: str) -> None:
        """See ``HistoryVerbs.check_versions``."""
        with self._reading() as store:
            for version in versions:
                store.history.resolve(version)

    def fingerprint(self) -> str | None:
        """See ``HistoryVerbs.fingerprint``; ``None`` also if there is no store."""
        if not self._path.exists():
            return None
        with self._reading() as store:
            return store.setting("fingerprint")

    def show(self, name: str) -> Shown:
        """See ``HistoryVerbs.show``."""
        with self._reading() as store:
            return store.show(name)

    def status(self) -> Status:
        """See ``HistoryVerbs.status``."""
        with self._reading() as store:
            if set(store.history.method_names()) <= {DEFAULT_METHOD}:
                return store.status()  # the default method has no warnings: nothing is imported
            from editkit.history.status import status

            return status(store)

    def diff(
        self,
        before: str,
        after: str,
        *,
        behavior: bool = False,
        probes: Sequence[str] = (),
        max_new_tokens: int = 16,
        progress: Progress | None = None,
    ) -> Diff:
        """See ``HistoryVerbs.diff``; loads the model only if it is to answer."""
        if behavior or probes or self._kit is not None:
            return self.load().diff(
                before,
                after,
                behavior=behavior,
                probes=probes,
                max_new_tokens=max_new_tokens,
                progress=progress,
            )
        with self._reading() as store:
            # Names are checked before numpy is imported, which compares artifacts.
            for name in (before, after):
                store.history.resolve(name)
            from editkit.history import diff as compare

            return compare.diff(store, before, after)

    def rollback(self, version: str) -> ViewChanged:
        """See ``HistoryVerbs.rollback``."""
        if self._kit is not None:
            return self._kit.rollback(version)
        with self._writing() as store:
            return store.rollback(version, provenance=self._provenance)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """See ``HistoryVerbs.revert``."""
        if self._kit is None:
            with self._reading() as store:
                # Deferring needs no model, but an older edit that comes back must be in the
                # weights.
                needs_model = store.brings_back_mixed if defer_only else store.takes_learning
                loads = needs_model(edit_id)
            if not loads:
                with self._writing() as store:
                    return store.revert(edit_id, provenance=self._provenance)
        return self.load().revert(edit_id, defer_only=defer_only, progress=progress)

    def adjust(
        self,
        edit_id: str,
        *,
        also: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_failure: AddFailure = "record",
    ) -> Adjusted:
        """See ``HistoryVerbs.adjust``; bad requests are refused before a model is loaded."""
        if self._kit is None and not also:
            with self._writing() as store:
                return store.adjust(edit_id, exclude=exclude, provenance=self._provenance)
        if self._kit is None:
            from editkit_store.history.adjustments import check_adjustment

            with self._reading() as store:
                found = store.history.check_active(store.history.resolve_edit(edit_id))
                check_adjustment(found, also, exclude)
        return self.load().adjust(edit_id, also=also, exclude=exclude, on_failure=on_failure)

    def undo(self) -> ViewChanged:
        """See ``HistoryVerbs.undo``."""
        if self._kit is not None:
            return self._kit.undo()
        with self._writing() as store:
            return store.undo(provenance=self._provenance)

    def redo(self) -> ViewChanged:
        """See ``HistoryVerbs.redo``."""
        if self._kit is not None:
            return self._kit.redo()
        with self._writing() as store:
            return store.redo(provenance=self._provenance)

    def tag(self, version: str, name: str) -> Tagged:
        """See ``HistoryVerbs.tag``."""
        with self._writing() as store:
            return store.tag(version, name, provenance=self._provenance)

    def verify(self, *, head: str | None = None) -> Verified:
        """See ``HistoryVerbs.verify``."""
        with self._reading() as store:
            return store.verify(head=head)

    def sql(self, query: str) -> Table:
        """See ``HistoryVerbs.sql``."""
        with self._reading() as store:
            return store.sql(query)

    def compact(self) -> Compacted:
        """See ``HistoryVerbs.compact``."""
        with self._writing() as store:
            return store.compact()

    def export(
        self, path: str, *, to: str = "@", since: str | None = None, only: str | None = None
    ) -> Exported:
        """See ``HistoryVerbs.export``."""
        tool = self._provenance.tool or "editkit"
        with self._reading() as store:
            return store.export(path, to=to, since=since, only=only, tool=tool)

    def import_bundle(
        self, path: str, *, on_conflict: OnConflict = "keep", dry_run: bool = False
    ) -> Imported:
        """See ``HistoryVerbs.import_bundle``."""
        if self._kit is not None:
            return self._kit.import_bundle(path, on_conflict=on_conflict, dry_run=dry_run)
        with self._receiving(path, dry_run=dry_run) as store:

            def compare(learned: Mapping[str, Sequence[str]]) -> Any:
                from editkit.methods.conflicts import find_conflicts  # loads numpy

                return find_conflicts(store, learned)

            return store.import_bundle(
                path, on_conflict=on_conflict, dry_run=dry_run, provenance=self._provenance,
                compare=compare,
            )  # fmt: skip

    def plot_codebook(self, path: Path, *, version: str) -> CodebookPlot:
        """See ``HistoryVerbs.plot_codebook``."""
        from editkit.history.plot import plot_codebook

        with self._reading() as store:
            return plot_codebook(store, path, version=version)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Store]:
        if self._kit is not None:
            yield self._kit.store
        else:
            with _open_store(self._path) as store:
                yield store

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Store]:
        if self._kit is not None:
            yield self._kit.store
        else:
            with _open_store(self._path, write=True) as store:
                yield store

    def _receiving(self, folder: str, *, dry_run: bool) -> Store:
        """The store of an import; created if missing, but not for a dry run or a bad bundle."""
        if self._path.exists():
            return _open_store(self._path, write=not dry_run)
        empty = _open_store(":memory:", write=True, create=True)
        if dry_run:
            return empty
        with empty:
            empty.import_bundle(folder, dry_run=True)
        return _open_store(self._path, write=True, create=True)

    # The model --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """See ``ModelVerbs.name``."""
        return self.load().name

    @property
    def version(self) -> str:
        """See ``ModelVerbs.version``."""
        return self.load().version

    def resolve(self, version: str) -> str:
        """See ``ModelVerbs.resolve``."""
        return self.load().resolve(version)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        version: str | None = None,
        max_new_tokens: int = 64,
        delivery: Delivery = "exact",
    ) -> list[Generation]:
        """See ``ModelVerbs.generate``."""
        return self.load().generate(
            list(prompts), version=version, max_new_tokens=max_new_tokens, delivery=delivery
        )

    def chat(
        self,
        messages: Turns,
        *,
        version: str | None = None,
        max_new_tokens: int = 256,
        delivery: Delivery = "exact",
    ) -> Generation:
        """See ``ModelVerbs.chat``."""
        return self.load().chat(
            messages, version=version, max_new_tokens=max_new_tokens, delivery=delivery
        )

    def chat_backend(self) -> ChatBackend:
        """See ``ModelVerbs.chat_backend``."""
        from editkit_cli.backend.local_chat import LocalChat

        return LocalChat(self.load())

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: Turns | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> Explanation:
        """See ``ModelVerbs.explain``."""
        return self.load().explain(prompt, chat=chat, version=version, k=k)

    def add_many(
        self,
        requests: Iterable[EditRequest | Mapping[str, Any]],
        *,
        on_failure: AddFailure = "record",
        on_conflict: AddConflict = "supersede",
        progress: Progress | None = None,
        told: OnAdded | None = None,
        warned: OnContradiction | None = None,
        before: bool = False,
    ) -> list[Added]:
        """See ``ModelVerbs.add_many``."""
        return self.load().add_many(
            requests,
            on_failure=on_failure,
            on_conflict=on_conflict,
            progress=progress,
            told=told,
            warned=warned,
            before=before,
        )

    def count_requests(self, request: EditRequest) -> int:
        """See ``ModelVerbs.count_requests``."""
        return self.load().count_requests(request)

    def check(self, request: EditRequest) -> None:
        """See ``ModelVerbs.check``."""
        self.load().check(request)

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """See ``ModelVerbs.replay``."""
        return self.load().replay(to=to, method=method, only=only, progress=progress)

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """See ``ModelVerbs.plan_replay``."""
        return self.load().plan_replay(to=to, method=method, only=only)
