"""Edits: adding, listing, showing and reverting them; operations to follow."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from editkit_cli.http.routes.common import Edits, Reads, Responses, Runs, errors, respond
from editkit_cli.service.changes import check_size, only_edit, prepare_add, submit
from editkit_cli.service.errors import Refused
from editkit_cli.service.guard import Caller
from editkit_cli.service.requests import (
    AddBatchBody,
    AddBody,
    AdjustBody,
    ChangeBody,
    EditBody,
    RevertBody,
)
from editkit_cli.service.runner import Runner
from editkit_cli.service.writer import (
    OperationKind,
    OperationResult,
    OperationStatus,
    Work,
    unknown_operation,
)
from editkit_store.records import (
    Added,
    Adjusted,
    Edit,
    Provenance,
    ViewChanged,
)

__all__ = ["ACCEPTED", "WRITES", "Command", "Prefer", "adjusting", "changed", "router"]

router = APIRouter(prefix="/v1", tags=["edits"])

WRITES = errors(404, 409, 413, 415, 429, 507)

ACCEPTED: Responses = {
    202: {"model": OperationStatus, "description": "It is queued; follow it at Location"},
}

EditId = Annotated[str, Path(description="Id of the edit, or the beginning of it", max_length=64)]
Key = Annotated[
    str | None,
    Header(description="The same key twice is one edit, however often it is sent", max_length=255),
]
Prefer = Annotated[
    str | None,
    Header(description="`respond-async`: return 202 with an operation to follow", max_length=1000),
]
Command = Annotated[
    str | None,
    Header(description="Command line that requests it, for the log; owner only", max_length=4096),
]


@router.post(
    "/edits", status_code=201, response_model=Added,
    responses={
        200: {"model": Added, "description": "Nothing added: key known, or another edit kept"},
        **ACCEPTED, **WRITES,
    },
)  # fmt: skip
async def add(
    body: AddBody,
    request: Request,
    runner: Runs,
    caller: Edits,
    idempotency_key: Key = None,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Corrects the model: the edit is learned, verified by free generation, and recorded.

    Check `verified`: an edit that does not verify is logged as failed and is not active.
    """
    if idempotency_key is not None and body.idempotency_key not in (None, idempotency_key):
        raise Refused(
            "the header Idempotency-Key and the field 'idempotency_key' differ",
            param="idempotency_key",
        )
    fields = _fields(body, caller)
    if idempotency_key is not None:
        fields["idempotency_key"] = idempotency_key
    work = only_edit(await asyncio.to_thread(prepare_add, runner, [fields], body))
    result = await _submit(
        request, runner, caller, "add", work, is_async=not body.wait or _is_async(prefer),
        command=x_editkit_command, given=body.provenance,
    )  # fmt: skip
    if isinstance(result, Added):
        status = 201 if result.outcome == "added" else 200
        return respond(result, status=status, headers={"Location": f"/v1/edits/{result.edit.id}"})
    return _answer(result)


