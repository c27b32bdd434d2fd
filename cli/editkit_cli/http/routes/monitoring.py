"""About the server: health, metrics and events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import Field

from editkit_cli.http.routes.common import SSE, EventStream, Reads, Runs, errors, respond
from editkit_cli.service.guard import NEAR, STILL_IN, StillIn
from editkit_cli.service.owner import proof
from editkit_store.records import Record

__all__ = ["router"]

router = APIRouter(tags=["server"])

_PAUSE = 15.0
"""Seconds of silence after which a heartbeat is sent."""

_CHECK = 1.0
"""Seconds of silence after which the listener's token is checked again."""


class Health(Record):
    """Response of `/healthz`; anybody may request it, so it reveals nothing about the model."""

    status: str = "ok"
    proof: str | None = Field(
        default=None,
        description="Proves that it is this server: HMAC-SHA256 with the owner's token, of the "
        "nonce and the address that the client connected to; null for requests from other machines",
    )


@router.get("/healthz", response_model=Health, responses=errors())
async def health(
    request: Request,
    nonce: Annotated[str | None, Query(min_length=16, max_length=64, pattern="^[0-9a-f]+$")] = None,
) -> Response:
    """Whether the server is alive. Needs no token."""
    at = request.scope["server"]
    if nonce is None or at is None or not request.scope[NEAR]:
        return respond(Health())
    return respond(Health(proof=proof(request.app.state.owner_token, nonce, *at)))


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus' text format"}, **errors()},
)
def metrics(runner: Runs, _: Reads) -> Response:
    """The metrics, for Prometheus."""
    return Response(runner.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `operation`, `learning`, `version`; their data is "
            "JSON. Comments are heartbeats",
            "content": SSE,
        },
        **errors(429),
    },
)
async def events(
    request: Request,
    runner: Runs,
    caller: Reads,
    last_event_id: Annotated[
        str | None, Header(description="Continue after this event", max_length=20)
    ] = None,
) -> Response:
    """Events from now on: operations, progress of learning, new versions.

    The stream ends when the token is revoked, when the client does not keep up, or when newer
    listeners with the same token take its place; `Last-Event-ID` continues where it ended.
    """
    after = int(last_event_id) if last_event_id and last_event_id.isascii() and (
        last_event_id.isdecimal()
    ) else None  # fmt: skip
    listener = runner.events.listen(caller.name, after)
    still_in: StillIn = request.scope[STILL_IN]

    async def lines() -> AsyncIterator[str]:
        yield ": editkit\n\n"
        silence = 0.0
        async for event in listener.follow(pause=_CHECK):
            if not still_in():
                return
            if event is not None:
                data = event.redacted if caller.needs_redaction else event.data
                yield f"id: {event.id}\nevent: {event.event}\ndata: {data.decode()}\n\n"
            silence = silence + _CHECK if event is None else 0.0
            if silence >= _PAUSE:
                yield ": still here\n\n"
                silence = 0.0

    return EventStream(lines(), ended=listener.leave)
