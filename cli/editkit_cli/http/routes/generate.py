"""Asking as the command line does: plain generations, and why the model answers so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from editkit_cli.http.routes.common import (
    Expression,
    Reads,
    Runs,
    check_size,
    errors,
    told,
    unless_gone,
)
from editkit_cli.service.errors import Refused
from editkit_cli.service.generation_job import Question
from editkit_cli.service.schemas import Body
from editkit_store.records import Explanation, Generation, Message

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["asking"])


class Generating(Body):
    """Body of `POST /v1/generate`."""

    prompts: tuple[str, ...] = Field(default=(), max_length=16)
    chats: tuple[Annotated[tuple[Message, ...], Field(max_length=1000)], ...] = Field(
        default=(), max_length=16, description="Or whole conversations, each ending with the user"
    )
    chat: bool = Field(default=False, description="Each prompt is a user turn")
    system: str | None = Field(default=None, description="System message before each, in a chat")
    version: Expression | None = None
    max_new_tokens: int = Field(default=64, ge=1)

    def conversations(self) -> list[Sequence[Message]]:
        """Returns what goes through the chat template; nothing where the prompts are plain."""
        if not self.chat:
            return list(self.chats)
        before = [] if self.system is None else [Message(role="system", content=self.system)]
        return [[*before, Message(role="user", content=prompt)] for prompt in self.prompts]

    def questions(self) -> list[str]:
        """Returns what was asked last in each."""
        return list(self.prompts) or [chat[-1].content for chat in self.chats]


@router.post(
    "/generate", response_model=list[Generation], responses=errors(404, 409, 413, 415, 429, 504)
)
async def generate(asked: Generating, request: Request, runner: Runs, caller: Reads) -> Response:
    """What the corrected model says, greedily: one generation a prompt."""
    if asked.system is not None and not asked.chat:
        raise Refused("'system' needs 'chat'", param="system")
    if bool(asked.prompts) == bool(asked.chats):
        raise Refused("give either 'prompts' or 'chats'", param="prompts")
    asks = max(len(asked.prompts), len(asked.chats))
    if asked.max_new_tokens > runner.limits.tokens or asks > runner.limits.rows:
        raise Refused(
            f"this server gives {runner.limits.tokens} tokens to {runner.limits.rows} prompts at "
            "most", code="too_many", param="max_new_tokens",
        )  # fmt: skip
    turns = [turn.content for chat in asked.chats for turn in chat]
    check_size(runner, [asked.system or "", *asked.prompts, *turns], param="prompts")

    def question() -> Question:
        encoder = runner.kit.encoder
        chats = asked.conversations()
        prompts = map(encoder.chat, chats) if chats else map(encoder.prompt, asked.prompts)
        version = runner.version(asked.version)
        return Question(prompts=tuple(prompts), version=version, limit=asked.max_new_tokens)

    running = runner.ask(await asyncio.to_thread(question), caller.name)
    try:
        answers = await unless_gone(request, running.finished())
    finally:
        running.abandon()
    return told(
        [
            Generation(
                text=one.text,
                version=running.question.version,
                fired=one.fired,
                prompt=prompt,
                tokens=one.tokens,
                finish_reason=one.ending or "stop",
            )
            for prompt, one in zip(asked.questions(), answers, strict=True)
        ]
    )


class Explaining(Body):
    """Body of `POST /v1/explain`."""

    prompt: str | None = Field(default=None, description="A prompt, or a chat")
    chat: Annotated[tuple[Message, ...], Field(max_length=1000)] | None = None
    version: Expression | None = None
    k: int = Field(default=5, ge=1, le=100, description="Candidates, nearest first")


@router.post("/explain", response_model=Explanation, responses=errors(404, 409, 413, 415, 429))
def explain(asked: Explaining, runner: Runs, _: Reads) -> Response:
    """Which edit fires for a prompt, and how near the others are."""
    turns = [turn.content for turn in asked.chat or ()]
    check_size(runner, [asked.prompt or "", *turns], param="prompt")
    with runner.beside():
        found = runner.kit.explain(asked.prompt, chat=asked.chat, version=asked.version, k=asked.k)
    return told(found)
