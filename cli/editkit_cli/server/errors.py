"""Errors as OpenAI's clients understand them: one object, a stable code, a status that fits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from editkit.errors import (
    ArtifactsMissing,
    ContradictsEdit,
    KeyReused,
    PackageMissing,
)
from editkit_cli.server.shapes import UNSUPPORTED
from editkit_store.errors import (
    EditkitError,
    NotActive,
    NothingToUndo,
    OutputUnwritable,
    StoreDamaged,
    StoreError,
    StoreUnwritable,
    UnknownEdit,
    UnknownVersion,
    UnsafeTarget,
)
from editkit_store.records import EditStatus, LogEntry, Record

__all__ = [
    "LOG",
    "Committed",
    "ErrorBody",
    "Failure",
    "Incomplete",
    "Refused",
    "closing",
    "failure_of",
    "handle_errors",
    "internal_error",
    "out_of_memory",
    "response_of",
    "too_busy",
    "too_late",
    "too_many",
    "too_slow",
]

LOG = logging.getLogger("editkit.server")
"""Where bugs are told."""

_STATUS: tuple[tuple[type[EditkitError], int], ...] = (
    (UnknownVersion, 404),
    (UnknownEdit, 404),
    (NotActive, 409),
    (NothingToUndo, 409),
    (ContradictsEdit, 409),
    (KeyReused, 409),
    (ArtifactsMissing, 409),
    (PackageMissing, 501),
    (StoreDamaged, 500),
    (StoreUnwritable, 507),
    (StoreError, 503),
)
"""The first class that fits gives the status; all others are the request's fault: 400."""

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class Failure(Record):
    """What went wrong."""

    message: str
    type: str = Field(description="Kind of error, as OpenAI names them")
    param: str | None = Field(default=None, description="Field of the request that is to blame")
    code: str | None = Field(default=None, description="Stable name of the error")
    hint: str | None = Field(default=None, description="What to do next")
    committed: tuple[Committed, ...] | None = Field(
        default=None,
        description="Of several edits, where learning failed in the middle: those in the history",
    )


class Committed(Record):
    """An edit that was written down before a request failed."""

    edit_id: str
    version: str
    status: EditStatus | None = None


class ErrorBody(Record):
    """Body of every answer whose status is 400 or more."""

    error: Failure


class Refused(EditkitError):
    """The server does not take a request.

    Attributes:
        status: HTTP status.
        param: Field of the request that is to blame.
        headers: Of the answer.
    """

    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})


class Incomplete(EditkitError):
    """Several edits were to be added, and only some of them were.

    Attributes:
        committed: Those that were.
        cause: What went wrong then.
    """

    code = "incomplete"

    def __init__(self, entries: Sequence[LogEntry], *, total: int, cause: Exception) -> None:
        if not isinstance(cause, EditkitError):
            LOG.error("a change failed", exc_info=cause)
            cause = internal_error()
        super().__init__(
            f"{len(entries)} of {total} edits were added, then: {cause}", hint=cause.hint
        )
        self.committed = tuple(
            Committed(edit_id=one.edit_id, version=one.version, status=one.status)
            for one in entries
            if one.edit_id is not None
        )
        self.cause = cause


def too_busy(what: str, seconds: float) -> Refused:
    """Returns the refusal of a server whose line is full."""
    wait = max(1, round(seconds))
    return Refused(
        f"the server is busy: too many {what} wait already", status=429, code="busy",
        hint=f"try again in {wait} s", headers={"Retry-After": str(wait)},
    )  # fmt: skip


def too_many(which: str) -> Refused:
    """Returns the refusal of a request for which there is no place, and of its connection.

    Args:
        which: Of what kind there are too many, if not of all.
    """
    return Refused(
        f"the server is busy: too many requests{which} are under way", status=503, code="busy",
        hint="try again in 2 s; nothing was done",
        headers={"Retry-After": "2", "Connection": "close", "x-should-retry": "true"},
    )  # fmt: skip


