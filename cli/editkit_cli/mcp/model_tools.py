"""Tools that ask the running model: what it answers, and which edit makes it answer so."""

from __future__ import annotations

import asyncio

from pydantic import Field, model_validator

from editkit_cli.mcp import render
from editkit_cli.mcp.tool import Call, Tool
from editkit_cli.service.changes import check_size
from editkit_cli.service.errors import Refused
from editkit_cli.service.generation_job import GenerationRequest
from editkit_cli.service.requests import (
    DeliveryField,
    ExplainFields,
    PromptFields,
    VersionExpression,
)
from editkit_store.records import Explanation, Generation

__all__ = ["TOOLS", "check_prompt"]


def check_prompt(arguments: PromptFields) -> None:
    """Raises ``ValueError`` unless arguments have either a prompt or a conversation."""
    if (arguments.prompt is None) == (not arguments.chat):
        raise ValueError("give either 'prompt' or 'chat'")


class GenerateArguments(PromptFields):
    """Arguments of `generate`."""

    version: VersionExpression | None = Field(
        default=None, description="Answer as at this version (`v0` is the model without edits)"
    )
    max_new_tokens: int = Field(default=64, ge=1, description="Most tokens of the answer")
    delivery: DeliveryField = "exact"

    @model_validator(mode="after")
    def _has_prompt(self) -> GenerateArguments:
        check_prompt(self)
        return self


async def _generate(call: Call, arguments: GenerateArguments) -> Generation:
    runner = call.runner
    if arguments.max_new_tokens > runner.limits.tokens:
        raise Refused(
            f"'max_new_tokens' is {runner.limits.tokens} at most here", code="too_many",
            param="max_new_tokens",
        )  # fmt: skip
    check_size(runner, arguments.texts, param="prompt")

    def encode() -> GenerationRequest:
        encoder = runner.kit.encoder
        chat = arguments.chat
        ids = encoder.chat(chat) if chat else encoder.prompt(arguments.prompt or "")
        version = runner.version(arguments.version)
        return GenerationRequest(
            prompts=(tuple(ids),),
            version=version,
            limit=arguments.max_new_tokens,
            delivery=arguments.delivery,
        )

    job = runner.generate(await asyncio.to_thread(encode), call.caller.name)
    try:
        (answer,) = await job.records(arguments.texts[-1:])
    finally:
        job.abandon()
    return answer


class ExplainArguments(ExplainFields):
    """Arguments of `explain`."""

    @model_validator(mode="after")
    def _has_prompt(self) -> ExplainArguments:
        check_prompt(self)
        return self


async def _explain(call: Call, arguments: ExplainArguments) -> Explanation:
    check_size(call.runner, arguments.texts, param="prompt")

    def explain() -> Explanation:
        with call.runner.beside():
            return call.runner.kit.explain(
                arguments.prompt,
                chat=arguments.chat or None,
                version=arguments.version,
                k=arguments.k,
            )

    return await asyncio.to_thread(explain)


TOOLS = (
    Tool(
        name="generate",
        title="Ask the model",
        about="Ask the running language model, greedily, with the corrections in force. Use it to "
        "see whether an answer is wrong before you correct it, and to check afterwards that the "
        "correction holds for the prompt and for other wordings of it, and that unrelated prompts "
        "are answered as before (compare with version='v0'). Changes nothing. Returns the "
        "continuation only, the version it was given on, in `fired` the edits that applied, and in "
        "`delivered` whether the model gave the target by itself (`free`) or was held to it "
        "(`held`). "
        "If the answer is wrong: `add` with dry_run=true. If an edit fired where it should not: "
        "`explain`.",
        takes=GenerateArguments,
        gives=Generation,
        act=_generate,
        said=render.generated,
    ),
    Tool(
        name="explain",
        title="Why the model answers so",
        about="Find out which edit applies to a prompt, and how near the others are. Use it when a "
        "correction does not show for a wording where it should, or shows where it should not. "
        "Changes nothing. Returns the edit that fires, or none, and the nearest candidates with "
        "their distance and the radius of their scope: an edit applies where the distance is at "
        "most the radius. Next: `show` an edit by its id, `revert` one that reaches too far, or "
        "`add` the wording that is not reached.",
        takes=ExplainArguments,
        gives=Explanation,
        act=_explain,
        said=render.explained,
    ),
)
