"""Turns every exception of the HTTP application into an error response."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from editkit_cli.http.openai_schemas import UNSUPPORTED
from editkit_cli.service.errors import Refused, internal_error, response_of
from editkit_store.errors import EditkitError

__all__ = ["handle_errors"]

_CODES = {404: "unknown_path", 405: "method_not_allowed", 413: "body_too_large"}
"""Codes of errors that the framework raises, by status."""


def handle_errors(app: FastAPI) -> None:
    """Registers the exception handlers of an application."""

    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, EditkitError)
        return response_of(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response_of(_refusal(error.errors()))

    async def plain(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return response_of(
            Refused(
                f"{error.detail}", status=error.status_code,
                code=_CODES.get(error.status_code, "http_error"), headers=error.headers,
            )
        )  # fmt: skip

    async def unexpected(_: Request, error: Exception) -> Response:
        return response_of(internal_error())

    app.add_exception_handler(EditkitError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unexpected)


def _refusal(problems: Any) -> Refused:
    """Returns the error for the first problem of an invalid request."""
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
    message = str(problem["msg"]).removeprefix("Value error, ")
    return Refused(f"'{name or 'the body'}' is not usable: {message}", param=name)
