"""Correcting: edits that are added, listed, shown and taken back; operations to follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import Field

from editkit_cli.http.routes.common import Edits, Reads, Responses, Runs, errors, told
from editkit_cli.service.errors import Incomplete, Refused
from editkit_cli.service.guard import Caller
from editkit_cli.service.runner import Runner
from editkit_cli.service.schemas import Body
from editkit_cli.service.writer import (
    Act,
    Change,
    Learning,
    Pending,
    PendingKind,
    Result,
    unknown,
)
from editkit_store.records import (
    Added,
    Edit,
    EditKind,
    Message,
    MethodName,
    Provenance,
    ScopeName,
    ViewChanged,
)

__all__ = ["ACCEPTED", "WRITES", "Asked", "Command", "How", "Prefer", "adding", "changed", "router"]

router = APIRouter(prefix="/v1", tags=["edits"])

WRITES = errors(404, 409, 413, 415, 429, 507)

ACCEPTED: Responses = {
    202: {"model": Pending, "description": "It waits in line; follow it at Location"},
}

EditId = Annotated[str, Path(description="Id of the edit, or the beginning of it", max_length=64)]
Key = Annotated[
    str | None,
    Header(description="The same key twice is one edit, however often it is sent", max_length=255),
]
Prefer = Annotated[
    str | None,
    Header(description="`respond-async`: answer 202 with an operation to follow", max_length=1000),
]
Command = Annotated[
    str | None,
    Header(
        description="Command line behind it, for the log; the owner's word only", max_length=4096
    ),
]


class Owned(Body):
    """What only the owner's word is taken for."""

    provenance: Provenance | None = Field(
        default=None, description="What the log is to say in place of the rest; the owner's only"
    )


class Asked(Owned):
    """What every change may say about itself."""

    reason: str | None = Field(default=None, max_length=10_000, description="Why, for the log")
    author: str | None = Field(
        default=None, max_length=200, description="Who, for the log; by default the token's name"
    )
    wait: bool = Field(
        default=True, description="False: answer 202 at once, with an operation to follow"
    )


class NewEdit(Body):
    """An edit to make; the fields of an edit request, most of which may be left out."""

    prompt: str | None = Field(
        default=None, description="What is answered wrongly; of a chat the last user turn"
    )
    target: str = Field(description="What should be answered")
    kind: EditKind | None = Field(default=None, description="By default what the model can learn")
    method: MethodName = "grace"
    subject: str | None = Field(default=None, max_length=1000)
    rephrases: tuple[str, ...] = Field(default=(), max_length=100)
    locality: tuple[str, ...] = Field(default=(), max_length=100)
    chat: tuple[Message, ...] | None = Field(default=None, max_length=1000)
    scope: ScopeName | None = Field(default=None, description="By default as the model was opened")
    reason: str | None = Field(default=None, max_length=10_000)
    author: str | None = Field(default=None, max_length=200)
    source: str | None = Field(default=None, max_length=1000)
    agent: str | None = Field(default=None, max_length=200)
    conversation: str | None = Field(default=None, max_length=200)
    idempotency_key: str | None = Field(default=None, max_length=255)


class How(Owned):
    """How edits are added."""

    on_failure: Literal["record", "keep"] = Field(
        default="record", description="One that does not verify: log it only, or make it active"
    )
    on_conflict: Literal["supersede", "error", "keep"] = Field(
        default="supersede", description="Who wins where an active edit has another target"
    )
    before: bool = Field(default=False, description="Also ask what the model says without it")
    wait: bool = Field(
        default=True, description="False: answer 202 at once, with an operation to follow"
    )


class OneEdit(NewEdit, How):
    """Body of `POST /v1/edits`."""


class ManyEdits(How):
    """Body of `POST /v1/edits/batch`."""

    edits: tuple[NewEdit, ...] = Field(min_length=1, description="Learned in batches, in order")


