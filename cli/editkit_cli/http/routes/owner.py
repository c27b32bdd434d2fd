"""Routes for the command line of the store's owner.

They access files of this machine, or respond without the limits for other callers. Only the same
version of editkit uses them, so they are not in the OpenAPI document.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from editkit.errors import ArtifactsMissing
from editkit_cli.http.routes.common import Owners, Runs, errors, respond, unless_disconnected
from editkit_cli.http.routes.edits import ACCEPTED, WRITES, adjusting, changed
from editkit_cli.http.routes.page import new_session
from editkit_cli.service.errors import ErrorBody, Refused, closing, failure_of, too_late
from editkit_cli.service.requests import (
    AdjustByIdBody,
    ChangeBody,
    EditBody,
    ExportBody,
    ImportBody,
    PlotBody,
    RevertByIdBody,
    SqlBody,
)
from editkit_cli.service.schemas import LogPage, ServedModel, SessionToken
from editkit_cli.service.writer import ChangeProgress, OperationResult
from editkit_store.bundle.records import Exported, Imported
from editkit_store.database.sandbox import SqlQuery
from editkit_store.errors import EditkitError, QueryStopped
from editkit_store.records import Adjusted, Compacted, Record, Shown, Table, ViewChanged
from editkit_store.records.comparisons import CodebookPlot

__all__ = ["router"]

router = APIRouter(prefix="/v1/owner", include_in_schema=False)


@router.get("", response_model=ServedModel)
def running(runner: Runs, _: Owners) -> Response:
    """The running model."""
    kit = runner.kit
    return respond(
        ServedModel(
            name=runner.name,
            model=kit.name,
            source=kit.source,
            version=kit.version,
            has_template=bool(getattr(kit.tokenizer, "chat_template", None)),
            judge=kit.judge,
        )
    )


@router.get("/log", response_model=LogPage, responses=errors(404))
def log(
    runner: Runs,
    _: Owners,
    limit: Annotated[int | None, Query(ge=1)] = None,
    at: Annotated[str | None, Query()] = None,
) -> Response:
    """The log, with what its table shows beside the entries."""
    return respond(LogPage.of(runner.kit.store, limit=limit, at=at))


@router.get("/show", response_model=Shown, responses=errors(404))
def show(runner: Runs, _: Owners, name: Annotated[str, Query()]) -> Response:
    """One version in full, by any name."""
    return respond(runner.kit.show(name))


@router.post("/session", response_model=SessionToken, responses=errors())
async def session(request: Request, _: Owners) -> Response:
    """Begins a session, for a program of the owner that cannot sign requests."""
    return new_session(request)


class ResolvedVersion(Record):
    """Response of `/v1/owner/resolve`."""

    version: str


@router.get("/resolve", response_model=ResolvedVersion, responses=errors(404))
def resolve(runner: Runs, _: Owners, version: Annotated[str, Query()]) -> Response:
    """The canonical name of a version."""
    return respond(ResolvedVersion(version=runner.version(version)))


class RequestCheck(Record):
    """Response of `/v1/owner/check`."""

    known: int = Field(description="Edits of the current version that came from this request")
    error: ErrorBody | None = Field(description="Why it cannot be learned")


@router.post("/check", response_model=RequestCheck, responses=errors())
def check(body: EditBody, runner: Runs, _: Owners) -> Response:
    """Checks an edit request without adding it."""
    from editkit.editing.requests import build_request

    given = {name: getattr(body, name) for name in body.model_fields_set}
    known, error = 0, None
    try:
        request = build_request(given, kind=runner.kit.encoder.default_kind)
        known = runner.kit.store.count_requests(request)
        runner.kit.check(request)
    except EditkitError as wrong:
        error = ErrorBody(error=failure_of(wrong)[1])
    return respond(RequestCheck(known=known, error=error))


@router.post("/revert", response_model=ViewChanged, responses={**ACCEPTED, **WRITES})
async def revert(body: RevertByIdBody, request: Request, runner: Runs, caller: Owners) -> Response:
    """Takes an edit back; the id may be any text that the user typed."""

    def act(kit: Any, learning: ChangeProgress) -> OperationResult:
        done: ViewChanged = kit.revert(body.edit_id, defer_only=body.defer_only, progress=learning)
        return done

    return await changed(request, runner, caller, "revert", act, body, None, None)


@router.post("/adjust", response_model=Adjusted, responses={**ACCEPTED, **WRITES})
async def adjust(body: AdjustByIdBody, request: Request, runner: Runs, caller: Owners) -> Response:
    """Adjusts an edit's reach; the id may be any text that the user typed."""
    work = adjusting(body.edit_id, body)
    return await changed(request, runner, caller, "adjust", work, body, None, None)


