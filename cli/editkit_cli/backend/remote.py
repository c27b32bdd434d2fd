"""The server that holds the store, as a backend.

Results are the same records as without a server, so commands print the same. Paths are sent in
full, because the server works in another folder, and are named in the results as they were given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from editkit_cli.backend.base import (
    AddConflict,
    AddFailure,
    Backend,
    OnAdded,
    OnContradiction,
    Turns,
)
from editkit_cli.backend.operations import carry_out, complete_provenance
from editkit_cli.service.client.connection import ServerConnection
from editkit_cli.service.client.errors import ServerDiffers, error_of
from editkit_cli.service.schemas import LogPage, ServedModel
from editkit_store.bundle.records import Exported, Imported, OnConflict
from editkit_store.errors import EditkitError
from editkit_store.records import (
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
    from editkit.models.progress import Progress
    from editkit_cli.backend.chat import ChatBackend

__all__ = ["RemoteBackend"]

_T = TypeVar("_T")

_BATCH = 16
"""Most prompts of one request."""


class RemoteBackend(Backend):
    """A running model and its history in the process that serves them.

    Args:
        connection: To the server.
        store: The store's path, as it was given.
        model: Model to replay onto; ``None`` is the running one.
        provenance: Recorded with every change.
    """

    def __init__(
        self, connection: ServerConnection, store: Path, *, model: str | None,
        provenance: Provenance,
    ) -> None:  # fmt: skip
        self.connection = connection
        self._store = store
        self._model = model
        self._provenance = provenance

    # The model ---------------------------------------------------------------------------------

    def running(self) -> ServedModel:
        """Returns which model runs there."""
        return ServedModel.model_validate(self.connection.get("/v1/owner"))

    @property
    def name(self) -> str:
        """See ``ModelVerbs.name``."""
        return self.running().model

    @property
    def version(self) -> str:
        """See ``ModelVerbs.version``."""
        return self.running().version

    def init_store(self, model: str | None, judge: str | None = None) -> Initialized:
        """Returns the state of the store, which exists already.

        Raises:
            ServerDiffers: The server runs another model, or with another judge.
        """
        found = self.status()
        if model is not None:
            self.check_model(model)
        if judge is not None:
            self.check_judge(judge)
        return Initialized(
            store=str(self._store), model=model or found.model, version=found.version
        )

    def check_judge(self, asked: str) -> None:
        """Raises ``ServerDiffers`` unless this judge decides there."""
        found = self.running().judge
        if found != asked:
            raise ServerDiffers(
                f"a server holds the store '{self._store}' with the judge '{found}', not '{asked}'",
                code="server_runs_another_judge",
                hint="leave --judge out, or stop the server",
            )

    def check_model(self, asked: str) -> None:
        """Raises ``ServerDiffers`` unless the server runs this model."""
        from editkit_cli.service.model_names import is_same_model

        runs = self.running()
        if asked != runs.name and not is_same_model(asked, runs.source):
            raise ServerDiffers(
                f"the server at {self.connection.owner.url} holds the store and runs "
                f"'{runs.name}', not '{asked}'",
                code="server_runs_another_model",
                hint="leave --model out (and EDITKIT_MODEL), or stop the server",
            )

    # Questions --------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[str],
        *,
        version: str | None = None,
        max_new_tokens: int = 64,
        delivery: Delivery = "exact",
    ) -> list[Generation]:
        """See ``ModelVerbs.generate``."""
        made: list[Generation] = []
        for first in range(0, len(prompts), _BATCH):
            batch = list(prompts[first : first + _BATCH])
            made += self._generated({"prompts": batch}, version, max_new_tokens, delivery)
        return made

    def chat(
        self,
        messages: Turns,
        *,
        version: str | None = None,
        max_new_tokens: int = 256,
        delivery: Delivery = "exact",
    ) -> Generation:
        """See ``ModelVerbs.chat``."""
        what = {"chats": [list(messages)]}
        return self._generated(what, version, max_new_tokens, delivery)[0]

    def _generated(
        self, what: dict[str, Any], version: str | None, limit: int, delivery: Delivery
    ) -> list[Generation]:
        body = {**what, "version": version, "max_new_tokens": limit, "delivery": delivery}
        answer = self.connection.post("/v1/generate", body)
        return [Generation.model_validate(one) for one in answer]

    def chat_backend(self) -> ChatBackend:
        """See ``ModelVerbs.chat_backend``."""
        from editkit_cli.backend.remote_chat import RemoteChat

        return RemoteChat(self.connection)

    def explain(
        self,
        prompt: str | None = None,
        *,
        chat: Turns | None = None,
        version: str | None = None,
        k: int = 5,
    ) -> Explanation:
        """See ``ModelVerbs.explain``."""
        turns = None if chat is None else list(chat)
        body = {"prompt": prompt, "chat": turns, "version": version, "k": k}
        return Explanation.model_validate(self.connection.post("/v1/explain", body))

    # Edits ------------------------------------------------------------------------------------

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
        """See ``ModelVerbs.add_many``; contradictions are only known once the results arrive."""
        fields = [_fields(one) for one in requests]
        how = {"on_failure": on_failure, "on_conflict": on_conflict, "before": before}
        results: list[Added] = []
        # A request has one author in the log, but lines of a file may each have their own.
        for author, some in groupby(fields, key=lambda one: one.get("author")):
            body = {"edits": list(some), **how, "provenance": self._provenance_json(author)}
            for added in self._changed("/v1/edits/batch", body, _all_added, progress):
                results.append(added)
                if added.conflicts and added.outcome == "added" and warned is not None:
                    warned(_request(added), added.conflicts)
                if told is not None:
                    told(added)
        return results

    def count_requests(self, request: EditRequest) -> int:
        """See ``ModelVerbs.count_requests``."""
        return int(self._checked(request)["known"])

    def check(self, request: EditRequest) -> None:
        """See ``ModelVerbs.check``."""
        wrong = self._checked(request)["error"]
        if wrong is not None:
            raise error_of(wrong["error"])

    def _checked(self, request: EditRequest) -> Any:
        return self.connection.post("/v1/owner/check", _fields(request))

    # The history ------------------------------------------------------------------------------

    def log_page(self, *, limit: int | None = None, at: str | None = None) -> LogPage:
        """See ``HistoryVerbs.log_page``."""
        return LogPage.model_validate(self.connection.get("/v1/owner/log", limit=limit, at=at))

    def resolve(self, version: str) -> str:
        """See ``ModelVerbs.resolve``."""
        return str(self.connection.get("/v1/owner/resolve", version=version)["version"])

    def check_versions(self, *versions: str) -> None:
        """See ``HistoryVerbs.check_versions``."""
        for version in versions:
            self.resolve(version)

    def fingerprint(self) -> str | None:
        """See ``HistoryVerbs.fingerprint``."""
        return self.status().fingerprint

    def show(self, name: str) -> Shown:
        """See ``HistoryVerbs.show``."""
        return Shown.model_validate(self.connection.get("/v1/owner/show", name=name))

    def status(self) -> Status:
        """See ``HistoryVerbs.status``; also names the server."""
        found = Status.model_validate(self.connection.get("/v1/status"))
        update = {"store": str(self._store), "server": self.connection.owner.url}
        return found.model_copy(update=update)

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
        """See ``HistoryVerbs.diff``; reports no progress."""
        query = {
            "from": before, "to": after, "behavior": str(behavior).lower(),
            "probe": list(probes), "max_new_tokens": max_new_tokens,
        }  # fmt: skip
        return Diff.model_validate(self.connection.get("/v1/diff", **query))

    def rollback(self, version: str) -> ViewChanged:
        """See ``HistoryVerbs.rollback``."""
        return self._change_view("/v1/rollback", version=version)

    def revert(
        self, edit_id: str, *, defer_only: bool = False, progress: Progress | None = None
    ) -> ViewChanged:
        """See ``HistoryVerbs.revert``."""
        body = {"edit_id": edit_id, "defer_only": defer_only, "provenance": self._provenance_json()}
        read = ViewChanged.model_validate
        return self._changed("/v1/owner/revert", body, read, progress, "Learning again")

    def adjust(
        self,
        edit_id: str,
        *,
        also: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_failure: AddFailure = "record",
    ) -> Adjusted:
        """See ``HistoryVerbs.adjust``."""
        body = {
            "edit_id": edit_id, "also": list(also), "not": list(exclude), "on_failure": on_failure,
            "provenance": self._provenance_json(),
        }  # fmt: skip
        return self._changed("/v1/owner/adjust", body, Adjusted.model_validate)

    def undo(self) -> ViewChanged:
        """See ``HistoryVerbs.undo``."""
        return self._change_view("/v1/undo")

    def redo(self) -> ViewChanged:
        """See ``HistoryVerbs.redo``."""
        return self._change_view("/v1/redo")

    def _change_view(self, path: str, **body: Any) -> ViewChanged:
        given = {**body, "provenance": self._provenance_json()}
        return self._changed(path, given, ViewChanged.model_validate)

    def tag(self, version: str, name: str) -> Tagged:
        """See ``HistoryVerbs.tag``."""
        body = {"version": version, "name": name, "provenance": self._provenance_json()}
        return self._changed("/v1/versions/tag", body, Tagged.model_validate)

    def replay(
        self,
        *,
        to: str | None = None,
        method: MethodName | None = None,
        only: str | None = None,
        progress: Progress | None = None,
    ) -> Replayed:
        """See ``ModelVerbs.replay``."""
        body = {**self._replaying(to, method, only), "provenance": self._provenance_json()}
        return self._changed("/v1/replay", body, Replayed.model_validate, progress)

    def plan_replay(
        self, *, to: str | None = None, method: MethodName | None = None, only: str | None = None
    ) -> ReplayPlan:
        """See ``ModelVerbs.plan_replay``."""
        body = {**self._replaying(to, method, only), "dry_run": True}
        return self._changed("/v1/replay", body, ReplayPlan.model_validate)

    def _replaying(
        self, to: str | None, method: MethodName | None, only: str | None
    ) -> dict[str, Any]:
        model = self._model
        if model is not None and Path(model).expanduser().exists():
            model = os.path.abspath(Path(model).expanduser())
        return {"to": to, "method": method, "only": only, "model": model}

    # The store -------------------------------------------------------------------------------

    def verify(self, *, head: str | None = None) -> Verified:
        """See ``HistoryVerbs.verify``."""
        return Verified.model_validate(self.connection.get("/v1/verify", head=head))

    def sql(self, query: str) -> Table:
        """See ``HistoryVerbs.sql``."""
        return Table.model_validate(self.connection.post("/v1/owner/sql", {"query": query}))

    def compact(self) -> Compacted:
        """See ``HistoryVerbs.compact``."""
        body = {"provenance": self._provenance_json()}
        done = self._changed("/v1/owner/compact", body, Compacted.model_validate)
        return done.model_copy(update={"store": str(self._store)})

    def export(
        self, path: str, *, to: str = "@", since: str | None = None, only: str | None = None
    ) -> Exported:
        """See ``HistoryVerbs.export``."""
        with _full_path(path) as full:
            body = {"path": full, "to": to, "since": since, "only": only,
                    "tool": self._provenance.tool or "editkit"}  # fmt: skip
            done = Exported.model_validate(self.connection.post("/v1/owner/export", body))
        return done.model_copy(update={"bundle": path})

    def import_bundle(
        self, path: str, *, on_conflict: OnConflict = "keep", dry_run: bool = False
    ) -> Imported:
        """See ``HistoryVerbs.import_bundle``."""
        with _full_path(path) as full:
            body = {"path": full, "on_conflict": on_conflict, "dry_run": dry_run,
                    "provenance": self._provenance_json()}  # fmt: skip
            done = self._changed("/v1/owner/import", body, Imported.model_validate)
        return done.model_copy(update={"bundle": path})

    def plot_codebook(self, path: Path, *, version: str) -> CodebookPlot:
        """See ``HistoryVerbs.plot_codebook``."""
        with _full_path(str(path)) as full:
            body = {"path": full, "version": version}
            drawn = CodebookPlot.model_validate(self.connection.post("/v1/owner/codebook", body))
        return drawn.model_copy(update={"path": str(path)})

    def _changed(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], _T],
        progress: Progress | None = None,
        task: str = "Learning edits",
    ) -> _T:
        return carry_out(self.connection, path, body, read, progress=progress, task=task)

    def _provenance_json(self, author: str | None = None) -> dict[str, Any]:
        return complete_provenance(self._provenance, author=author)


def _fields(request: EditRequest | Mapping[str, Any]) -> dict[str, Any]:
    given = request.model_dump(mode="json") if isinstance(request, EditRequest) else dict(request)
    return {name: value for name, value in given.items() if value is not None}


def _request(added: Added) -> EditRequest:
    fields = {name: getattr(added.edit, name) for name in EditRequest.model_fields}
    return EditRequest.model_validate(fields)


def _all_added(answer: Any) -> list[Added]:
    return [Added.model_validate(one) for one in answer]


@contextlib.contextmanager
def _full_path(path: str) -> Iterator[str]:
    """Yields the full path; errors name it as it was given."""
    full = os.path.abspath(path)
    try:
        yield full
    except EditkitError as error:
        error.args = (str(error).replace(full, path),)
        if error.hint:
            error.hint = error.hint.replace(full, path)
        raise
