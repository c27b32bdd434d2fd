"""Making changes through the queue of the running model, as HTTP routes and MCP tools both do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from editkit_cli.service.errors import Incomplete, Refused
from editkit_cli.service.requests import AddOptions
from editkit_cli.service.writer import (
    ChangeProgress,
    OperationKind,
    OperationResult,
    OperationStatus,
    QueuedChange,
    Work,
)
from editkit_store.records import Added, Provenance

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_cli.service.runner import Runner

__all__ = ["check_size", "only_edit", "prepare_add", "submit"]


async def submit(
    runner: Runner,
    kind: OperationKind,
    work: Work,
    *,
    provenance: Provenance,
    caller: str | None,
    total: int = 1,
    wait: bool = True,
) -> OperationResult | OperationStatus:
    """Queues a change and waits for its result.

    If it takes longer than the time limit, or is not awaited, its operation is returned: the change
    goes on. It also goes on if the client disconnects.

    Args:
        runner: The running model.
        kind: Kind of the change.
        work: Makes the change, in the writer's thread.
        provenance: Recorded in the log.
        caller: Name of the caller's token; ``None`` is the owner.
        total: Number of edits to learn.
        wait: Whether to wait for the result.

    Raises:
        EditkitError: The change failed, or too many are waiting.
    """
    change = QueuedChange(kind, work, provenance, total, caller)
    runner.writer.put(change)
    if not wait:
        return change.operation
    future = asyncio.wrap_future(change.future)
    future.add_done_callback(_retrieve)
    done, _ = await asyncio.wait({future}, timeout=runner.limits.seconds)
    return future.result() if done else change.operation


def _retrieve(future: asyncio.Future[OperationResult]) -> None:
    # If the client has left, nobody looks at the error; the operation has it all the same.
    if not future.cancelled():
        future.exception()


def prepare_add(
    runner: Runner, requests: Sequence[dict[str, Any]], options: AddOptions
) -> Callable[[Kit, ChangeProgress], tuple[Added, ...]]:
    """Checks edit requests before they are queued; returns the function that adds them.

    Args:
        runner: The running model.
        requests: Fields of the edit requests.
        options: How they are added.

    Raises:
        Refused: One of them is longer than the limit.
        EditkitError: As ``Kit.check``.
    """
    most = runner.limits.prompt_chars
    for index, fields in enumerate(requests):
        place = f"edits.{index}." if len(requests) > 1 else ""
        chat = sum(len(turn.role) + len(turn.content) for turn in fields.get("chat", ()))
        words = sum(len(one) for name in ("rephrases", "locality") for one in fields.get(name, ()))
        if len(fields.get("prompt", "")) + chat + words + len(fields["target"]) > most:
            raise Refused(
                f"an edit is longer than {most} characters", code="too_long",
                param=f"{place}prompt",
            )  # fmt: skip
        runner.kit.check(fields)

    def work(kit: Kit, progress: ChangeProgress) -> tuple[Added, ...]:
        history = kit.store.history
        before = history.count()
        try:
            return tuple(
                kit.add_many(
                    requests, on_failure=options.on_failure, on_conflict=options.on_conflict,
                    before=options.before, progress=progress,
                )
            )  # fmt: skip
        except Exception as error:
            # Read from the log: it may hold edits whose results were not reported yet.
            new = history.count() - before
            if not new:
                raise
            raise Incomplete(kit.log(limit=new)[::-1], total=len(requests), cause=error) from error

    return work


def only_edit(work: Callable[[Kit, ChangeProgress], tuple[Added, ...]]) -> Work:
    """Returns the function that adds one edit: its result is a record, not a tuple."""
    return lambda kit, progress: work(kit, progress)[0]


def check_size(runner: Runner, texts: Sequence[str], *, param: str) -> None:
    """Raises ``Refused`` if texts are too long together."""
    most = runner.limits.prompt_chars
    if sum(map(len, texts)) > most:
        raise Refused(f"'{param}' is longer than {most} characters", code="too_long", param=param)
