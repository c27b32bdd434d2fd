"""The tool that corrects the model."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from pydantic import Field

from editkit_cli.http.routes.edits import How, adding
from editkit_cli.mcp import render
from editkit_cli.mcp.model_tools import Asked
from editkit_cli.mcp.operations import AddOutcome, Changing, carried_out
from editkit_cli.mcp.tool import Call, Reason, Tool
from editkit_cli.service.writer import Learning, Result
from editkit_store.records import AddPlan, EditKind, EditRequest, MethodName, ScopeName

__all__ = ["TOOLS"]

_Texts = Annotated[tuple[str, ...], Field(max_length=100)]


class Adding(Asked, Changing):
    """Arguments of `add`."""

    target: str = Field(
        description="What the model should answer: just the answer, as it would say it, e.g. "
        "`Canberra`. Short targets hold best"
    )
    rephrases: _Texts = Field(
        default=(), description="Other wordings of the prompt that should give the target too"
    )
    locality: _Texts = Field(
        default=(), description="Prompts near this one whose answers must not change"
    )
    subject: str | None = Field(
        default=None, max_length=1000, description="What the prompt is about, e.g. `Australia`"
    )
    on_conflict: Literal["error", "supersede", "keep"] = Field(
        default="error",
        description="Where an edit in force gives another target for this prompt. `error`: refuse, "
        "and name that edit. `supersede`: the new one wins. `keep`: the other stays, and this one "
        "is left out",
    )
    reason: Reason = None
    conversation: str | None = Field(
        default=None, max_length=200,
        description="Id of the conversation in which the wrong answer was seen",
    )  # fmt: skip
    source: str | None = Field(
        default=None, max_length=1000, description="Where the right answer comes from"
    )
    idempotency_key: str | None = Field(
        default=None, min_length=1, max_length=255,
        description="The same key twice is one edit: give one if you may have to call again, e.g. "
        "after a timeout, and then repeat all arguments",
    )  # fmt: skip
    kind: EditKind | None = Field(
        default=None, description="`passage` for a target of a sentence or more; else leave it out"
    )
    method: MethodName = Field(default="grace", description="Leave it out unless told otherwise")
    scope: ScopeName | None = Field(
        default=None, description="How far it reaches beyond its own wording; leave it out at first"
    )
    wait: bool = Field(
        default=True, description="False: return at once, and follow it with `operation`"
    )


async def _add(call: Call, asked: Adding) -> AddOutcome:
    fields = _fields(call, asked)
    how = How(on_conflict=asked.on_conflict)
    # Checks the request, too: what is wrong with it is said before it waits.
    act = await asyncio.to_thread(adding, call.runner, [fields], how)
    if asked.dry_run:

        def plan() -> AddPlan:
            with call.runner.beside():
                return call.runner.kit.plan_add(fields)

        return AddOutcome(state="planned", plan=await asyncio.to_thread(plan))

    def one(kit: Any, learning: Learning) -> Result:
        return act(kit, learning)[0]

    return AddOutcome(
        **await carried_out(
            call, "add", one, wait=asked.wait, reason=asked.reason, conversation=asked.conversation
        )
    )


def _fields(call: Call, asked: Adding) -> dict[str, Any]:
    """Returns the fields of the request that were given."""
    given = {
        name: getattr(asked, name)
        for name in EditRequest.model_fields
        if name in Adding.model_fields and getattr(asked, name) not in (None, ())
    }
    told = {"author": call.caller.name, "agent": call.agent}
    return {**given, **{name: value for name, value in told.items() if value is not None}}


TOOLS = (
    Tool(
        name="add",
        title="Correct the model",
        about="Correct the running model: this prompt shall give that target. First ask with "
        "`generate` what it says, and call this with dry_run=true: that learns nothing, and tells "
        "what the model answers now, which edits in force the new one contradicts or replaces, and "
        "how near the nearest ones are. Then call it without. Learning takes about a second and is "
        "verified by asking the model; it takes effect at once, for everybody, and is written "
        "into the history with your reason. Check `result.verified`: an edit that did not verify "
        "is not in force, and the model answers as before. Only what people agree is right should "
        "be taught. Next: `generate` with the prompt, another wording of it and something "
        "unrelated; `undo` takes it back.",
        takes=Adding,
        gives=AddOutcome,
        act=_add,
        said=render.added,
        role="edit",
        is_reading=False,
        is_idempotent=False,
    ),
)
