"""The methods of a kit and of a history, asked of the server that holds the store.

Records come back as they are: what a command prints is the same as alone. Paths are sent in full,
for the server works in another folder, and named in what comes back as they were given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from editkit_cli.backend.operations import carried_out, signed
from editkit_cli.service.client.connection import Wire
from editkit_cli.service.client.errors import ServerDiffers, error_of
from editkit_cli.service.schemas import Logged, Running
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.errors import EditkitError
from editkit_store.records import (
    Added,
    Compacted,
    Contradiction,
    EditRequest,
    Explanation,
    Generation,
    Initialized,
    LogEntry,
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
    from editkit.models.progress import Progress

__all__ = ["Remote"]

_T = TypeVar("_T")

_TOGETHER = 16
"""Prompts of one request."""

Turns = Sequence[Mapping[str, str]]


class Remote:
    """A running model and its history, in the process that serves them.

    Args:
        wire: To the server.
        store: The store's path, as it was given.
        model: Replay onto this model; ``None`` is the running one.
        provenance: What is written down with every change.
    """

    def __init__(
        self, wire: Wire, store: Path, *, model: str | None, provenance: Provenance
    ) -> None:
        self.wire = wire
        self._store = store
        self._model = model
        self._provenance = provenance

    # What runs --------------------------------------------------------------------------------

    def running(self) -> Running:
        """Returns what runs there."""
        return Running.model_validate(self.wire.get("/v1/owner"))

    @property
    def name(self) -> str:
        """What the model calls itself."""
        return self.running().model

    @property
    def version(self) -> str:
        """Name of the version that the running model is at."""
        return self.running().version

    def begin(self, model: str | None) -> Initialized:
        """Returns where the store stands: it is there, for the model that runs.

        Raises:
            ServerDiffers: Another model was to be remembered.
        """
        found = self.status()
        if model is not None:
            self.check_model(model)
        return Initialized(
            store=str(self._store), model=model or found.model, version=found.version
        )

    def check_model(self, asked: str) -> None:
        """Refuses a model that the server does not run.

        Raises:
            ServerDiffers: It runs another.
        """
        from editkit_cli.service.model_names import is_same_model

        runs = self.running()
        if asked != runs.name and not is_same_model(asked, runs.source):
            raise ServerDiffers(
                f"the server at {self.wire.owner.url} holds the store and runs '{runs.name}', "
                f"not '{asked}'",
                code="server_runs_another_model",
                hint="leave --model out (and EDITKIT_MODEL), or stop the server",
            )

    # Asking -----------------------------------------------------------------------------------

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of them, as in Kit
        self, prompt: str, *, version: str | None = None, max_new_tokens: int = 64
    ) -> Generation: ...
    @overload
    def generate(
        self, prompt: Sequence[str], *, version: str | None = None, max_new_tokens: int = 64
    ) -> list[Generation]: ...
    def generate(
        self, prompt: str | Sequence[str], *, version: str | None = None, max_new_tokens: int = 64
    ) -> Generation | list[Generation]:
        """Returns what the corrected model says; see ``Kit.generate``."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        made: list[Generation] = []
        for first in range(0, len(prompts), _TOGETHER):
            some = prompts[first : first + _TOGETHER]
            made += self._generated({"prompts": some}, version, max_new_tokens)
        return made[0] if isinstance(prompt, str) else made

    def chat(
        self, messages: Turns, *, version: str | None = None, max_new_tokens: int = 256
    ) -> Generation:
        """Returns the assistant's next turn; see ``Kit.chat``."""
        return self._generated({"chats": [list(messages)]}, version, max_new_tokens)[0]

    def _generated(self, what: dict[str, Any], version: str | None, limit: int) -> list[Generation]:
        body = {**what, "version": version, "max_new_tokens": limit}
        return [Generation.model_validate(one) for one in self.wire.ask("/v1/generate", body)]

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: Turns | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> Explanation:
        """Returns which edit fires for a prompt; see ``Kit.explain``."""
        turns = None if chat is None else list(chat)
        body = {"prompt": prompt, "chat": turns, "version": version, "k": k}
        return Explanation.model_validate(self.wire.ask("/v1/explain", body))

    # Correcting -------------------------------------------------------------------------------

    def add_many(
        self,
        requests: Iterable[EditRequest | Mapping[str, Any]],
        *,
        on_failure: Literal["record", "keep"] = "record",
        on_conflict: Literal["supersede", "error", "keep"] = "supersede",
        progress: Progress | None = None,
        told: Callable[[Added], None] | None = None,
        warned: Callable[[EditRequest, tuple[Contradiction, ...]], None] | None = None,
        before: bool = False,
    ) -> list[Added]:
        """Corrects the running model; see ``Kit.add_many``. Warnings come with the results."""
        fields = [_fields(one) for one in requests]
        how = {"on_failure": on_failure, "on_conflict": on_conflict, "before": before}
        results: list[Added] = []
        # The log names one author an operation; lines of a file may each have their own.
        for author, some in groupby(fields, key=lambda one: one.get("author")):
            body = {"edits": list(some), **how, "provenance": self._signed(author)}
            for added in self._changed("/v1/edits/batch", body, _all_added, progress):
                results.append(added)
                if added.conflicts and added.outcome == "added" and warned is not None:
                    warned(_request(added), added.conflicts)
                if told is not None:
                    told(added)
        return results

    def count_requests(self, request: EditRequest) -> int:
        """Returns how many members of the current version came of exactly this request."""
        return int(self._checked(request)["known"])

    def check(self, request: EditRequest) -> None:
        """Raises what adding a request would raise, without learning it."""
        wrong = self._checked(request)["error"]
        if wrong is not None:
            raise error_of(wrong["error"])

    def _checked(self, request: EditRequest) -> Any:
        return self.wire.ask("/v1/owner/check", _fields(request))

    # The history ------------------------------------------------------------------------------

    def logged(self, *, limit: int | None = None, at: str | None = None) -> Logged:
        """Returns the log, and what its table shows beside it."""
        return Logged.model_validate(self.wire.get("/v1/owner/log", limit=limit, at=at))

    def log(self, *, limit: int | None = None) -> list[LogEntry]:
        """Returns the operations, newest first; see ``Store.log``."""
        return list(self.logged(limit=limit).entries)

    def resolve(self, version: str) -> str:
        """Returns the own name of a version."""
        return str(self.wire.get("/v1/owner/resolve", version=version)["version"])

    def look(self, *versions: str) -> None:
        """Refuses an unknown version."""
        for version in versions:
            self.resolve(version)

    def fingerprint(self) -> str | None:
        """Returns which model the store remembers."""
        return self.status().fingerprint

    def show(self, name: str) -> Shown:
        """Returns a version in full; see ``Store.show``."""
        return Shown.model_validate(self.wire.get("/v1/owner/show", name=name))

    def status(self) -> Status:
        """Returns where the store stands, and who serves it."""
        found = Status.model_validate(self.wire.get("/v1/status"))
        update = {"store": str(self._store), "server": self.wire.owner.url}
        return found.model_copy(update=update)

    def diff(
        self,
        before: str,
        after: str,
        *,
        behavior: bool = False,
        probes: Iterable[str] = (),
        max_new_tokens: int = 16,
        progress: Progress | None = None,
    ) -> Diff:
        """Returns what changed between two versions; see ``Kit.diff``. Tells no progress."""
        query = {
            "from": before, "to": after, "behavior": str(behavior).lower(),
            "probe": list(probes), "max_new_tokens": max_new_tokens,
        }  # fmt: skip
        return Diff.model_validate(self.wire.get("/v1/diff", **query))

    def rollback(self, version: str) -> ViewChanged:
        """Makes the edits of an older version the active ones; see ``Kit.rollback``."""
        return self._moved("/v1/rollback", version=version)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """Takes one edit back; see ``Kit.revert``."""
        body = {"edit_id": edit_id, "defer_only": defer_only, "provenance": self._signed()}
        read = ViewChanged.model_validate
        return self._changed("/v1/owner/revert", body, read, progress, "Learning again")

    def undo(self) -> ViewChanged:
        """Takes the last change back; see ``Kit.undo``."""
        return self._moved("/v1/undo")

    def redo(self) -> ViewChanged:
        """Takes the last undo back; see ``Kit.redo``."""
        return self._moved("/v1/redo")

    def _moved(self, path: str, **body: Any) -> ViewChanged:
        given = {**body, "provenance": self._signed()}
        return self._changed(path, given, ViewChanged.model_validate)

    def tag(self, version: str, name: str) -> Tagged:
        """Names a version; see ``Kit.tag``."""
        body = {"version": version, "name": name, "provenance": self._signed()}
        return self._changed("/v1/versions/tag", body, Tagged.model_validate)

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """Brings the history to the running model, or to ``model``; see ``Kit.replay``."""
        body = {**self._replaying(to, method, only), "provenance": self._signed()}
        return self._changed("/v1/replay", body, Replayed.model_validate, progress)

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """Returns what ``replay`` would do; writes nothing."""
        body = {**self._replaying(to, method, only), "dry_run": True}
        return self._changed("/v1/replay", body, ReplayPlan.model_validate)

    def _replaying(
        self, to: str | None, method: MethodName | None, only: str | None
    ) -> dict[str, Any]:
        model = self._model
        if model is not None and Path(model).expanduser().exists():
            model = os.path.abspath(Path(model).expanduser())
        return {"to": to, "method": method, "only": only, "model": model}

    # Upkeep -----------------------------------------------------------------------------------

    def verify(self, *, head: str | None = None) -> Verified:
        """Derives every digest anew; see ``Store.verify``."""
        return Verified.model_validate(self.wire.get("/v1/verify", head=head))

    def sql(self, query: str) -> Table:
        """Answers a query in SQL; see ``Store.sql``."""
        return Table.model_validate(self.wire.ask("/v1/owner/sql", {"query": query}))

    def compact(self) -> Compacted:
        """Makes the file smaller."""
        body = {"provenance": self._signed()}
        done = self._changed("/v1/owner/compact", body, Compacted.model_validate)
        return done.model_copy(update={"store": str(self._store)})

    def export(
        self, path: str, *, to: str = "@", since: str | None = None, only: str | None = None
    ) -> Exported:
        """Writes edits into a new folder; see ``Store.export``."""
        with _named(path) as full:
            body = {"path": full, "to": to, "since": since, "only": only,
                    "tool": self._provenance.tool or "editkit"}  # fmt: skip
            done = Exported.model_validate(self.wire.ask("/v1/owner/export", body))
        return done.model_copy(update={"bundle": path})

    def import_bundle(
        self, path: str, *, on_conflict: OnConflict = "keep", dry_run: bool = False
    ) -> Imported:
        """Brings the edits of a bundle; see ``Store.import_bundle``."""
        with _named(path) as full:
            body = {"path": full, "on_conflict": on_conflict, "dry_run": dry_run,
                    "provenance": self._signed()}  # fmt: skip
            done = self._changed("/v1/owner/import", body, Imported.model_validate)
        return done.model_copy(update={"bundle": path})

    def plot(self, path: Path, *, version: str) -> CodebookPlot:
        """Draws the codebook to a file; see ``plot_codebook``."""
        with _named(str(path)) as full:
            body = {"path": full, "version": version}
            drawn = CodebookPlot.model_validate(self.wire.ask("/v1/owner/codebook", body))
        return drawn.model_copy(update={"path": str(path)})

    def _changed(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], _T],
        progress: Progress | None = None,
        task: str = "Learning edits",
    ) -> _T:
        return carried_out(self.wire, path, body, read, progress=progress, task=task)

    def _signed(self, author: str | None = None) -> dict[str, Any]:
        return signed(self._provenance, author=author)


def _fields(request: EditRequest | Mapping[str, Any]) -> dict[str, Any]:
    given = request.model_dump(mode="json") if isinstance(request, EditRequest) else dict(request)
    return {name: value for name, value in given.items() if value is not None}


def _request(added: Added) -> EditRequest:
    fields = {name: getattr(added.edit, name) for name in EditRequest.model_fields}
    return EditRequest.model_validate(fields)


def _all_added(said: Any) -> list[Added]:
    return [Added.model_validate(one) for one in said]


@contextlib.contextmanager
def _named(path: str) -> Iterator[str]:
    """Yields a path in full; errors name it as it was given."""
    full = os.path.abspath(path)
    try:
        yield full
    except EditkitError as error:
        error.args = (str(error).replace(full, path),)
        if error.hint:
            error.hint = error.hint.replace(full, path)
        raise
