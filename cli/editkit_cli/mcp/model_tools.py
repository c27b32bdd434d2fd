"""Tools that ask the running model: what it says, and which edit makes it say so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from editkit_cli.http.routes.common import check_size
from editkit_cli.mcp import render
from editkit_cli.mcp.tool import Call, Tool, Version
from editkit_cli.service.errors import Refused
from editkit_cli.service.generation_job import Question
from editkit_cli.service.schemas import Body
from editkit_store.records import Explanation, Generation, Message

__all__ = ["CHAT", "TOOLS", "Asked"]

CHAT = (
    "Instead of `prompt`: the conversation up to and including the user's turn, through the "
    "model's chat template. Use it where users chat with the model"
)


class Asked(Body):
    """A prompt, or a conversation."""

    prompt: str | None = Field(
        default=None, description="Text that the model continues, exactly as it is given"
    )
    chat: Annotated[tuple[Message, ...], Field(max_length=1000)] | None = Field(
        default=None, description=CHAT
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Asked:
        if (self.prompt is None) == (not self.chat):
            raise ValueError("give either 'prompt' or 'chat'")
        return self

    @property
    def words(self) -> Sequence[str]:
        """All that was said."""
        return [self.prompt or "", *(turn.content for turn in self.chat or ())]

    @property
    def last(self) -> str:
        """The prompt; of a conversation the user's turn."""
        return self.prompt if self.prompt is not None else (self.chat or ())[-1].content


class Generating(Asked):
    """Arguments of `generate`."""

    version: Version | None = Field(
        default=None, description="Answer as at this version (`v0` is the model without edits)"
    )
    max_new_tokens: int = Field(default=64, ge=1, description="Tokens at most")


async def _generate(call: Call, asked: Generating) -> Generation:
    runner = call.runner
    if asked.max_new_tokens > runner.limits.tokens:
        raise Refused(
            f"'max_new_tokens' is {runner.limits.tokens} at most here", code="too_many",
            param="max_new_tokens",
        )  # fmt: skip
    check_size(runner, asked.words, param="prompt")

    def question() -> Question:
        encoder = runner.kit.encoder
        ids = encoder.prompt(asked.prompt or "") if not asked.chat else encoder.chat(asked.chat)
        version = runner.version(asked.version)
        return Question(prompts=(tuple(ids),), version=version, limit=asked.max_new_tokens)

    running = runner.ask(await asyncio.to_thread(question), call.caller.name)
    try:
        (answer,) = await running.finished()
    finally:
        running.abandon()
    return Generation(
        text=answer.text,
        version=running.question.version,
        fired=answer.fired,
        prompt=asked.last,
        tokens=answer.tokens,
        finish_reason=answer.ending or "stop",
    )


class Explaining(Asked):
    """Arguments of `explain`."""

    version: Version | None = Field(default=None, description="As at this version")
    k: int = Field(default=5, ge=1, le=100, description="How many of the nearest edits to name")


async def _explain(call: Call, asked: Explaining) -> Explanation:
    check_size(call.runner, asked.words, param="prompt")

    def explain() -> Any:
        with call.runner.beside():
            return call.runner.kit.explain(
                asked.prompt, chat=asked.chat or None, version=asked.version, k=asked.k
            )

    found = await asyncio.to_thread(explain)
    assert isinstance(found, Explanation)
    return found


TOOLS = (
    Tool(
        name="generate",
        title="Ask the model",
        about="Ask the running language model, greedily, with the corrections in force. Use it to "
        "see whether an answer is wrong before you correct it, and to check afterwards that the "
        "correction holds for the prompt and for other wordings of it, and that unrelated prompts "
        "are answered as before (compare with version='v0'). Changes nothing. Returns the "
        "continuation only, the version it was given on, and in `fired` the edits that applied. "
        "If the answer is wrong: `add` with dry_run=true. If an edit fired where it should not: "
        "`explain`.",
        takes=Generating,
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
        takes=Explaining,
        gives=Explanation,
        act=_explain,
        said=render.explained,
    ),
)