def too_slow() -> Refused:
    """Returns the refusal of a request that did not come to its end."""
    return Refused(
        "the request took too long to arrive", status=408, code="too_slow",
        hint="nothing was done; send it in one go",
    )  # fmt: skip


def closing() -> Refused:
    """Returns the refusal of a server that is shutting down."""
    return Refused(
        "the server is shutting down",
        status=503,
        code="closing",
        headers={"Retry-After": "5"},
        hint="nothing was done; ask again when it has ended, or has started anew",
    )


def too_late() -> Refused:
    """Returns what is told where an answer took too long."""
    return Refused(
        "the answer took longer than this server's time limit", status=504, code="time_limit",
        hint="ask for less at a time",
    )  # fmt: skip


def out_of_memory() -> Refused:
    """Returns what is told where the machine has too little memory for an answer."""
    return Refused(
        "the model ran out of memory on this request", status=503, code="out_of_memory",
        hint="ask for less at a time, with a shorter prompt",
    )  # fmt: skip


def internal_error() -> Refused:
    """Returns what is told of a bug: nothing. What it was goes to the log."""
    return Refused("the server failed on this request", status=500, code="internal_error")


def failure_of(error: EditkitError) -> tuple[int, Failure]:
    """Returns the status and the body of an error."""
    if isinstance(error, Incomplete):
        status, failure = failure_of(error.cause)
        more = {"message": str(error), "committed": error.committed}
        return status, failure.model_copy(update=more)
    if isinstance(error, Refused):
        status = error.status
    else:
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 400)
    param = getattr(error, "param", None) or getattr(error, "field", None)
    message, hint = str(error), error.hint
    # In which folder the store lies is nobody's business; where results go the caller has said.
    if isinstance(error, StoreError) and not isinstance(error, OutputUnwritable | UnsafeTarget):
        full, name = str(error.path), error.path.name
        message = message.replace(full, name)
        hint = hint and hint.replace(full, name)
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return status, Failure(message=message, type=kind, param=param, code=error.code, hint=hint)


def response_of(error: EditkitError) -> JSONResponse:
    """Returns the answer that tells an error."""
    status, failure = failure_of(error)
    headers = dict(getattr(error, "headers", {}))
    if status >= 500:
        # What failed here fails again; clients of OpenAI would try it twice more by themselves.
        headers.setdefault("x-should-retry", "false")
    return JSONResponse(
        ErrorBody(error=failure).model_dump(mode="json"), status_code=status, headers=headers
    )


def handle_errors(app: FastAPI) -> None:
    """Makes every error of an application one of these."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, EditkitError)
        return response_of(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return response_of(_first_of(error.errors()))

    async def plain(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        names = {404: "unknown_path", 405: "method_not_allowed", 413: "body_too_large"}
        return response_of(
            Refused(
                f"{error.detail}", status=error.status_code,
                code=names.get(error.status_code, "http_error"), headers=error.headers,
            )
        )  # fmt: skip

    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        return response_of(internal_error())

    app.add_exception_handler(EditkitError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unforeseen)


def _first_of(problems: Any) -> Refused:
    """Returns the refusal that tells the first thing wrong with a request."""
    problem = problems[0]
    place = [str(part) for part in problem["loc"] if part not in ("body", "query", "path")]
    name = ".".join(place) or None
    if problem["type"] == "json_invalid":
        return Refused("the body is not JSON", code="not_json")
    if problem["type"] == "extra_forbidden":
        return Refused(
            f"'{name}' is not a parameter that is known here", param=name,
            code="unknown_parameter", hint="/openapi.json lists those that are",
        )  # fmt: skip
    if place and place[0] in UNSUPPORTED:
        return Refused(
            f"'{place[0]}' is not supported by this server", param=place[0],
            code="unsupported_parameter", hint="leave it out",
        )  # fmt: skip
    said = str(problem["msg"]).removeprefix("Value error, ")
    return Refused(f"'{name or 'the body'}' is not usable: {said}", param=name)