_CELLS = 1_000_000
"""Most values of a result, which must fit into memory beside a model."""


@router.post("/sql", response_model=Table, responses=errors(504))
async def sql(body: SqlBody, request: Request, runner: Runs, _: Owners) -> Response:
    """Runs one SELECT on a copy of the store; stopped when the client disconnects."""
    query = SqlQuery(body.query)
    seconds = runner.limits.seconds

    def answered() -> Response:
        return respond(runner.kit.store.sql(query, seconds=seconds, cells=_CELLS))

    with runner.stopping(query.stop):
        try:
            return await unless_disconnected(request, asyncio.to_thread(answered))
        except QueryStopped as stopped:
            raise (closing() if runner.is_closing else too_late()) from stopped
        finally:
            query.stop()


@router.post("/codebook", response_model=CodebookPlot, responses=errors(404))
async def codebook(body: PlotBody, runner: Runs, _: Owners) -> Response:
    """Draws the codebook to a file."""
    from editkit.history.plot import plot_codebook

    path = _full(body.path)
    drawn = await asyncio.to_thread(plot_codebook, runner.kit.store, path, version=body.version)
    return respond(drawn)


@router.post("/export", response_model=Exported, responses=errors(404, 409))
async def export(body: ExportBody, runner: Runs, _: Owners) -> Response:
    """Exports edits into a new folder."""
    done = await asyncio.to_thread(
        runner.kit.store.export, _full(body.path), to=body.to, since=body.since,
        only=body.only, tool=body.tool,
    )  # fmt: skip
    return respond(done)


@router.post("/import", response_model=Imported, responses={**ACCEPTED, **WRITES})
async def import_bundle(
    body: ImportBody, request: Request, runner: Runs, caller: Owners
) -> Response:
    """Imports the edits of a bundle into the history and the running model."""
    if body.dry_run:
        return respond(await asyncio.to_thread(_import, runner.kit, body))
    return await changed(
        request, runner, caller, "import", lambda kit, _: _import(kit, body), body, None, None
    )


def _import(kit: Any, body: ImportBody) -> Imported:
    try:
        done: Imported = kit.import_bundle(
            _full(body.path), on_conflict=body.on_conflict, dry_run=body.dry_run
        )
    except ArtifactsMissing as error:
        error.hint = (
            "nothing was imported: the running model would answer without them. Stop the server, "
            "`editkit import`, and `editkit replay`, which learns them"
        )
        raise
    # Other callers may see the operation, but not paths of this machine.
    return done.model_copy(update={"bundle": Path(done.bundle).name})


@router.post("/compact", response_model=Compacted, responses={**ACCEPTED, **WRITES})
async def compact(body: ChangeBody, request: Request, runner: Runs, caller: Owners) -> Response:
    """Makes the file smaller; readers wait meanwhile."""
    return await changed(request, runner, caller, "compact", _compacted, body, None, None)


def _compacted(kit: Any, _: ChangeProgress) -> OperationResult:
    done: Compacted = kit.store.compact()
    return done.model_copy(update={"store": Path(done.store).name})


def _full(path: str) -> Path:
    """Returns a full path; the server's working folder is not the client's.

    Raises:
        Refused: The path is relative.
    """
    found = Path(path)
    if not found.is_absolute():
        raise Refused(f"'{path[:100]}' is not a full path", param="path")
    return found
