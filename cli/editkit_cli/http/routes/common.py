"""What routes share: the running model, who may, how records are sent, and who has left."""

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
"""What a route documents beside its own answer."""

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
"""How a stream of events is documented: by one of them."""

_BEARER = HTTPBearer(
    auto_error=False, description="A token of `editkit token create`, or the owner's"
)

_ABOUT = {
    400: "The request cannot be carried out",
    401: "No token, or one that is not valid",
    403: "The token does not allow it, or the request comes from another site",
    404: "There is no such thing",
    409: "At odds with the history as it is",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "Too much waits already; see Retry-After",
    500: "The server failed",
    503: "The server is busy or shutting down, its memory is short, or its store is not there",
    504: "It took longer than the time limit",
    507: "The store cannot grow",
}


def errors(*statuses: int) -> Responses:
    """Returns what a route documents beside its own answer."""
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
                "this is for the owner of the store only", status=403, code="owner_only",
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
    """The client has left; there is nobody to answer."""


class EventStream(StreamingResponse):
    """Server-sent events, and what is to be done when they end.

    Args:
        lines: The events. Where the client leaves at once they are never begun, so that nothing
            that is behind a ``finally`` in them would run.
        ended: Called once they have ended, however that came.
        headers: Of the answer.
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
    """Returns records as an answer: exactly their JSON dump."""
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
    """Returns what comes of something, unless the client leaves before.

    Raises:
        ClientDisconnected: The client left; the work is cancelled.
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
    # The body has been read in full, so what comes next is that the client has left.
    while (await request.receive())["type"] != "http.disconnect":
        pass