@router.post(
    "/edits", status_code=201, response_model=Added,
    responses={
        200: {"model": Added, "description": "Nothing was added: the key was known, or kept"},
        **ACCEPTED, **WRITES,
    },
)  # fmt: skip
async def add(
    asked: OneEdit,
    request: Request,
    runner: Runs,
    caller: Edits,
    idempotency_key: Key = None,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Corrects the model: learned, verified by free generation, and written down.

    Check `verified`: an edit that does not verify is logged as failed and is not active.
    """
    if idempotency_key is not None and asked.idempotency_key not in (None, idempotency_key):
        raise Refused(
            "the header Idempotency-Key and the field 'idempotency_key' differ",
            param="idempotency_key",
        )
    fields = _fields(asked, caller)
    if idempotency_key is not None:
        fields["idempotency_key"] = idempotency_key
    act = await asyncio.to_thread(adding, runner, [fields], asked)

    def one(kit: Any, learning: Learning) -> Result:
        return act(kit, learning)[0]

    result = await _carry_out(
        request, runner, caller, "add", one, is_async=not asked.wait or _is_async(prefer),
        command=x_editkit_command, given=asked.provenance,
    )  # fmt: skip
    if isinstance(result, Added):
        status = 201 if result.outcome == "added" else 200
        return told(result, status=status, headers={"Location": f"/v1/edits/{result.edit.id}"})
    return _answer(result)


@router.post("/edits/batch", response_model=list[Added], responses={**ACCEPTED, **WRITES})
async def add_batch(
    asked: ManyEdits,
    request: Request,
    runner: Runs,
    caller: Edits,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Corrects the model many times: learned in batches, one operation of the log an edit.

    What is wrong with one of them is found before any is learned. Each is committed by itself: if
    learning fails in the middle, the error's `committed` names those that are in the history.
    """
    if len(asked.edits) > runner.limits.edits:
        raise Refused(
            f"{len(asked.edits)} edits are more than {runner.limits.edits}", code="too_many",
            param="edits", hint="send them in several requests",
        )  # fmt: skip
    requests = [_fields(one, caller) for one in asked.edits]
    act = await asyncio.to_thread(adding, runner, requests, asked)
    result = await _carry_out(
        request, runner, caller, "add", act, is_async=not asked.wait or _is_async(prefer),
        command=x_editkit_command, given=asked.provenance, total=len(asked.edits),
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
    return told([found[one] for one in wanted], headers={"X-Total-Count": str(len(ids))})


@router.get("/edits/{edit_id}", response_model=Edit, responses=errors(404))
def edit(edit_id: EditId, runner: Runs, _: Reads) -> Response:
    """One edit, active or not, as it stands at the current version."""
    history = runner.kit.store.history
    found = history.resolve_edit(edit_id)
    return told(history.edits([found], at=history.current())[found])


class Reverting(Asked):
    """Body of `POST /v1/edits/{edit_id}/revert`."""

    defer_only: bool = Field(
        default=False, description="Of an edit of ELDER: at once, its weights stay as they are"
    )


@router.post(
    "/edits/{edit_id}/revert", response_model=ViewChanged, responses={**ACCEPTED, **WRITES}
)
async def revert(
    edit_id: EditId,
    request: Request,
    runner: Runs,
    caller: Edits,
    asked: Reverting | None = None,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Takes one edit back, as if it had never been; later ones stay."""
    given = asked or Reverting()
    act = _reverting(edit_id, given.defer_only)
    return await changed(request, runner, caller, "revert", act, given, prefer, x_editkit_command)


@router.delete("/edits/{edit_id}", response_model=ViewChanged, responses={**ACCEPTED, **WRITES})
async def delete(
    edit_id: EditId,
    request: Request,
    runner: Runs,
    caller: Edits,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """The same as `revert`. Nothing is deleted: taking back is an operation of the log too."""
    act = _reverting(edit_id, False)
    return await changed(request, runner, caller, "revert", act, Asked(), prefer, x_editkit_command)


@router.get("/operations", response_model=list[Pending], responses=errors(404))
def operations(
    runner: Runs,
    _: Reads,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[
        str | None, Query(max_length=64, description="Only those asked for before this one")
    ] = None,
) -> Response:
    """Changes that wait, run, or have lately ended, newest first; since the server began.

    X-Total-Count says how many are known.
    """
    known = runner.writer.all()
    start = 0
    if before is not None:
        places = [place for place, one in enumerate(known) if one.id == before]
        if not places:
            raise unknown(before)
        start = places[0] + 1
    return told(known[start : start + limit], headers={"X-Total-Count": str(len(known))})


@router.get("/operations/{operation_id}", response_model=Pending, responses=errors(404))
def operation(
    operation_id: Annotated[str, Path(max_length=64)], runner: Runs, _: Reads
) -> Response:
    """A change that waits, runs, or has lately ended."""
    return told(runner.writer.find(operation_id))


async def changed(
    request: Request,
    runner: Runner,
    caller: Caller,
    kind: PendingKind,
    act: Act,
    asked: Asked,
    prefer: str | None,
    command: str | None,
) -> Response:
    """Carries a change out, and answers with what came of it or where it stands."""
    return _answer(
        await _carry_out(
            request, runner, caller, kind, act, is_async=not asked.wait or _is_async(prefer),
            reason=asked.reason, author=asked.author, command=command, given=asked.provenance,
        )
    )  # fmt: skip


async def _carry_out(
    request: Request,
    runner: Runner,
    caller: Caller,
    kind: PendingKind,
    act: Act,
    *,
    is_async: bool,
    total: int = 1,
    reason: str | None = None,
    author: str | None = None,
    command: str | None = None,
    given: Provenance | None = None,
) -> Result | Pending:
    """Puts a change in line; returns what comes of it, or where it stands.

    Where the result takes longer than the time limit, too, the operation is given to follow: the
    change goes on. So it does if the client leaves.
    """
    if given is not None and caller.name is not None:
        raise Refused(
            "only the owner says by whom and how a change was asked for", status=403,
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
    change = Change(kind, act, given or provenance, total, caller.name)
    runner.writer.put(change)
    if is_async:
        return change.pending
    future = asyncio.wrap_future(change.future)
    future.add_done_callback(_heard)
    done, _ = await asyncio.wait({future}, timeout=runner.limits.seconds)
    if not done:
        return change.pending
    return future.result()


def _heard(future: asyncio.Future[Result]) -> None:
    """Whoever waited may have left; what went wrong is in the operation all the same."""
    if not future.cancelled():
        future.exception()


def _answer(result: Result | Pending) -> Response:
    if isinstance(result, Pending):
        where = f"/v1/operations/{result.id}"
        return told(result, status=202, headers={"Location": where})
    return told(result)


def _is_async(prefer: str | None) -> bool:
    wanted = [part.strip().lower() for part in (prefer or "").split(",")]
    return "respond-async" in wanted


def _fields(asked: NewEdit, caller: Caller) -> dict[str, Any]:
    """Returns the fields of a request that were given."""
    given = {
        name: getattr(asked, name)
        for name in NewEdit.model_fields
        if getattr(asked, name) not in (None, ())
    }
    given.setdefault("author", caller.name)
    return {name: value for name, value in given.items() if value is not None}


def adding(
    runner: Runner, requests: Sequence[dict[str, Any]], how: How
) -> Callable[[Any, Learning], tuple[Added, ...]]:
    """Returns the act of adding edits; what is wrong with them is said before they wait.

    Args:
        runner: The running model.
        requests: Fields of the edit requests.
        how: How they are added.

    Raises:
        Refused: One of them is longer than the limit.
        EditkitError: As ``Kit.check``.
    """
    most = runner.limits.prompt_chars
    for index, fields in enumerate(requests):
        place = f"edits.{index}." if len(requests) > 1 else ""
        chat = sum(len(turn.role) + len(turn.content) for turn in fields.get("chat", ()))
        words = sum(len(one) for name in ("rephrases", "locality") for one in fields.get(name, ()))
        if len(fields.get("prompt", "")) + chat + words + len(fields["target"]) > most:
            raise Refused(
                f"an edit is longer than {most} characters", code="too_long",
                param=f"{place}prompt",
            )  # fmt: skip
        runner.kit.check(fields)

    def act(kit: Any, learning: Learning) -> tuple[Added, ...]:
        history = kit.store.history
        before = history.count()
        try:
            return tuple(
                kit.add_many(
                    requests, on_failure=how.on_failure, on_conflict=how.on_conflict,
                    before=how.before, progress=learning,
                )
            )  # fmt: skip
        except Exception as error:
            # What the log says, not what was told: a failure may come in between.
            new = history.count() - before
            if not new:
                raise
            raise Incomplete(kit.log(limit=new)[::-1], total=len(requests), cause=error) from error

    return act


def _reverting(edit_id: str, defer_only: bool) -> Act:
    return lambda kit, learning: kit.revert(edit_id, defer_only=defer_only, progress=learning)
