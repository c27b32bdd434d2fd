"""The HTTP application: routes over a runner, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editkit.kit import Kit
from editkit_cli import __version__
from editkit_cli.http.errors import handle_errors
from editkit_cli.http.page import PATHS
from editkit_cli.http.routes import edits, generate, history, monitoring, openai, owner, replay
from editkit_cli.http.routes.common import ClientDisconnected
from editkit_cli.http.routes.page import add_page
from editkit_cli.service.guard import Guard, Locks
from editkit_cli.service.limits import Limits
from editkit_cli.service.metrics import Metrics
from editkit_cli.service.mounts import Mount
from editkit_cli.service.runner import Runner

__all__ = ["create_app"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Labels of the metrics: clients can send any number of other methods."""

_ERROR = {"$ref": "#/components/schemas/ErrorBody"}

_ABOUT = """One running language model, the corrections that were made to it, and their history.

`/v1/models`, `/v1/chat/completions` and `/v1/completions` are OpenAI's; everything else answers
with the records that `editkit ... --json` prints. Every response names the version of the history
that answered.
"""


def create_app(
    kit: Kit,
    locks: Locks,
    limits: Limits | None = None,
    mounts: Sequence[Mount] = (),
) -> FastAPI:
    """Returns the application that serves a kit; the caller closes the kit.

    Args:
        kit: The running model; nobody else may write through it.
        locks: Who gets in.
        limits: How much the server accepts.
        mounts: Applications to serve beside the routes.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runner = Runner(kit, limits or Limits())
        app.state.runner = runner
        runner.start()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for mount in mounts:
                    await stack.enter_async_context(mount.running(runner))
                yield
        finally:
            runner.events.close()
            await asyncio.to_thread(runner.close)

    app = FastAPI(
        title="editkit",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        # FastAPI's own pages load scripts from elsewhere; /openapi.json is enough.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.owner_token = locks.owner
    app.state.sessions = locks.sessions
    for part in (openai, generate, edits, history, replay, owner, monitoring):
        app.include_router(part.router)
    app.router.routes.extend(mount.route for mount in mounts)
    handle_errors(app)
    app.add_exception_handler(ClientDisconnected, _no_response)
    add_page(app)
    app.add_middleware(Guard, locks=dataclasses.replace(locks, public={*locks.public, *PATHS}))
    if locks.origins:  # no other site is allowed to read responses
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(locks.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "Prefer",
                *(header for mount in mounts for header in mount.headers),
            ],
            expose_headers=[
                "Location",
                "Retry-After",
                "X-Editkit-Version",
                "X-Total-Count",
                "Mcp-Session-Id",
            ],
        )
    app.add_middleware(RequestMetrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # as FastAPI documents it
    return app


async def _no_response(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nginx's code for a client that has disconnected


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Returns the OpenAPI document. Invalid requests get 400 here, not FastAPI's 422."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            separate_input_output_schemas=False,
        )
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                for status, response in operation["responses"].items():
                    if status >= "400":  # errors are JSON even if the response is not
                        response["content"] = {"application/json": {"schema": _ERROR}}
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema


class RequestMetrics:
    """Counts requests and measures their duration; an ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts one request under its route."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            # The path of the route: the paths of requests are unbounded.
            route = getattr(scope.get("route"), "path", "none")
            metrics: Metrics = scope["app"].state.runner.metrics
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.requests.labels(route, method, str(status)).inc()
            metrics.seconds.labels(route).observe(time.monotonic() - start)
