"""The web page: its files, signing in, and the signed-in caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, Request, Response
from pydantic import Field

from editkit_cli.http.page import FILES, SECONDS, PageKeys
from editkit_cli.http.routes.common import Reads, Runs, errors, respond
from editkit_cli.service.errors import Refused
from editkit_cli.service.guard import NEAR
from editkit_cli.service.requests import SignInBody
from editkit_cli.service.schemas import SessionToken
from editkit_cli.service.tokens import Role
from editkit_store.records import Record

__all__ = ["add_page", "new_session"]

router = APIRouter(tags=["page"])

_HEADERS = {
    # The page loads nothing from elsewhere; trusted types forbid HTML from strings.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Adds the page to an application; ``app.state.page_keys`` creates links to it."""
    app.state.page_keys = PageKeys()
    app.include_router(router)


@router.get("/", include_in_schema=False)
@router.get("/web/{name}", include_in_schema=False)
async def file(request: Request, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """A file of the page; an unchanged one is not sent again."""
    found = FILES.get(request.url.path)
    if found is None:
        raise Refused("the page has no such file", status=404, code="unknown_path")
    headers = {**_HEADERS, "ETag": found.etag}
    if if_none_match is not None and found.etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.kind, headers=headers)


class Whoami(Record):
    """The caller, and the running model."""

    name: str | None = Field(description="Name of the token; null is the owner")
    role: Role = Field(description="What the token allows")
    is_owner: bool
    model: str = Field(description="Name of the running model")
    has_chat: bool = Field(
        description="Whether it has a chat template; otherwise plain prompts only"
    )


@router.get("/v1/whoami", response_model=Whoami, responses=errors())
def whoami(runner: Runs, caller: Reads) -> Response:
    """The name and role of the token, and the running model."""
    return respond(
        Whoami(
            name=caller.name,
            role=caller.role,
            is_owner=caller.name is None,
            model=runner.name,
            has_chat=bool(getattr(runner.kit.tokenizer, "chat_template", None)),
        )
    )


@router.post("/v1/session", response_model=SessionToken, responses=errors(413, 415))
async def sign_in(body: SignInBody, request: Request) -> Response:
    """Exchanges the key of a link for a session of the owner, once; from this machine only."""
    # From other machines a session would be refused, so none is begun.
    if not request.scope[NEAR] or not request.app.state.page_keys.take(body.key):
        raise Refused(
            "the link has been used, is too old, or is another server's", status=403,
            code="key_refused", hint="`editkit token link` makes a new one",
        )  # fmt: skip
    return new_session(request)


def new_session(request: Request) -> Response:
    """Begins a session of the owner, and responds with its token."""
    session = SessionToken(token=request.app.state.sessions.begin())
    return respond(session, headers={"Cache-Control": "no-store"})


class PageLink(Record):
    """A link that opens the page, signed in as the owner."""

    path: str = Field(repr=False, description="Path after the server's address")
    seconds: float = Field(description="How long it is valid; it works once")


@router.post("/v1/session/links", response_model=PageLink, responses=errors(413, 415))
async def link(request: Request, caller: Reads) -> Response:
    """Creates a link that opens the page, signed in as the owner; owner only."""
    if caller.name is not None:
        raise Refused(
            "only the owner of the store can make a link that signs in as the owner", status=403,
            code="role", hint="open the page, and sign in with your own token",
        )  # fmt: skip
    made = PageLink(path=request.app.state.page_keys.link(), seconds=SECONDS)
    return respond(made, headers={"Cache-Control": "no-store"})
