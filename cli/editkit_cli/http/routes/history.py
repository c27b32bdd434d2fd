"""The history: versions, comparisons, tags, rollback, undo and redo."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from editkit_cli.http.routes.common import (
    Edits,
    Reads,
    Runs,
    Tags,
    errors,
    respond,
    unless_disconnected,
)
from editkit_cli.http.routes.edits import ACCEPTED, WRITES, Command, Prefer, changed
from editkit_cli.service.errors import Refused
from editkit_cli.service.requests import ChangeBody, RollbackBody, TagBody
from editkit_cli.service.runner import Deadline
from editkit_store.records import (
    LogEntry,
    Shown,
    Status,
    Tagged,
    Verified,
    ViewChanged,
)
from editkit_store.records.comparisons import Diff

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["history"])


@router.get("/versions", response_model=list[LogEntry], responses=errors(404))
def log(
    runner: Runs,
    caller: Reads,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most entries")] = 100,
    at: Annotated[str | None, Query(max_length=200, description="As of this version")] = None,
    before: Annotated[
        int | None, Query(ge=1, lt=2**63, description="Only entries before this `seq`, for paging")
    ] = None,
    containing: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Only entries with this in prompt, target, author, reason, "
            "tag, kind or version, ignoring case",
        ),
    ] = None,
) -> Response:
    """The log, newest first."""
    found = runner.kit.log(
        limit=limit, at=at, before=before, containing=containing, redacted=caller.needs_redaction
    )
    return respond(found)


@router.get("/versions/{name:path}", response_model=Shown, responses=errors(404))
def show(
    name: Annotated[str, Path(description="Version, tag, or id of an edit", max_length=200)],
    runner: Runs,
    caller: Reads,
) -> Response:
    """One version in full; for the id of an edit, the version that added it.

    User, host and command line of the machine where it was made are only shown to an admin.
    """
    return respond(runner.kit.show(name, redacted=caller.needs_redaction))


@router.post("/versions/tag", response_model=Tagged, responses={**ACCEPTED, **WRITES})
async def tag(
    body: TagBody,
    request: Request,
    runner: Runs,
    caller: Tags,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Names a version. Clients pin their requests to such names, so it needs an admin's token."""
    return await changed(
        request, runner, caller, "tag", lambda kit, _: kit.tag(body.version, body.name), body,
        prefer, x_editkit_command,
    )  # fmt: skip


@router.get("/diff", response_model=Diff, responses=errors(404, 409, 429, 504))
async def diff(
    request: Request,
    runner: Runs,
    _: Reads,
    before: Annotated[str, Query(alias="from", max_length=200)] = "@-",
    to: Annotated[str, Query(max_length=200)] = "@",
    behavior: Annotated[bool, Query(description="Also ask the model at both versions")] = False,
    probe: Annotated[
        list[str] | None, Query(max_length=16, description="Also ask this prompt")
    ] = None,
    max_new_tokens: Annotated[int, Query(ge=1, le=256)] = 16,
) -> Response:
    """What changed between two versions."""
    probes = probe or []
    if sum(map(len, probes)) > runner.limits.prompt_chars:
        raise Refused("the probes are too long", code="too_long", param="probe")
    deadline = Deadline(runner.limits.seconds)

    def compared() -> Diff:
        with runner.beside() if behavior or probes else contextlib.nullcontext():
            return runner.kit.diff(
                before, to, behavior=behavior, probes=probes, max_new_tokens=max_new_tokens,
                progress=deadline,
            )  # fmt: skip

    try:
        return respond(await unless_disconnected(request, asyncio.to_thread(compared)))
    finally:
        deadline.pass_now()


@router.post("/rollback", response_model=ViewChanged, responses={**ACCEPTED, **WRITES})
async def rollback(
    body: RollbackBody,
    request: Request,
    runner: Runs,
    caller: Edits,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Makes the edits of an older version the active ones, as a new version."""
    return await changed(
        request, runner, caller, "rollback", lambda kit, _: kit.rollback(body.version), body,
        prefer, x_editkit_command,
    )  # fmt: skip


@router.post("/undo", response_model=ViewChanged, responses={**ACCEPTED, **WRITES})
async def undo(
    request: Request,
    runner: Runs,
    caller: Edits,
    body: ChangeBody | None = None,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Takes the last change back; a second undo goes one further back."""
    return await changed(
        request, runner, caller, "undo", lambda kit, _: kit.undo(), body or ChangeBody(), prefer,
        x_editkit_command,
    )  # fmt: skip


@router.post("/redo", response_model=ViewChanged, responses={**ACCEPTED, **WRITES})
async def redo(
    request: Request,
    runner: Runs,
    caller: Edits,
    body: ChangeBody | None = None,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Takes the last undo back."""
    return await changed(
        request, runner, caller, "redo", lambda kit, _: kit.redo(), body or ChangeBody(), prefer,
        x_editkit_command,
    )  # fmt: skip


@router.get("/status", response_model=Status, responses=errors())
def status(runner: Runs, caller: Reads) -> Response:
    """The state of the store; its folder is only shown to an admin."""
    return respond(runner.status(redacted=caller.needs_redaction))


@router.get("/verify", response_model=Verified, responses=errors())
async def verify(
    runner: Runs,
    _: Edits,
    head: Annotated[str | None, Query(max_length=200, description="A head noted earlier")] = None,
) -> Response:
    """Recomputes every digest of the history. `ok` is false if something was altered.

    Changes wait meanwhile, so it needs a token that may make changes.
    """
    return respond(await asyncio.to_thread(runner.kit.store.verify, head=head))
