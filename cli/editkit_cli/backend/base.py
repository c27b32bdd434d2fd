"""What a command can ask of a history and of the model that runs with it.

`Backend` is the one seam between commands and whatever does the work. It has three implementations:

=========  ==================================================================
local      this process, on the store's file
remote     the server that holds the store
failover   either of them, whichever can answer by the time it is asked
=========  ==================================================================

Each of them declares that it implements `Backend`, so that mypy fails where a verb is missing or
has other arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from editkit_cli.service.schemas import LogPage
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.records import (
    Added,
    Compacted,
    Contradiction,
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
    "HistoryVerbs",
    "ModelVerbs",
    "OnAdded",
    "OnContradiction",
    "Turns",
]

Turns = Sequence[Mapping[str, str]]
"""A conversation: turns with `role` and `content`."""

AddFailure = Literal["record", "keep"]
AddConflict = Literal["supersede", "error", "keep"]
OnAdded = Callable[[Added], None]
OnContradiction = Callable[[EditRequest, tuple[Contradiction, ...]], None]


class HistoryVerbs(Protocol):
    """The verbs that need no running model, except where a docstring says so."""

    def init_store(self, model: str | None) -> Initialized:
        """Creates the store if there is none, and remembers a model if one is given."""

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
        self, prompts: Sequence[str], *, version: str | None = None, max_new_tokens: int = 64
    ) -> list[Generation]:
        """Returns one continuation for each prompt."""

    def chat(
        self, messages: Turns, *, version: str | None = None, max_new_tokens: int = 256
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
