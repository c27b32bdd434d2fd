"""Replaying the history: onto the running model, or onto another one beside it."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from editkit.models import resolve
from editkit_cli.http.routes.common import Runs, Tags, respond
from editkit_cli.http.routes.edits import ACCEPTED, WRITES, Command, Prefer, changed
from editkit_cli.service.errors import Refused
from editkit_cli.service.guard import Caller
from editkit_cli.service.model_names import is_same_model
from editkit_cli.service.requests import ReplayBody
from editkit_cli.service.runner import Runner
from editkit_cli.service.writer import ChangeProgress
from editkit_store.records import Replayed, ReplayPlan

__all__ = ["ReplayBody", "replayed", "router"]

router = APIRouter(prefix="/v1", tags=["history"])


@router.post("/replay", response_model=Replayed | ReplayPlan, responses={**ACCEPTED, **WRITES})
async def replay(
    body: ReplayBody,
    request: Request,
    runner: Runs,
    caller: Tags,
    prefer: Prefer = None,
    x_editkit_command: Command = None,
) -> Response:
    """Brings the active edits of a version to a model: restores what it learned, learns the rest.

    A model other than the running one is loaded into the server and released afterwards. Other
    changes wait meanwhile. It needs an admin's token, because it may fetch a model and take hours.
    """
    other = _other(body.model, runner, caller)
    if body.dry_run and other is None:  # nothing to load or write, so it need not be queued
        return respond(await asyncio.to_thread(replayed, runner.kit, body, None, None))
    return await changed(
        request, runner, caller, "replay",
        lambda kit, learning: replayed(kit, body, other, learning), body, prefer,
        x_editkit_command,
    )  # fmt: skip


def replayed(
    kit: Any, body: ReplayBody, other: str | None, learning: ChangeProgress | None
) -> Replayed | ReplayPlan:
    """Replays, or plans to, in the writer's thread.

    Args:
        kit: The running model.
        body: What to replay.
        other: Another model to replay onto.
        learning: Told about every edit.
    """
    what: dict[str, Any] = {"to": body.to, "method": body.method, "only": body.only}
    if other is not None:
        import editkit

        with editkit.open(
            kit.store, model=other, missing="skip", provenance=kit.provenance, progress=learning
        ) as beside:
            return replayed(beside, body, None, learning)
    if body.dry_run:
        plan: ReplayPlan = kit.plan_replay(**what)
        return plan
    done: Replayed = kit.replay(**what, progress=learning)
    return done


def _other(name: str | None, runner: Runner, caller: Caller) -> str | None:
    """Returns the model to load beside the running one, if there is one.

    Raises:
        UnknownModel, ModelUnavailable: There is no model of that name.
        Refused: It is a path of this machine, and the caller is not the owner.
    """
    if name is None or name == runner.name or is_same_model(name, runner.kit.source):
        return None
    if resolve(name).path is not None and caller.name is not None:
        raise Refused(
            "a model in a folder of the server's machine is for its owner only", status=403,
            code="owner_only", param="model", hint="name an alias or a hub id",
        )  # fmt: skip
    return name
