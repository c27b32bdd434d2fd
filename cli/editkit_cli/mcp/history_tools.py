"""Tools that change which edits are active: revert, roll back, undo, replay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from pydantic import Field

from editkit.kit import Kit
from editkit_cli.mcp import render
from editkit_cli.mcp.operations import DryRunFields, ReplayOutcome, ViewOutcome, run_change
from editkit_cli.mcp.tool import Call, Reason, Tool
from editkit_cli.service.errors import Refused
from editkit_cli.service.requests import ReplayFields, RollbackFields, VersionExpression
from editkit_cli.service.schemas import Body
from editkit_cli.service.writer import ChangeProgress, OperationResult, OperationStatus
from editkit_store.history.versions import format_version
from editkit_store.records import ReplayPlan

__all__ = ["TOOLS"]

_Plan = TypeVar("_Plan")


class RevertArguments(DryRunFields):
    """Arguments of `revert`."""

    edit_id: str = Field(
        min_length=1, max_length=64, description="Id of the edit, or an unambiguous beginning of it"
    )
    reason: Reason = None


async def _revert(call: Call, arguments: RevertArguments) -> ViewOutcome:
    if arguments.dry_run:
        plan = await _planned(call, lambda kit: kit.plan_revert(arguments.edit_id))
        return ViewOutcome(state="planned", plan=plan)

    def work(kit: Kit, progress: ChangeProgress) -> OperationResult:
        return kit.revert(arguments.edit_id, progress=progress)

    return ViewOutcome(**await run_change(call, "revert", work, reason=arguments.reason))


class RollbackArguments(RollbackFields, DryRunFields):
    """Arguments of `rollback`."""

    reason: Reason = None


async def _rollback(call: Call, arguments: RollbackArguments) -> ViewOutcome:
    if arguments.dry_run:
        plan = await _planned(call, lambda kit: kit.plan_rollback(arguments.version))
        return ViewOutcome(state="planned", plan=plan)

    def work(kit: Kit, _: ChangeProgress) -> OperationResult:
        return kit.rollback(arguments.version)

    return ViewOutcome(**await run_change(call, "rollback", work, reason=arguments.reason))


class UndoArguments(DryRunFields):
    """Arguments of `undo`."""

    expect: VersionExpression | None = Field(
        default=None,
        description="The version that is to be taken back, e.g. the one that `add` returned; "
        "refused if the last change is another one by now. Give it where others edit too",
    )
    reason: Reason = None


async def _undo(call: Call, arguments: UndoArguments) -> ViewOutcome:
    def checked(kit: Kit) -> Kit:
        if arguments.expect is not None:
            last = format_version(kit.store.history.to_undo())
            wanted = call.runner.version(arguments.expect)
            if last != wanted:
                raise Refused(
                    f"the last change is '{last}', not '{wanted}'", status=409, code="moved_on",
                    param="expect", hint="call `log`; an edit that is not the last change is taken "
                    "back with `revert`",
                )  # fmt: skip
        return kit

    if arguments.dry_run:
        plan = await _planned(call, lambda kit: checked(kit).plan_undo())
        return ViewOutcome(state="planned", plan=plan)

    # The writer checks, because another change may be made before this one.
    def work(kit: Kit, _: ChangeProgress) -> OperationResult:
        return checked(kit).undo()

    return ViewOutcome(**await run_change(call, "undo", work, reason=arguments.reason))


class ReplayArguments(ReplayFields, DryRunFields):
    """Arguments of `replay`."""

    reason: Reason = None
    wait: bool = Field(
        default=True, description="False: return at once, and follow it with `operation`"
    )


async def _replay(call: Call, arguments: ReplayArguments) -> ReplayOutcome:
    to, only, method = arguments.to, arguments.only, arguments.method

    def planned(kit: Kit) -> ReplayPlan:
        return kit.plan_replay(to=to, only=only, method=method)

    plan = await _planned(call, planned)  # also refuses unknown versions before it is queued
    if arguments.dry_run:
        return ReplayOutcome(state="planned", plan=plan)

    def work(kit: Kit, progress: ChangeProgress) -> OperationResult:
        return kit.replay(to=to, only=only, method=method, progress=progress)

    return ReplayOutcome(
        **await run_change(
            call, "replay", work, wait=arguments.wait, total=max(1, plan.to_learn),
            reason=arguments.reason,
        )
    )  # fmt: skip


class OperationArguments(Body):
    """Arguments of `operation`."""

    id: str = Field(min_length=1, max_length=100, description="The `pending.id` of a change")


async def _operation(call: Call, arguments: OperationArguments) -> OperationStatus:
    return call.runner.writer.find(arguments.id)


async def _planned(call: Call, plan: Callable[[Kit], _Plan]) -> _Plan:
    return await asyncio.to_thread(plan, call.runner.kit)


TOOLS = (
    Tool(
        name="revert",
        title="Take one edit back",
        about="Take one correction back, as if it had never been; later ones stay. Use it for an "
        "edit that is wrong; for one that reaches prompts it should not there is `adjust`. Nothing "
        "is deleted: the history keeps the edit, and an `undo` brings it back. With dry_run=true "
        "it says which edits would come and go. Next: `generate` with its prompt.",
        takes=RevertArguments,
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
        takes=RollbackArguments,
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
        takes=UndoArguments,
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
        takes=ReplayArguments,
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
        takes=OperationArguments,
        gives=OperationStatus,
        act=_operation,
        said=render.pending,
    ),
)
