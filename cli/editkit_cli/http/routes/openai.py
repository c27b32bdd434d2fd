"""OpenAI's API: models, chat completions and completions."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from editkit_cli.http.openai_schemas import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatDeltaChoice,
    ChatRequest,
    Choice,
    Completion,
    CompletionRequest,
    ModelList,
    ModelObject,
    OpenAIRequest,
    ResponseMessage,
    Usage,
)
from editkit_cli.http.routes.common import (
    SSE,
    EventStream,
    Reads,
    Responses,
    Runs,
    errors,
    respond,
    unless_disconnected,
)
from editkit_cli.service.changes import check_size
from editkit_cli.service.errors import ErrorBody, Refused, failure_of
from editkit_cli.service.generation_job import GenerationJob, GenerationRequest, JobEvent
from editkit_cli.service.guard import Caller
from editkit_cli.service.runner import Runner
from editkit_store.errors import EditkitError
from editkit_store.history.versions import format_version
from editkit_store.records import Message, Record

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["OpenAI"])

VERSION = "X-Editkit-Version"
"""Header with the version that answers."""

_STREAM: Responses = {
    200: {
        "description": "The response; with `stream` its chunks, as server-sent events",
        "content": SSE,
        "headers": {VERSION: {"description": "Version that answers", "schema": {"type": "string"}}},
    }
}


@router.get("/models", response_model=ModelList, responses=errors())
def models(runner: Runs, _: Reads) -> Response:
    """The running model, and its names at tagged versions."""
    tags = runner.kit.store.history.tags()
    named = [(f"{runner.name}@{tag}", format_version(at)) for tag, at in sorted(tags.items())]
    every = [(runner.name, runner.kit.version), *named]
    return respond(ModelList(data=tuple(_model(runner, name, at) for name, at in every)))


@router.get("/models/{model:path}", response_model=ModelObject, responses=errors(404))
def model(model: str, runner: Runs, _: Reads) -> Response:
    """A model name, if it is a version of the running model."""
    return respond(_model(runner, model, runner.model_version(model)))


def _model(runner: Runner, name: str, version: str) -> ModelObject:
    return ModelObject(id=name, created=runner.created, version=version)


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={**errors(404, 409, 413, 415, 429, 504), **_STREAM},
)
async def chat(body: ChatRequest, request: Request, runner: Runs, caller: Reads) -> Response:
    """The assistant's next turn."""
    if body.max_tokens and body.max_completion_tokens:
        raise Refused(
            "'max_tokens' and 'max_completion_tokens' mean the same; give one of them",
            param="max_tokens",
        )
    turns = [
        Message(role="system" if one.role == "developer" else one.role, content=one.text)
        for one in body.messages
    ]
    check_size(runner, [turn.content for turn in turns], param="messages")
    limit = body.max_completion_tokens or body.max_tokens or runner.limits.default_tokens
    question = await asyncio.to_thread(
        _question, runner, body, limit, lambda: [runner.kit.encoder.chat(turns)]
    )
    about = _about(runner, question, "chatcmpl")
    if body.stream:
        shape = ChatShape(about, first=[ChatDelta(role="assistant", content="")])
        return await _streamed(request, runner, question, caller, shape, body.tells_usage)
    done = await _finished(request, runner, question, caller)
    choices = tuple(
        ChatChoice(
            index=index,
            message=ResponseMessage(content=one.text),
            finish_reason=one.ending or "stop",
            fired=one.fired,
            delivered=one.delivered,
        )
        for index, one in enumerate(done.answers)
    )
    answer = ChatCompletion(**about, choices=choices, usage=_usage(done))
    return respond(answer, headers={VERSION: question.version})


@router.post(
    "/completions",
    response_model=Completion,
    responses={**errors(404, 409, 413, 415, 429, 504), **_STREAM},
)
async def complete(
    body: CompletionRequest, request: Request, runner: Runs, caller: Reads
) -> Response:
    """Continuations of plain prompts, without surrounding whitespace."""
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    check_size(runner, prompts, param="prompt")
    question = await asyncio.to_thread(
        _question,
        runner,
        body,
        body.max_tokens or 16,
        lambda: [runner.kit.encoder.prompt(prompt) for prompt in prompts],
    )
    about = _about(runner, question, "cmpl")
    if body.stream:
        shape = CompletionShape(about)
        return await _streamed(request, runner, question, caller, shape, body.tells_usage)
    done = await _finished(request, runner, question, caller)
    choices = tuple(
        Choice(
            index=index,
            text=one.text,
            finish_reason=one.ending,
            fired=one.fired,
            delivered=one.delivered,
        )  # fmt: skip
        for index, one in enumerate(done.answers)
    )
    answer = Completion(**about, choices=choices, usage=_usage(done))
    return respond(answer, headers={VERSION: question.version})


