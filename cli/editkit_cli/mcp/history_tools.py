"""Tools that move along the history: taking back, going back, learning again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from pydantic import Field

from editkit.kit import Kit
from editkit_cli.mcp import render
from editkit_cli.mcp.operations import Changing, ReplayOutcome, ViewOutcome, carried_out
from editkit_cli.mcp.tool import Call, Reason, Tool, Version
from editkit_cli.service.errors import Refused
from editkit_cli.service.schemas import Body
from editkit_cli.service.writer import Learning, Pending, Result
from editkit_store.history.versions import format_version
from editkit_store.records import MethodName, ReplayPlan

__all__ = ["TOOLS"]

_Planned = TypeVar("_Planned")


class Reverting(Changing):
    """Arguments of `revert`."""

    edit_id: str = Field(
        min_length=1, max_length=64, description="Id of the edit, or an unambiguous beginning of it"
    )
    reason: Reason = None


async def _revert(call: Call, asked: Reverting) -> ViewOutcome:
    if asked.dry_run:
        return ViewOutcome(
            state="planned", plan=await _read(call, lambda kit: kit.plan_revert(asked.edit_id))
        )

    def act(kit: Kit, learning: Learning) -> Result:
        return kit.revert(asked.edit_id, progress=learning)

    return ViewOutcome(**await carried_out(call, "revert", act, reason=asked.reason))


class Going(Changing):
    """Arguments of `rollback`."""

    version: Version = Field(
        description="Version whose edits shall be the ones in force: `v3`, `@-`, a tag; `v0` for "
        "the model without any"
    )
    reason: Reason = None


async def _rollback(call: Call, asked: Going) -> ViewOutcome:
    if asked.dry_run:
        return ViewOutcome(
            state="planned", plan=await _read(call, lambda kit: kit.plan_rollback(asked.version))
        )
    return ViewOutcome(
        **await carried_out(
            call, "rollback", lambda kit, _: kit.rollback(asked.version), reason=asked.reason
        )
    )


class Undoing(Changing):
    """Arguments of `undo`."""

    expect: Version | None = Field(
        default=None,
        description="The version that is to be taken back, e.g. the one that `add` returned; "
        "refused if the last change is another one by now. Give it where others edit too",
    )
    reason: Reason = None


async def _undo(call: Call, asked: Undoing) -> ViewOutcome:
    def check(kit: Kit) -> Kit:
        if asked.expect is not None:
            last = format_version(kit.store.history.to_undo())
            wanted = call.runner.version(asked.expect)
            if last != wanted:
                raise Refused(
                    f"the last change is '{last}', not '{wanted}'", status=409, code="moved_on",
                    param="expect", hint="call `log`; an edit that is not the last change is taken "
                    "back with `revert`",
                )  # fmt: skip
        return kit

    if asked.dry_run:
        return ViewOutcome(
            state="planned", plan=await _read(call, lambda kit: check(kit).plan_undo())
        )
    # Checked by the writer, for another change may come in between.
    return ViewOutcome(
        **await carried_out(call, "undo", lambda kit, _: check(kit).undo(), reason=asked.reason)
    )


class Replaying(Changing):
    """Arguments of `replay`."""

    to: Version | None = Field(default=None, description="The version to replay; by default `@`")
    only: Version | None = Field(
        default=None, description="Only edits that are active at this version too, e.g. a tag"
    )
    method: MethodName | None = Field(default=None, description="Learn with this method instead")
    reason: Reason = None
    wait: bool = Field(
        default=True, description="False: return at once, and follow it with `operation`"
    )


async def _replay(call: Call, asked: Replaying) -> ReplayOutcome:
    def planned(kit: Kit) -> ReplayPlan:
        return kit.plan_replay(to=asked.to, only=asked.only, method=asked.method)

    plan = await _read(call, planned)  # also tells unknown versions before it waits in line
    if asked.dry_run:
        return ReplayOutcome(state="planned", plan=plan)

    def act(kit: Kit, learning: Learning) -> Result:
        return kit.replay(to=asked.to, only=asked.only, method=asked.method, progress=learning)

    return ReplayOutcome(
        **await carried_out(
            call, "replay", act, wait=asked.wait, total=max(1, plan.to_learn), reason=asked.reason
        )
    )


class Following(Body):
    """Arguments of `operation`."""

    id: str = Field(min_length=1, max_length=100, description="The `pending.id` of a change")


async def _operation(call: Call, asked: Following) -> Pending:
    return call.runner.writer.find(asked.id)


async def _read(call: Call, planned: Callable[[Kit], _Planned]) -> _Planned:
    return await asyncio.to_thread(planned, call.runner.kit)


TOOLS = (
    Tool(
        name="revert",
        title="Take one edit back",
        about="Take one correction back, as if it had never been; later ones stay. Use it for an "
        "edit that is wrong, or that reaches prompts it should not. Nothing is deleted: the "
        "history keeps the edit, and an `undo` brings it back. With dry_run=true it says which "
        "edits would come and go. Next: `generate` with its prompt.",
        takes=Reverting,
        gives=ViewOutcome,
        act=_revert,
        said=render.moved,
        role="edit",
        is_reading=False,
        is_destructive=True,
    ),
    Tool(
        name="rollback",
        title="Go back to a version",
        about="Make the edits of an older version the ones in force, as a new version: all that "
        "came since ceases to apply, also what others did. Use it when several changes are to be "
        "taken back at once; for one edit use `revert`, for the last change `undo`. Call it with "
        "dry_run=true first, and look at what would go. Nothing is deleted: an `undo` brings it "
        "all back.",
        takes=Going,
        gives=ViewOutcome,
        act=_rollback,
        said=render.moved,
        role="edit",
        is_reading=False,
        is_destructive=True,
        is_idempotent=False,
    ),
    Tool(
        name="undo",
        title="Take the last change back",
        about="Take the last change back, whoever made it; a second call goes one further back. "
        "Use it right after an `add` that turned out wrong, with expect set to the version that "
        "`add` returned. With dry_run=true it says which edits would come and go. To take an undo "
        "back, `rollback` to the version before it. Next: `generate` with the prompt.",
        takes=Undoing,
        gives=ViewOutcome,
        act=_undo,
        said=render.moved,
        role="edit",
        is_reading=False,
        is_destructive=True,
        is_idempotent=False,
    ),
    Tool(
        name="replay",
        title="Learn the history again",
        about="Bring the active edits of a version to this model: those that it has learned are "
        "restored, the others are learned, about a second each. Use it where a call fails with "
        "artifacts_missing. The view stays as it is. With dry_run=true it says which edits and "
        "about how many seconds. With wait=false it returns an operation; follow it with "
        "`operation`.",
        takes=Replaying,
        gives=ReplayOutcome,
        act=_replay,
        said=render.replayed,
        role="edit",
        is_reading=False,
    ),
    Tool(
        name="operation",
        title="Follow a change",
        about="See where a change stands that was taken with wait=false or took longer than the "
        "time limit: waiting, running with how many edits are done, done with its result, or "
        "failed with the reason. Changes nothing. Call it again after some seconds.",
        takes=Following,
        gives=Pending,
        act=_operation,
        said=render.pending,
    ),
)
