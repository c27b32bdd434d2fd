"""The one table of errors: the status of each, and one JSON object that tells it.

The object has the shape of OpenAI's errors, so that their clients understand it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from pydantic import Field
from starlette.responses import JSONResponse

from editkit.errors import (
    ArtifactsMissing,
    ContradictsEdit,
    KeyReused,
    PackageMissing,
)
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
    "internal_error",
    "out_of_memory",
    "response_of",
    "too_busy",
    "too_late",
    "too_many",
    "too_slow",
]

LOG = logging.getLogger("editkit.server")
"""The log of bugs."""

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
"""The status of the first class that matches; every other error is the client's: 400."""

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class Failure(Record):
    """An error."""

    message: str
    type: str = Field(description="Kind of error, as OpenAI names them")
    param: str | None = Field(default=None, description="Field of the request that is wrong")
    code: str | None = Field(default=None, description="Stable name of the error")
    hint: str | None = Field(default=None, description="What to do next")
    committed: tuple[Committed, ...] | None = Field(
        default=None,
        description="If adding several edits failed in the middle: those in the history",
    )


class Committed(Record):
    """An edit that was added before a request failed."""

    edit_id: str
    version: str
    status: EditStatus | None = None


class ErrorBody(Record):
    """Body of every response with a status of 400 or more."""

    error: Failure


class Refused(EditkitError):
    """The server refuses a request.

    Attributes:
        status: HTTP status.
        param: Field of the request that is wrong.
        headers: Headers of the response.
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
    """Only some of several edits were added.

    Attributes:
        committed: The edits that were added.
        cause: The error that ended it.
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
    """Returns the error for a full queue."""
    wait = max(1, round(seconds))
    return Refused(
        f"the server is busy: too many {what} wait already", status=429, code="busy",
        hint=f"try again in {wait} s", headers={"Retry-After": str(wait)},
    )  # fmt: skip


def too_many(which: str) -> Refused:
    """Returns the error for too many requests; it also closes the connection.

    Args:
        which: Which requests are too many; empty for all.
    """
    return Refused(
        f"the server is busy: too many requests{which} are under way", status=503, code="busy",
        hint="try again in 2 s; nothing was done",
        headers={"Retry-After": "2", "Connection": "close", "x-should-retry": "true"},
    )  # fmt: skip


def too_slow() -> Refused:
    """Returns the error for a request that did not arrive in time."""
    return Refused(
        "the request took too long to arrive", status=408, code="too_slow",
        hint="nothing was done; send it in one go",
    )  # fmt: skip


def closing() -> Refused:
    """Returns the error while the server shuts down."""
    return Refused(
        "the server is shutting down",
        status=503,
        code="closing",
        headers={"Retry-After": "5"},
        hint="nothing was done; try again after it has restarted",
    )


def too_late() -> Refused:
    """Returns the error for an answer that took too long."""
    return Refused(
        "the answer took longer than this server's time limit", status=504, code="time_limit",
        hint="ask for less at a time",
    )  # fmt: skip


def out_of_memory() -> Refused:
    """Returns the error for an answer that needs more memory than there is."""
    return Refused(
        "the model ran out of memory on this request", status=503, code="out_of_memory",
        hint="ask for less at a time, with a shorter prompt",
    )  # fmt: skip


def internal_error() -> Refused:
    """Returns the error for a bug. It reveals nothing; the details go to the log."""
    return Refused("the server failed on this request", status=500, code="internal_error")


def failure_of(error: EditkitError) -> tuple[int, Failure]:
    """Returns the status of an error, and the object that tells it."""
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
    # Clients need not know the folder of the store; paths of results they gave themselves.
    if isinstance(error, StoreError) and not isinstance(error, OutputUnwritable | UnsafeTarget):
        full, name = str(error.path), error.path.name
        message = message.replace(full, name)
        hint = hint and hint.replace(full, name)
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return status, Failure(message=message, type=kind, param=param, code=error.code, hint=hint)


def response_of(error: EditkitError) -> JSONResponse:
    """Returns the response that tells an error."""
    status, failure = failure_of(error)
    headers = dict(getattr(error, "headers", {}))
    if status >= 500:
        # It would fail again, and OpenAI's clients retry twice unless they are told not to.
        headers.setdefault("x-should-retry", "false")
    return JSONResponse(
        ErrorBody(error=failure).model_dump(mode="json"), status_code=status, headers=headers
    )
