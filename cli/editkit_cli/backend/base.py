"""What a command can ask of a history and of the model that runs with it.

`Backend` is the one seam between commands and whatever does the work. It has three implementations:
``LocalBackend`` is this process, ``RemoteBackend`` the server that holds the store, and
``FailoverBackend`` either of them, whichever can answer by the time a verb is called. Each declares
that it implements `Backend`, so that mypy fails where a verb is missing or has other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from editkit_cli.service.client.errors import ServerGone
from editkit_cli.service.schemas import LogPage
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.errors import EditkitError, StoreLocked
from editkit_store.records import (
    Added,
    Adjusted,
    Compacted,
    Contradiction,
    Delivery,
    EditRequest,
    Explanation,
    Generation,
    Initialized,
    MethodName,
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
    from editkit.models.progress import Progress
    from editkit_cli.backend.chat import ChatBackend

__all__ = [
    "AddConflict",
    "AddFailure",
    "Backend",
    "FailoverBackend",
    "HistoryVerbs",
    "ModelVerbs",
    "OnAdded",
    "OnContradiction",
    "Turns",
]

_T = TypeVar("_T")

Turns = Sequence[Mapping[str, str]]
"""A conversation: turns with `role` and `content`."""

AddFailure = Literal["record", "keep"]
AddConflict = Literal["supersede", "error", "keep"]
OnAdded = Callable[[Added], None]
OnContradiction = Callable[[EditRequest, tuple[Contradiction, ...]], None]


class HistoryVerbs(Protocol):
    """The verbs that need no running model, except where a docstring says so."""

    def init_store(self, model: str | None, judge: str | None = None) -> Initialized:
        """Creates the store if there is none, and remembers a model and a judge if given."""

    def log_page(self, *, limit: int | None = None, at: str | None = None) -> LogPage:
        """Returns the log, newest first, with what its table shows beside the entries."""

    def check_versions(self, *versions: str) -> None:
        """Raises if the store is missing or unreadable, or if a version does not exist."""

    def fingerprint(self) -> str | None:
        """Returns the fingerprint of the model that the store remembers."""

    def show(self, name: str) -> Shown:
        """Returns a version in full; see ``Store.show``."""

    def status(self) -> Status:
        """Returns the state of the store."""

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
        """Compares two versions; with ``behavior`` or ``probes`` the model answers at both."""

    def rollback(self, version: str) -> ViewChanged:
        """Makes the edits of an older version the active ones."""

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """Takes one edit back; needs the model where later edits must be learned again."""

    def adjust(
        self,
        edit_id: str,
        *,
        also: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_failure: AddFailure = "record",
    ) -> Adjusted:
        """Says where else an edit applies, and where not; needs the model for ``also``."""

    def undo(self) -> ViewChanged:
        """Takes the last change back."""

    def redo(self) -> ViewChanged:
        """Takes the last undo back."""

    def tag(self, version: str, name: str) -> Tagged:
        """Names a version."""

    def verify(self, *, head: str | None = None) -> Verified:
        """Recomputes every digest; see ``Store.verify``."""

    def sql(self, query: str) -> Table:
        """Runs a read-only query; see ``Store.sql``."""

    def compact(self) -> Compacted:
        """Makes the store's file smaller."""

    def export(
        self, path: str, *, to: str = "@", since: str | None = None, only: str | None = None
    ) -> Exported:
        """Writes edits into a new folder; see ``Store.export``."""

    def import_bundle(
        self, path: str, *, on_conflict: OnConflict = "keep", dry_run: bool = False
    ) -> Imported:
        """Imports the edits of a bundle; see ``Store.import_bundle``."""

    def plot_codebook(self, path: Path, *, version: str) -> CodebookPlot:
        """Draws the codebook to a file."""