@router.post("/edits/batch", response_model=list[Added], responses={**ACCEPTED, **WRITES})
async def add_batch(
    body: AddBatchBody,
    request: Request,
    runner: Runs,
    caller: Edits,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Corrects the model many times: learned in batches, with one operation of the log per edit.

    All of them are checked before any is learned. Each is committed by itself: if learning fails in
    the middle, the error's `committed` names those that are in the history.
    """
    if len(body.edits) > runner.limits.edits:
        raise Refused(
            f"{len(body.edits)} edits are more than {runner.limits.edits}", code="too_many",
            param="edits", hint="send them in several requests",
        )  # fmt: skip
    requests = [_fields(one, caller) for one in body.edits]
    work = await asyncio.to_thread(prepare_add, runner, requests, body)
    result = await _submit(
        request, runner, caller, "add", work, is_async=not body.wait or _is_async(prefer),
        command=x_editkit_command, given=body.provenance, total=len(body.edits),
    )  # fmt: skip
    return _answer(result)


@router.get("/edits", response_model=list[Edit], responses=errors(404))
def edits(
    runner: Runs,
    _: Reads,
    version: Annotated[str, Query(description="Version expression", max_length=200)] = "@",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
) -> Response:
    """The active edits of a version, oldest first; X-Total-Count says how many there are."""
    history = runner.kit.store.history
    number = history.resolve(version)
    ids = history.active_ids(number)
    wanted = ids[offset : offset + limit]
    found = history.edits(wanted, at=number)
    return respond([found[one] for one in wanted], headers={"X-Total-Count": str(len(ids))})


@router.get("/edits/{edit_id}", response_model=Edit, responses=errors(404))
def edit(edit_id: EditId, runner: Runs, _: Reads) -> Response:
    """One edit, active or not, as of the current version."""
    history = runner.kit.store.history
    found = history.resolve_edit(edit_id)
    return respond(history.edits([found], at=history.current())[found])


@router.post(
    "/edits/{edit_id}/revert", response_model=ViewChanged, responses={**ACCEPTED, **WRITES}
)
async def revert(
    edit_id: EditId,
    request: Request,
    runner: Runs,
    caller: Edits,
    body: RevertBody | None = None,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Takes one edit back, as if it had never been made; later ones stay."""
    given = body or RevertBody()
    work = _reverting(edit_id, given.defer_only)
    return await changed(request, runner, caller, "revert", work, given, prefer, x_editkit_command)


@router.post("/edits/{edit_id}/adjust", response_model=Adjusted, responses={**ACCEPTED, **WRITES})
async def adjust(
    edit_id: EditId,
    request: Request,
    runner: Runs,
    caller: Edits,
    body: AdjustBody,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Adjusts an edit's reach: the prompts that it also applies to, and those it does not.

    Check `verified`: if the edit's target is not given at an `also` prompt, that is logged as a
    failed attempt, and the reach stays as it is.
    """
    check_size(runner, [*body.also, *body.exclude], param="also")
    work = adjusting(edit_id, body)
    return await changed(request, runner, caller, "adjust", work, body, prefer, x_editkit_command)


@router.delete("/edits/{edit_id}", response_model=ViewChanged, responses={**ACCEPTED, **WRITES})
async def delete(
    edit_id: EditId,
    request: Request,
    runner: Runs,
    caller: Edits,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """The same as `revert`. Nothing is deleted: reverting is an operation of the log, too."""
    work = _reverting(edit_id, False)
    return await changed(
        request, runner, caller, "revert", work, ChangeBody(), prefer, x_editkit_command
    )


@router.get("/operations", response_model=list[OperationStatus], responses=errors(404))
def operations(
    runner: Runs,
    _: Reads,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[
        str | None, Query(max_length=64, description="Only those requested before this one")
    ] = None,
) -> Response:
    """Changes that wait, run, or recently ended since the server started, newest first.

    X-Total-Count says how many are known.
    """
    known = runner.writer.all()
    start = 0
    if before is not None:
        places = [place for place, one in enumerate(known) if one.id == before]
        if not places:
            raise unknown_operation(before)
        start = places[0] + 1
    return respond(known[start : start + limit], headers={"X-Total-Count": str(len(known))})


@router.get("/operations/{operation_id}", response_model=OperationStatus, responses=errors(404))
def operation(
    operation_id: Annotated[str, Path(max_length=64)], runner: Runs, _: Reads
) -> Response:
    """A change that waits, runs, or recently ended."""
    return respond(runner.writer.find(operation_id))


async def changed(
    request: Request,
    runner: Runner,
    caller: Caller,
    kind: OperationKind,
    work: Work,
    body: ChangeBody,
    prefer: str | None,
    command: str | None,
) -> Response:
    """Makes a change, and responds with its result or its operation."""
    return _answer(
        await _submit(
            request, runner, caller, kind, work, is_async=not body.wait or _is_async(prefer),
            reason=body.reason, author=body.author, command=command, given=body.provenance,
        )
    )  # fmt: skip


async def _submit(
    request: Request,
    runner: Runner,
    caller: Caller,
    kind: OperationKind,
    work: Work,
    *,
    is_async: bool,
    total: int = 1,
    reason: str | None = None,
    author: str | None = None,
    command: str | None = None,
    given: Provenance | None = None,
) -> OperationResult | OperationStatus:
    """Queues a change; returns its result, or its operation if that takes too long."""
    if given is not None and caller.name is not None:
        raise Refused(
            "only the owner may state who requested a change, and how", status=403,
            code="owner_only", param="provenance", hint="leave it out",
        )  # fmt: skip
    said = f"{request.method} {request.url.path}"
    if caller.name is not None:
        said += f" (token '{caller.name}')"
    provenance = runner.provenance.model_copy(
        update={
            "author": author or (None if kind == "add" else caller.name),
            "reason": reason,
            "command": command if command and caller.name is None else said,
        }
    )
    return await submit(
        runner, kind, work, provenance=given or provenance, caller=caller.name, total=total,
        wait=not is_async,
    )  # fmt: skip


def _answer(result: OperationResult | OperationStatus) -> Response:
    if isinstance(result, OperationStatus):
        where = f"/v1/operations/{result.id}"
        return respond(result, status=202, headers={"Location": where})
    return respond(result)


def _is_async(prefer: str | None) -> bool:
    wanted = [part.strip().lower() for part in (prefer or "").split(",")]
    return "respond-async" in wanted


def _fields(body: EditBody, caller: Caller) -> dict[str, Any]:
    """Returns the fields of the edit request that were given."""
    given = {
        name: getattr(body, name)
        for name in EditBody.model_fields
        if getattr(body, name) not in (None, ())
    }
    given.setdefault("author", caller.name)
    return {name: value for name, value in given.items() if value is not None}


def adjusting(edit_id: str, body: AdjustBody) -> Work:
    """Returns the function that adjusts an edit."""
    return lambda kit, _: kit.adjust(
        edit_id, also=body.also, exclude=body.exclude, on_failure=body.on_failure
    )


def _reverting(edit_id: str, defer_only: bool) -> Work:
    return lambda kit, progress: kit.revert(edit_id, defer_only=defer_only, progress=progress)