def _question(
    runner: Runner,
    body: OpenAIRequest,
    limit: int,
    encoded: Callable[[], list[tuple[int, ...]]],
) -> GenerationRequest:
    """Returns what to generate. It encodes and resolves the version, so it runs in a thread."""
    if body.stream_options is not None and not body.stream:
        raise Refused("'stream_options' needs 'stream'", param="stream_options")
    if limit > runner.limits.tokens:
        raise Refused(
            f"{limit} tokens are more than this server gives, which is {runner.limits.tokens}",
            param="max_tokens",
        )
    version = runner.model_version(body.model)
    prompts = tuple(encoded())
    if len(prompts) * (body.n or 1) > runner.limits.rows:
        raise Refused(
            f"prompts times 'n' are more than {runner.limits.rows}", code="too_many", param="n",
            hint="ask several times",
        )  # fmt: skip
    top_p = 1.0 if body.top_p is None else body.top_p
    temperature = body.temperature
    if temperature is None:  # greedy, unless the client sets top_p, which only sampling uses
        temperature = 0.0 if top_p == 1 else 1.0
    return GenerationRequest(
        prompts=prompts,
        version=version,
        limit=limit,
        copies=body.n or 1,
        stops=tuple(body.stops),
        temperature=temperature,
        top_p=top_p,
        seed=body.seed,
        delivery=body.delivery or "exact",
    )


def _about(runner: Runner, question: GenerationRequest, prefix: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": f"{runner.name}@{question.version}",
        "version": question.version,
        "system_fingerprint": runner.kit.fingerprint,
    }


def _usage(job: GenerationJob) -> Usage:
    prompt, completion = job.prompt_tokens, job.completion_tokens
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


async def _finished(
    request: Request, runner: Runner, question: GenerationRequest, caller: Caller
) -> GenerationJob:
    job = runner.generate(question, caller.name)
    try:
        await unless_disconnected(request, job.finished())
    finally:
        job.abandon()
    return job


class ChatShape:
    """Chunks of a chat."""

    def __init__(self, about: dict[str, Any], first: Sequence[ChatDelta]) -> None:
        self._about = about
        self._first = first

    def begin(self, count: int) -> list[Record]:
        """Returns the chunks before any text."""
        return [
            self._chunk(ChatDeltaChoice(index=index, delta=delta))
            for index in range(count)
            for delta in self._first
        ]

    def part(self, part: JobEvent, job: GenerationJob) -> Record:
        """Returns the chunk for new text, or for an end."""
        answer = job.answers[part.index]
        if part.is_last:
            return self._chunk(
                ChatDeltaChoice(
                    index=part.index, delta=ChatDelta(), finish_reason=answer.ending,
                    fired=answer.fired, delivered=answer.delivered,
                )
            )  # fmt: skip
        return self._chunk(ChatDeltaChoice(index=part.index, delta=ChatDelta(content=part.text)))

    def usage(self, usage: Usage) -> Record:
        """Returns the last chunk."""
        return ChatChunk(**self._about, choices=(), usage=usage)

    def _chunk(self, choice: ChatDeltaChoice) -> Record:
        return ChatChunk(**self._about, choices=(choice,))


class CompletionShape:
    """Chunks of plain continuations."""

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about

    def begin(self, count: int) -> list[Record]:
        """Returns the chunks before any text: none."""
        return []

    def part(self, part: JobEvent, job: GenerationJob) -> Record:
        """Returns the chunk for new text, or for an end."""
        answer = job.answers[part.index]
        choice = Choice(
            index=part.index,
            text=part.text,
            finish_reason=answer.ending if part.is_last else None,
            fired=answer.fired if part.is_last else None,
            delivered=answer.delivered if part.is_last else None,
        )
        return Completion(**self._about, choices=(choice,))

    def usage(self, usage: Usage) -> Record:
        """Returns the last chunk."""
        return Completion(**self._about, choices=(), usage=usage)


async def _streamed(
    request: Request,
    runner: Runner,
    question: GenerationRequest,
    caller: Caller,
    shape: ChatShape | CompletionShape,
    tells_usage: bool,
) -> Response:
    job = runner.generate(question, caller.name, is_streamed=True)
    parts = job.parts()
    try:
        # Errors before the first text still get their own status.
        first = await unless_disconnected(request, anext(parts))
    except BaseException:
        job.abandon()
        raise

    async def lines() -> AsyncIterator[str]:
        try:
            for chunk in shape.begin(len(job.answers)):
                yield _line(chunk)
            yield _line(shape.part(first, job))
            async for part in parts:
                yield _line(shape.part(part, job))
            if tells_usage:
                yield _line(shape.usage(_usage(job)))
            yield "data: [DONE]\n\n"
        except EditkitError as error:
            yield _line(ErrorBody(error=failure_of(error)[1]))

    return EventStream(lines(), ended=job.abandon, headers={VERSION: question.version})


def _line(record: Record) -> str:
    return f"data: {record.model_dump_json()}\n\n"