class ModelVerbs(Protocol):
    """The verbs that need the running model. They mean the same as in ``editkit.Kit``."""

    @property
    def name(self) -> str:
        """Name of the model, for people."""

    @property
    def version(self) -> str:
        """Name of the version that the running model is at."""

    def resolve(self, version: str) -> str:
        """Returns the canonical name of a version, e.g. `v12`."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        version: str | None = None,
        max_new_tokens: int = 64,
        delivery: Delivery = "exact",
    ) -> list[Generation]:
        """Returns one continuation for each prompt."""

    def chat(
        self,
        messages: Turns,
        *,
        version: str | None = None,
        max_new_tokens: int = 256,
        delivery: Delivery = "exact",
    ) -> Generation:
        """Returns the assistant's next turn."""

    def chat_backend(self) -> ChatBackend:
        """Returns what streams answers in a conversation."""

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: Turns | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> Explanation:
        """Returns which edit fires for a prompt or a conversation."""

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
        """Corrects the model; the callbacks get each result and each contradiction."""

    def count_requests(self, request: EditRequest) -> int:
        """Returns how many edits of the current version came from exactly this request."""

    def check(self, request: EditRequest) -> None:
        """Raises what adding a request would raise, without learning it."""

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """Brings the history to the model: restores what it has learned, learns the rest."""

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """Returns what ``replay`` would do; writes nothing."""


class Backend(HistoryVerbs, ModelVerbs, Protocol):
    """A history and its running model."""


