"""Tools that read the history: active edits, the log, differences, integrity, status.

Their results are bounded, because a history can be longer than what a model reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

from pydantic import Field

from editkit_cli.mcp import render
from editkit_cli.mcp.operations import OperationSummary
from editkit_cli.mcp.results import EditList, LogResult, StatusResult
from editkit_cli.mcp.tool import Call, Tool
from editkit_cli.service.changes import check_size
from editkit_cli.service.requests import VersionExpression
from editkit_cli.service.schemas import Body
from editkit_store.records import Edit, Shown, Verified
from editkit_store.records.comparisons import Diff

__all__ = ["TOOLS"]


class ListArguments(Body):
    """Arguments of `list`."""

    version: VersionExpression = Field(default="@", description="At this version")
    contains: str | None = Field(
        default=None, max_length=1000,
        description="Only edits with this in their prompt, target or subject, in whatever case",
    )  # fmt: skip
    limit: int = Field(default=20, ge=1, le=200, description="At most so many")
    offset: int = Field(default=0, ge=0, lt=2**31, description="Leave out so many of the newest")


async def _list(call: Call, arguments: ListArguments) -> EditList:
    def read() -> EditList:
        version = call.runner.version(arguments.version)
        history = call.runner.kit.store.history
        number = int(version[1:])
        ids = history.active_ids(number)[::-1]
        if arguments.contains is None:
            found = history.edits(
                ids[arguments.offset : arguments.offset + arguments.limit], at=number
            )
            return EditList(
                version=version, total=len(ids), edits=tuple(found[i] for i in ids if i in found)
            )
        word, found = arguments.contains.casefold(), history.edits(ids, at=number)
        like = [found[one] for one in ids if _has(found[one], word)]
        return EditList(
            version=version, total=len(like),
            edits=tuple(like[arguments.offset : arguments.offset + arguments.limit]),
        )  # fmt: skip

    return await asyncio.to_thread(read)


def _has(edit: Edit, word: str) -> bool:
    return any(word in (text or "").casefold() for text in (edit.prompt, edit.target, edit.subject))


class ShowArguments(Body):
    """Arguments of `show`."""

    name: VersionExpression = Field(
        description="A version (`v3`, `@`, `@-`), a tag, or the id of an edit"
    )
    edits: bool = Field(default=False, description="Also every edit in force there, oldest first")


async def _show(call: Call, arguments: ShowArguments) -> Shown:
    found = await asyncio.to_thread(
        lambda: call.runner.kit.show(arguments.name, redacted=call.caller.needs_redaction)
    )
    return found if arguments.edits else found.model_copy(update={"edits": ()})


class LogArguments(Body):
    """Arguments of `log`."""

    limit: int = Field(default=20, ge=1, le=1000, description="At most so many, newest first")
    at: VersionExpression | None = Field(default=None, description="As it stood at this version")


async def _log(call: Call, arguments: LogArguments) -> LogResult:
    kit = call.runner.kit
    found = await asyncio.to_thread(
        lambda: kit.log(
            limit=arguments.limit, at=arguments.at, redacted=call.caller.needs_redaction
        )
    )
    return LogResult(version=kit.version, entries=tuple(found))


class DiffArguments(Body):
    """Arguments of `diff`."""

    before: VersionExpression = Field(default="@-", description="The version to compare from")
    after: VersionExpression = Field(default="@", description="The version to compare to")
    behavior: bool = Field(
        default=False, description="Also ask the model at both: takes seconds per edit that differs"
    )
    probes: Annotated[tuple[str, ...], Field(max_length=16)] = Field(
        default=(), description="Ask these at both, too, e.g. prompts that must not change"
    )


async def _diff(call: Call, arguments: DiffArguments) -> Diff:
    check_size(call.runner, arguments.probes, param="probes")

    def compare() -> Diff:
        asks = arguments.behavior or arguments.probes
        with call.runner.beside() if asks else contextlib.nullcontext():
            return call.runner.kit.diff(
                arguments.before,
                arguments.after,
                behavior=arguments.behavior,
                probes=arguments.probes,
            )

    return await asyncio.to_thread(compare)


class VerifyArguments(Body):
    """Arguments of `verify`."""

    head: str | None = Field(
        default=None, max_length=200, description="A head noted earlier, which must still be there"
    )


async def _verify(call: Call, arguments: VerifyArguments) -> Verified:
    return await asyncio.to_thread(call.runner.kit.store.verify, head=arguments.head)


class NoArguments(Body):
    """No arguments."""


_LATELY = 10
"""Most operations in a status."""


async def _status(call: Call, _: NoArguments) -> StatusResult:
    runner = call.runner
    return StatusResult(
        model=runner.name,
        version=runner.kit.version,
        role=call.caller.role,
        store=await asyncio.to_thread(lambda: runner.status(redacted=call.caller.needs_redaction)),
        operations=tuple(map(OperationSummary.of, runner.writer.all()[:_LATELY])),
    )


TOOLS = (
    Tool(
        name="list",
        title="List the edits in force",
        about="List the corrections that are in force, newest first. Use it before you correct "
        "something, to see whether somebody has corrected it already, with `contains` for a word "
        "of it. Changes nothing. Returns edits with their ids, and how many there are in all. "
        "Next: `show` or `revert` one by its id.",
        takes=ListArguments,
        gives=EditList,
        act=_list,
        said=render.listed,
    ),
    Tool(
        name="show",
        title="Show a version or an edit",
        about="Look at one version or one edit in full: who made it, when, why, and whether this "
        "model learned it. Use it before you contradict or take back what somebody else did. "
        "Changes nothing. Next: `diff` for what a version changed, `revert` for one edit.",
        takes=ShowArguments,
        gives=Shown,
        act=_show,
        said=render.shown,
    ),
    Tool(
        name="log",
        title="Read the log",
        about="Read what was done to the model, newest first: corrections, failed ones too, and "
        "what was taken back. Use it to find the version to `rollback` to. Changes nothing. "
        "Returns versions with what made them, by whom and why.",
        takes=LogArguments,
        gives=LogResult,
        act=_log,
        said=render.logged,
    ),
    Tool(
        name="diff",
        title="Compare two versions",
        about="See what differs between two versions: edits that came and went, and with "
        "behavior=true or probes what the model answers at both, side by side. Use it after a "
        "change, to see that it did what was meant and nothing else. Changes nothing. By default "
        "the last change. Next: `undo` or `revert` what should not be.",
        takes=DiffArguments,
        gives=Diff,
        act=_diff,
        said=render.compared,
    ),
    Tool(
        name="verify",
        title="Check that the history is whole",
        about="Derive every digest of the history anew, and name what was altered or is missing. "
        "This is about the file, not about what the model says: for that, `generate`. Changes "
        "nothing, but changes wait meanwhile. Returns `ok`, and a head that, noted elsewhere, "
        "pins the whole history. If it is not ok, tell people; do not go on correcting.",
        takes=VerifyArguments,
        gives=Verified,
        act=_verify,
        said=render.verified,
        role="edit",
    ),
    Tool(
        name="status",
        title="Where things stand",
        about="See which model runs, at which version, how many edits are in force, what you may "
        "do here, and which changes wait or run. Changes nothing. A good first call.",
        takes=NoArguments,
        gives=StatusResult,
        act=_status,
        said=render.situated,
    ),
)
