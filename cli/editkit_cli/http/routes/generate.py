"""Questions of the command line: generations, and which edit fires."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from editkit_cli.http.routes.common import (
    Reads,
    Runs,
    errors,
    respond,
    unless_disconnected,
)
from editkit_cli.service.changes import check_size
from editkit_cli.service.errors import Refused
from editkit_cli.service.generation_job import GenerationRequest
from editkit_cli.service.requests import ExplainFields, GenerateBody
from editkit_store.records import Explanation, Generation

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["asking"])


@router.post(
    "/generate", response_model=list[Generation], responses=errors(404, 409, 413, 415, 429, 504)
)
async def generate(body: GenerateBody, request: Request, runner: Runs, caller: Reads) -> Response:
    """Answers of the corrected model, greedily: one generation per prompt."""
    if body.system is not None and not body.chat:
        raise Refused("'system' needs 'chat'", param="system")
    if bool(body.prompts) == bool(body.chats):
        raise Refused("give either 'prompts' or 'chats'", param="prompts")
    asks = max(len(body.prompts), len(body.chats))
    if body.max_new_tokens > runner.limits.tokens or asks > runner.limits.rows:
        raise Refused(
            f"at most {runner.limits.tokens} tokens for {runner.limits.rows} prompts are generated "
            "here", code="too_many", param="max_new_tokens",
        )  # fmt: skip
    turns = [turn.content for chat in body.chats for turn in chat]
    check_size(runner, [body.system or "", *body.prompts, *turns], param="prompts")

    def encode() -> GenerationRequest:
        encoder = runner.kit.encoder
        chats = body.conversations()
        prompts = map(encoder.chat, chats) if chats else map(encoder.prompt, body.prompts)
        version = runner.version(body.version)
        return GenerationRequest(
            prompts=tuple(prompts),
            version=version,
            limit=body.max_new_tokens,
            delivery=body.delivery,
        )

    job = runner.generate(await asyncio.to_thread(encode), caller.name)
    try:
        return respond(await unless_disconnected(request, job.records(body.questions())))
    finally:
        job.abandon()


@router.post("/explain", response_model=Explanation, responses=errors(404, 409, 413, 415, 429))
def explain(body: ExplainFields, runner: Runs, _: Reads) -> Response:
    """Which edit fires for a prompt, and how near the others are."""
    check_size(runner, body.texts, param="prompt")
    with runner.beside():
        found = runner.kit.explain(body.prompt, chat=body.chat, version=body.version, k=body.k)
    return respond(found)
