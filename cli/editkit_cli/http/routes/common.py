"""What routes share: the running model, roles, responses of records, disconnected clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from editkit_cli.service.errors import ErrorBody, Refused
from editkit_cli.service.guard import CALLER, Caller
from editkit_cli.service.runner import Runner
from editkit_cli.service.tokens import Role
from editkit_store.records import Record

__all__ = [
    "SSE",
    "ClientDisconnected",
    "Edits",
    "EventStream",
    "Owners",
    "Reads",
    "Responses",
    "Runs",
    "Tags",
    "errors",
    "respond",
    "unless_disconnected",
]

_T = TypeVar("_T")

Responses = dict[int | str, dict[str, Any]]
"""What a route documents besides its own response."""

SSE: dict[str, Any] = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One server-sent event",
            "properties": {
                "data": {"type": "string"},
                "event": {"type": "string"},
                "id": {"type": "string"},
            },
        }
    }
}
"""Documentation of a stream of events: the schema of one event."""

_BEARER = HTTPBearer(
    auto_error=False, description="A token of `editkit token create`, or a session of the owner"
)

_ABOUT = {
    400: "The request cannot be carried out",
    401: "No token, or one that is not valid",
    403: "The token does not allow it, or the request comes from another site",
    404: "There is no such thing",
    409: "It conflicts with the current history",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "Too many requests are waiting; see Retry-After",
    500: "The server failed",
    503: "The server is busy or shutting down, out of memory, or cannot read its store",
    504: "It took longer than the time limit",
    507: "The store cannot be written",
}


def errors(*statuses: int) -> Responses:
    """Returns the documentation of a route's error responses."""
    usual = (400, 401, 403, 500, 503)
    return {
        status: {"model": ErrorBody, "description": _ABOUT[status]}
        for status in sorted({*usual, *statuses})
    }


def _runner(request: Request) -> Runner:
    found = request.app.state.runner
    assert isinstance(found, Runner)
    return found


def _may(role: Role) -> Any:
    async def check(request: Request, _: Annotated[Any, Security(_BEARER)]) -> Caller:
        caller = request.scope[CALLER]
        assert isinstance(caller, Caller)
        if not caller.may(role):
            raise Refused(
                f"this needs a token of the role '{role}'; yours is '{caller.role}'", status=403,
                code="role", hint=f"make one with `editkit token create --role {role}`",
            )  # fmt: skip
        return caller

    return Security(check)


def _owner() -> Any:
    async def check(request: Request, _: Annotated[Any, Security(_BEARER)]) -> Caller:
        caller = request.scope[CALLER]
        assert isinstance(caller, Caller)
        if caller.name is not None:
            raise Refused(
                "only the owner of the store may do this", status=403, code="owner_only",
                hint="run `editkit` on the server's machine, as the user who started it",
            )  # fmt: skip
        return caller

    return Security(check)


Runs = Annotated[Runner, Depends(_runner)]
Owners = Annotated[Caller, _owner()]
Reads = Annotated[Caller, _may("read")]
Edits = Annotated[Caller, _may("edit")]
Tags = Annotated[Caller, _may("admin")]


class ClientDisconnected(Exception):
    """The client has disconnected, so there is nobody to respond to."""


class EventStream(StreamingResponse):
    """Server-sent events, with a callback for their end.

    Args:
        lines: The events. If the client disconnects at once, the iterator is never started, so a
            ``finally`` in it would not run.
        ended: Called when they have ended, for whatever reason.
        headers: Headers of the response.
    """

    def __init__(
        self,
        lines: AsyncIterator[str],
        *,
        ended: Callable[[], None],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        plain = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(
            lines, media_type="text/event-stream", headers={**plain, **(headers or {})}
        )
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


def respond(
    found: Record | Sequence[Record],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns a response with records: exactly their JSON dump."""
    data = (
        found.model_dump(mode="json")
        if isinstance(found, Record)
        else [one.model_dump(mode="json") for one in found]
    )
    return Response(
        to_json(data, inf_nan_mode="null"),
        status_code=status,
        media_type="application/json",
        headers=dict(headers or {}),
    )


async def unless_disconnected(request: Request, work: Awaitable[_T]) -> _T:
    """Returns the result of work, unless the client disconnects before.

    Raises:
        ClientDisconnected: It did; the work is cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnected
    finally:
        for one in (working, leaving):
            one.cancel()
            with contextlib.suppress(BaseException):
                await one


async def _left(request: Request) -> None:
    # The body was read completely, so the next message is the disconnect.
    while (await request.receive())["type"] != "http.disconnect":
        pass
