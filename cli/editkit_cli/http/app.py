"""The application: routes over a runner, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editkit.kit import Kit
from editkit_cli import __version__
from editkit_cli.http.routes import edits, generate, history, monitoring, openai, owner, replay
from editkit_cli.http.routes.common import ClientDisconnected
from editkit_cli.http.routes.page import add_page
from editkit_cli.mcp.endpoint import AGENTS, ROUTE, agents
from editkit_cli.service.errors import handle_errors
from editkit_cli.service.guard import Guard, Locks
from editkit_cli.service.limits import Limits
from editkit_cli.service.metrics import Metrics
from editkit_cli.service.runner import Runner

__all__ = ["create_app"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Told apart in the metrics: a client can send others without number."""

_ERROR = {"$ref": "#/components/schemas/ErrorBody"}

_ABOUT = """One running language model, the corrections that were made to it, and their history.

`/v1/models`, `/v1/chat/completions` and `/v1/completions` are OpenAI's; everything else answers
with the records that `editkit ... --json` prints. Every answer names the version of the history
that it was given on.
"""


def create_app(
    kit: Kit,
    locks: Locks,
    limits: Limits | None = None,
) -> FastAPI:
    """Returns the application that serves a kit; the kit stays the caller's to close.

    Args:
        kit: The running model; nobody else may write through it.
        locks: Who gets in.
        limits: How much is taken.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runner = Runner(kit, limits or Limits())
        app.state.runner = runner
        runner.start()
        try:
            async with agents(runner) as app.state.agents:
                yield
        finally:
            runner.events.close()
            await asyncio.to_thread(runner.close)

    app = FastAPI(
        title="editkit",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        # The pages that FastAPI brings fetch scripts from elsewhere; /openapi.json is enough.
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.owner_token = locks.owner
    app.state.sessions = locks.sessions
    for part in (openai, generate, edits, history, replay, owner, monitoring):
        app.include_router(part.router)
    app.router.routes.append(ROUTE)
    handle_errors(app)
    app.add_exception_handler(ClientDisconnected, _nobody)
    add_page(app)
    app.add_middleware(Guard, locks=locks)
    if locks.origins:  # only then, and only they, are respond that their pages may read answers
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(locks.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", *AGENTS],
            expose_headers=[
                "Location",
                "Retry-After",
                "X-Editkit-Version",
                "X-Total-Count",
                "Mcp-Session-Id",
            ],
        )
    app.add_middleware(RequestMetrics)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]  # as FastAPI says
    return app


async def _nobody(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # as nginx calls it: the client has left


def _document(app: FastAPI) -> dict[str, Any]:
    """Returns the OpenAPI document; wrong requests get 400 here, where FastAPI says 422."""
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
                    if status >= "400":  # JSON, also where the answer itself is not
                        response["content"] = {"application/json": {"schema": _ERROR}}
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema


class RequestMetrics:
    """Counts requests and how long they took; an ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts one request, by the route that took it."""
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
            # The route's own path, not the one that was asked for: those are without number.
            route = getattr(scope.get("route"), "path", "none")
            metrics: Metrics = scope["app"].state.runner.metrics
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.requests.labels(route, method, str(status)).inc()
            metrics.seconds.labels(route).observe(time.monotonic() - start)