class FailoverBackend(Backend):
    """Calls one backend, and switches to another once if the first one cannot answer.

    A server may stop after it was found and before the first request, and one may start on a store
    that was free a moment ago.

    The verb that failed is then called on the second one: unless it is a change that was sent to a
    server, which may have carried it out.

    Args:
        first: The server, or this process.
        second: Returns the other one, or ``None`` if there is none.
    """

    def __init__(self, first: Backend, second: Callable[[], Backend | None]) -> None:
        self._current = first
        self._second: Callable[[], Backend | None] | None = second

    def _call(self, verb: Callable[[Backend], _T]) -> _T:
        try:
            return verb(self._current)
        except (ServerGone, StoreLocked) as error:
            if self._second is None or _may_be_done(error):
                raise
            second, self._second = self._second, None
            other = second()
            if other is None:
                raise
            self._current = other
        return verb(self._current)

    @property
    def name(self) -> str:
        """See ``ModelVerbs.name``."""
        return self._call(lambda one: one.name)

    @property
    def version(self) -> str:
        """See ``ModelVerbs.version``."""
        return self._call(lambda one: one.version)

    def init_store(self, model: str | None, judge: str | None = None) -> Initialized:
        """See ``HistoryVerbs.init_store``."""
        return self._call(lambda one: one.init_store(model, judge))

    def log_page(self, *, limit: int | None = None, at: str | None = None) -> LogPage:
        """See ``HistoryVerbs.log_page``."""
        return self._call(lambda one: one.log_page(limit=limit, at=at))

    def check_versions(self, *versions: str) -> None:
        """See ``HistoryVerbs.check_versions``."""
        self._call(lambda one: one.check_versions(*versions))

    def fingerprint(self) -> str | None:
        """See ``HistoryVerbs.fingerprint``."""
        return self._call(lambda one: one.fingerprint())

    def show(self, name: str) -> Shown:
        """See ``HistoryVerbs.show``."""
        return self._call(lambda one: one.show(name))

    def status(self) -> Status:
        """See ``HistoryVerbs.status``."""
        return self._call(lambda one: one.status())

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
        """See ``HistoryVerbs.diff``."""
        return self._call(
            lambda one: one.diff(
                before,
                after,
                behavior=behavior,
                probes=probes,
                max_new_tokens=max_new_tokens,
                progress=progress,
            )
        )

    def rollback(self, version: str) -> ViewChanged:
        """See ``HistoryVerbs.rollback``."""
        return self._call(lambda one: one.rollback(version))

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """See ``HistoryVerbs.revert``."""
        return self._call(lambda one: one.revert(edit_id, defer_only=defer_only, progress=progress))

    def adjust(
        self,
        edit_id: str,
        *,
        also: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_failure: AddFailure = "record",
    ) -> Adjusted:
        """See ``HistoryVerbs.adjust``."""
        return self._call(
            lambda one: one.adjust(edit_id, also=also, exclude=exclude, on_failure=on_failure)
        )

    def undo(self) -> ViewChanged:
        """See ``HistoryVerbs.undo``."""
        return self._call(lambda one: one.undo())

    def redo(self) -> ViewChanged:
        """See ``HistoryVerbs.redo``."""
        return self._call(lambda one: one.redo())

    def tag(self, version: str, name: str) -> Tagged:
        """See ``HistoryVerbs.tag``."""
        return self._call(lambda one: one.tag(version, name))

    def verify(self, *, head: str | None = None) -> Verified:
        """See ``HistoryVerbs.verify``."""
        return self._call(lambda one: one.verify(head=head))

    def sql(self, query: str) -> Table:
        """See ``HistoryVerbs.sql``."""
        return self._call(lambda one: one.sql(query))

    def compact(self) -> Compacted:
        """See ``HistoryVerbs.compact``."""
        return self._call(lambda one: one.compact())

    def export(
        self, path: str, *, to: str = "@", since: str | None = None, only: str | None = None
    ) -> Exported:
        """See ``HistoryVerbs.export``."""
        return self._call(lambda one: one.export(path, to=to, since=since, only=only))

    def import_bundle(
        self, path: str, *, on_conflict: OnConflict = "keep", dry_run: bool = False
    ) -> Imported:
        """See ``HistoryVerbs.import_bundle``."""
        return self._call(
            lambda one: one.import_bundle(path, on_conflict=on_conflict, dry_run=dry_run)
        )

    def plot_codebook(self, path: Path, *, version: str) -> CodebookPlot:
        """See ``HistoryVerbs.plot_codebook``."""
        return self._call(lambda one: one.plot_codebook(path, version=version))

    def resolve(self, version: str) -> str:
        """See ``ModelVerbs.resolve``."""
        return self._call(lambda one: one.resolve(version))

    def generate(
        self,
        prompts: Sequence[str],
        *,
        version: str | None = None,
        max_new_tokens: int = 64,
        delivery: Delivery = "exact",
    ) -> list[Generation]:
        """See ``ModelVerbs.generate``."""
        return self._call(
            lambda one: one.generate(
                prompts, version=version, max_new_tokens=max_new_tokens, delivery=delivery
            )
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
        return self._call(
            lambda one: one.chat(
                messages, version=version, max_new_tokens=max_new_tokens, delivery=delivery
            )
        )

    def chat_backend(self) -> ChatBackend:
        """See ``ModelVerbs.chat_backend``."""
        return self._call(lambda one: one.chat_backend())

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: Turns | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> Explanation:
        """See ``ModelVerbs.explain``."""
        return self._call(lambda one: one.explain(prompt, chat=chat, version=version, k=k))

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
        several = list(requests)  # an iterator would be used up by the first attempt
        return self._call(
            lambda one: one.add_many(
                several,
                on_failure=on_failure,
                on_conflict=on_conflict,
                progress=progress,
                told=told,
                warned=warned,
                before=before,
            )
        )

    def count_requests(self, request: EditRequest) -> int:
        """See ``ModelVerbs.count_requests``."""
        return self._call(lambda one: one.count_requests(request))

    def check(self, request: EditRequest) -> None:
        """See ``ModelVerbs.check``."""
        self._call(lambda one: one.check(request))

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """See ``ModelVerbs.replay``."""
        return self._call(
            lambda one: one.replay(to=to, method=method, only=only, progress=progress)
        )

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """See ``ModelVerbs.plan_replay``."""
        return self._call(lambda one: one.plan_replay(to=to, method=method, only=only))


def _may_be_done(error: EditkitError) -> bool:
    return isinstance(error, ServerGone) and error.was_sent
