"""The tools that correct the model, and how far a correction reaches."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import Field, model_validator

from editkit.kit import Kit
from editkit_cli.mcp import render
from editkit_cli.mcp.model_tools import check_prompt
from editkit_cli.mcp.operations import AddOutcome, AdjustOutcome, DryRunFields, run_change
from editkit_cli.mcp.tool import Call, Reason, Tool
from editkit_cli.service.changes import check_size, only_edit, prepare_add
from editkit_cli.service.requests import AddOptions, AdjustFields, EditFields
from editkit_store.records import AddPlan, Adjusted, EditRequest

__all__ = ["TOOLS"]


class AddArguments(EditFields, DryRunFields):
    """Arguments of `add`."""

    # Over HTTP an empty key is no key; a model that gives one probably meant to fill it in.
    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description=EditFields.model_fields["idempotency_key"].description,
    )
    on_conflict: Literal["error", "supersede", "keep"] = Field(
        default="error",
        description="If an edit in force gives another target for this prompt. `error`: refuse, "
        "and name that edit. `supersede`: the new one wins. `keep`: the other stays, and this one "
        "is left out",
    )
    wait: bool = Field(
        default=True, description="False: return at once, and follow it with `operation`"
    )

    @model_validator(mode="after")
    def _has_prompt(self) -> AddArguments:
        check_prompt(self)
        return self


async def _add(call: Call, arguments: AddArguments) -> AddOutcome:
    fields = _fields(call, arguments)
    options = AddOptions(on_conflict=arguments.on_conflict)
    # Also checks the request, so that its errors are reported before it is queued.
    work = await asyncio.to_thread(prepare_add, call.runner, [fields], options)
    if arguments.dry_run:

        def plan() -> AddPlan:
            with call.runner.beside():
                return call.runner.kit.plan_add(fields)

        return AddOutcome(state="planned", plan=await asyncio.to_thread(plan))
    return AddOutcome(
        **await run_change(
            call, "add", only_edit(work), wait=arguments.wait, reason=arguments.reason,
            conversation=arguments.conversation,
        )
    )  # fmt: skip


def _fields(call: Call, arguments: AddArguments) -> dict[str, Any]:
    """Returns the fields of the edit request that were given."""
    given = {
        name: getattr(arguments, name)
        for name in EditRequest.model_fields
        if name in AddArguments.model_fields and getattr(arguments, name) not in (None, ())
    }
    caller = {"author": call.caller.name, "agent": call.agent}
    return {**given, **{name: value for name, value in caller.items() if value is not None}}


class AdjustArguments(AdjustFields, DryRunFields):
    """Arguments of `adjust`."""

    edit_id: str = Field(
        min_length=1, max_length=64, description="Id of the edit, or an unambiguous beginning of it"
    )
    reason: Reason = None


async def _adjust(call: Call, arguments: AdjustArguments) -> AdjustOutcome:
    check_size(call.runner, [*arguments.also, *arguments.exclude], param="also")

    def act(kit: Kit) -> Adjusted:
        return kit.adjust(
            arguments.edit_id, also=arguments.also, exclude=arguments.exclude,
            dry_run=arguments.dry_run,
        )  # fmt: skip

    if arguments.dry_run:

        def plan() -> Adjusted:
            with call.runner.beside():
                return act(call.runner.kit)

        return AdjustOutcome(state="planned", plan=await asyncio.to_thread(plan))
    return AdjustOutcome(
        **await run_change(call, "adjust", lambda kit, _: act(kit), reason=arguments.reason)
    )


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
        takes=AddArguments,
        gives=AddOutcome,
        act=_add,
        said=render.added,
        role="edit",
        is_reading=False,
        is_idempotent=False,
    ),
    Tool(
        name="adjust",
        title="Correct how far an edit reaches",
        about="Say where else a correction applies, and where it does not. Use `also` for a prompt "
        "that should give an edit's target and does not, `not` for one that gives it and should "
        "not; `explain` names the edit that fired or is nearest. At each `also` prompt the model "
        "is asked, and must give the target. It takes effect at once, for everybody, and is "
        "written into the history with your reason. Check `result.verified`. With dry_run=true it "
        "only asks. Next: `generate` with the prompt; `undo` takes it back.",
        takes=AdjustArguments,
        gives=AdjustOutcome,
        act=_adjust,
        said=render.adjusted,
        role="edit",
        is_reading=False,
    ),
)
