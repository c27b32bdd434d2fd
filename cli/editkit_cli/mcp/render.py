"""Renders results as text for a model: short, with the ids that the next call needs.

The complete result is sent beside it as structured content, but many clients show the model only
the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from editkit_cli.service.writer import OperationStatus
from editkit_store.records import (
    Added,
    AddPlan,
    Adjusted,
    Candidate,
    Contradiction,
    Edit,
    Explanation,
    Generation,
    LogEntry,
    Record,
    Replayed,
    Shown,
    Verified,
    ViewChanged,
    ViewPlan,
)
from editkit_store.records.comparisons import Diff

if TYPE_CHECKING:
    from editkit_cli.mcp.operations import (
        AddOutcome,
        AdjustOutcome,
        OperationSummary,
        ReplayOutcome,
        ViewOutcome,
    )
    from editkit_cli.mcp.results import EditList, LogResult, StatusResult

__all__ = [
    "added",
    "adjusted",
    "compared",
    "explained",
    "generated",
    "listed",
    "logged",
    "moved",
    "pending",
    "replayed",
    "shown",
    "situated",
    "verified",
]

_LONG = 200
"""Most characters of a prompt or an answer in a line."""

_MANY = 20
"""Most lines of a kind; the structured content has all of them."""


def generated(found: Generation) -> str:
    """Renders an answer."""
    by = f"edit {', '.join(found.fired)} applied" if found.fired else "no edit applied"
    if found.delivered in ("held", "no"):
        by += ", held to its target" if found.delivered == "held" else ", its target not given"
    cut = ", cut at the limit" if found.finish_reason == "length" else ""
    return f"{found.text}\n({found.version}, {by}{cut})"


def explained(found: Explanation) -> str:
    """Renders which edit fires."""
    return _lines(f"At {found.version}: {found.summary}", map(_candidate, found.candidates))


def listed(found: EditList) -> str:
    """Renders a list of edits."""
    head = f"{found.total} edits at {found.version}; {len(found.edits)} of them, newest first:"
    return _lines(head if found.edits else f"{found.total} edits at {found.version}.",
                  map(_edit, found.edits), most=len(found.edits))  # fmt: skip


def shown(found: Shown) -> str:
    """Renders a version."""
    lines = [f"{found.version}: {found.view} edits in force" + _tags(found.tags)]
    if found.operation is not None:
        lines.append(_entry(found.operation))
    if found.provenance is not None:
        said = found.provenance
        who = [said.author or said.user or "", said.agent and f"agent {said.agent}" or "",
               said.conversation and f"conversation {said.conversation}" or ""]  # fmt: skip
        lines.append("by " + (", ".join(filter(None, who)) or "somebody unnamed"))
    if found.edit is not None:
        lines.append(f"edit {_edit(found.edit)} [{found.edit.status}]")
    if found.adjustments is not None:
        lines += [f"also '{_short(one)}'" for one in found.adjustments.also[:_MANY]]
        lines += [f"not '{_short(one)}'" for one in found.adjustments.exclude[:_MANY]]
    lines += [
        f"on {one.model}: {'verified' if one.verified else 'did not verify'}"
        for one in found.artifacts[:_MANY]
    ]
    return _lines("\n".join(lines), map(_edit, found.edits))


def logged(found: LogResult) -> str:
    """Renders the log."""
    return _lines(f"Now at {found.version}. Newest first:", map(_entry, found.entries),
                  most=len(found.entries))  # fmt: skip


def compared(found: Diff) -> str:
    """Renders a comparison."""
    lines = _came_and_went(found.added, found.removed) or ["no edit came or went"]
    lines += [
        f"edit {one.edit_id} at '{_short(one.prompt)}': {one.before or 'nothing said'} becomes "
        f"{one.after or 'nothing said'}"
        for one in found.adjusted[:_MANY]
    ]
    for one in found.behavior[:_MANY]:
        was, now = _short(one.before), _short(one.after)
        what = f"'{was}' becomes '{now}'" if one.changed else f"still '{now}'"
        lines.append(f"asked '{_short(one.prompt)}': {what}")
    return _lines(f"From {found.from_} to {found.to}:", lines, most=len(lines))


def verified(found: Verified) -> str:
    """Renders a verification."""
    if found.ok:
        return f"The history is whole: {found.checked} rows hold. Head: {found.head or 'none'}"
    return _lines(
        f"{len(found.problems)} problems; tell people, and change nothing until they have looked:",
        (f"{one.name}: {one.message}" for one in found.problems),
    )


def situated(found: StatusResult) -> str:
    """Renders a status."""
    under_way = [one for one in found.operations if one.state in ("waiting", "running")]
    head = (
        f"{found.model} at {found.version}, {found.store.edits} edits in force"
        f"{_tags(found.store.tags)}. You may {found.role}. "
        f"{len(under_way)} changes wait or run."
    )
    return _lines(head, [*map(_waiting, under_way), *found.store.warnings])


def pending(found: OperationStatus) -> str:
    """Renders an operation and its result."""
    if found.error is not None:
        return f"operation {found.id} ({found.kind}) failed: {found.error.code}: " + (
            found.error.message
        )
    results = found.result if isinstance(found.result, tuple) else (found.result,)
    return "\n".join([_waiting(found), *(_result(one) for one in results if one is not None)])


def added(found: AddOutcome) -> str:
    """Renders the outcome of `add`."""
    if found.plan is not None:
        return _planned(found.plan)
    return _result(found.result) if found.result is not None else _later(found.pending)


def adjusted(found: AdjustOutcome) -> str:
    """Renders the outcome of `adjust`."""
    if found.plan is not None:
        return _lines("Dry run, nothing was changed.", _checked(found.plan))
    return _result(found.result) if found.result is not None else _later(found.pending)


def moved(found: ViewOutcome) -> str:
    """Renders the outcome of `revert`, `rollback` or `undo`."""
    if found.plan is not None:
        return _moving(found.plan)
    return _result(found.result) if found.result is not None else _later(found.pending)


def replayed(found: ReplayOutcome) -> str:
    """Renders the outcome of `replay`."""
    plan = found.plan
    if plan is not None:
        seconds = "unknown_operation" if plan.seconds is None else f"about {plan.seconds:.1f}"
        head = (
            f"Dry run, nothing was changed. At {plan.version} {plan.restored} edits would be "
            f"restored and {plan.to_learn} learned; seconds: {seconds}."
        )
        return _lines(head, (f"{one.action} {one.edit_id} '{_short(one.prompt)}'"
                             for one in plan.edits if one.action == "learn"))  # fmt: skip
    return _result(found.result) if found.result is not None else _later(found.pending)


def _result(found: Record) -> str:
    if isinstance(found, Added):
        return _added(found)
    if isinstance(found, Adjusted):
        head = {
            "adjusted": f"Adjusted edit {found.edit.id}, in force at {found.version}. `undo` with "
            f"expect='{found.version}' takes it back.",
            "failed": "NOT in force: the edit's reach is as before, and the attempt is in the log.",
            "known": f"Edit {found.edit.id} reaches so already; nothing was recorded.",
        }[found.outcome]
        return _lines(head, _checked(found))
    if isinstance(found, ViewChanged):
        detail = f"; {found.detail}" if found.detail else ""
        head = f"Now at {found.version}; {found.view} edits in force{detail}."
        return _lines(head, (f"edit {one} does not hold since" for one in found.lost))
    if isinstance(found, Replayed):
        head = (
            f"At {found.version}: {found.restored} edits restored, {found.learned} learned, "
            f"{found.failed} failed."
        )
        return _lines(head, (f"{one.edit_id} '{_short(one.prompt)}': {one.reason}"
                             for one in found.failures))  # fmt: skip
    return "Done."


def _added(found: Added) -> str:
    edit = found.edit
    if found.outcome == "known":
        return f"This request came before, by its idempotency_key; it is edit {_edit(edit)}."
    if found.outcome == "kept":
        return _lines("Left out, for these are to be kept:", map(_conflict, found.conflicts))
    if not found.verified:
        return (
            f"NOT in force: after learning, the model answered '{_short(found.answer)}' instead of "
            f"'{_short(edit.target)}'. It answers as before; the attempt is in the log as edit "
            f"{edit.id}. Try a shorter target, or put it as the model would say it."
        )
    reach = f" It {found.reach.summary}." if found.reach is not None else ""
    head = (
        f"Learned as edit {edit.id}, in force at {found.version}; asked, the model answers "
        f"'{_short(found.answer)}'.{reach} `undo` with expect='{found.version}' takes it back."
    )
    lines = [f"replaced: edit {one}" for one in found.supersedes]
    lines += [f"contradicts: {_conflict(one)}" for one in found.conflicts]
    lines += [f"edit {one} does not hold since" for one in found.lost]
    return _lines(head, lines)


def _checked(found: Adjusted) -> list[str]:
    """Renders what an adjustment says of each prompt, and what the model answered there."""
    lines = [
        f"also '{_short(one.prompt)}': the model answers '{_short(one.answer)}'"
        + ("" if one.carries else f", not '{_short(found.edit.target)}'")
        for one in found.also
    ]
    return lines + [f"not '{_short(one)}'" for one in found.exclude]


def _planned(plan: AddPlan) -> str:
    by = "by no edit" if plan.fired is None else f"by edit {plan.fired}"
    lines = [f"replaces: edit {one}" for one in plan.supersedes]
    lines += [f"contradicts: {_conflict(one)}" for one in plan.conflicts]
    lines += [f"near: {_candidate(one)}" for one in plan.nearest]
    if plan.known is not None:
        lines.append(f"the idempotency_key belongs to edit {plan.known}: nothing would be learned")
    if plan.is_answered:
        advice = "The model gives the target already; there is nothing to correct."
    elif plan.conflicts:
        advice = (
            "If the new one is right all the same, call again with dry_run=false and "
            "on_conflict='supersede'."
        )
    else:
        advice = "Nothing stands against it: call again with dry_run=false."
    head = (
        f"Dry run, nothing was learned. At {plan.version} the model answers "
        f"'{_short(plan.answer)}' ({by}). {advice}"
    )
    return _lines(head, lines)


def _moving(plan: ViewPlan) -> str:
    like = f", as at {plan.like}" if plan.like is not None else ""
    head = (
        f"Dry run, nothing was changed. After this {plan.operation} {plan.view} edits would be in "
        f"force{like}; now at {plan.version}."
    )
    return _lines(head, _came_and_went(plan.added, plan.removed) or ["no edit would come or go"])


def _came_and_went(came: Sequence[Edit], went: Sequence[Edit]) -> list[str]:
    lines = []
    for word, edits in (("comes", came), ("goes", went)):
        lines += [f"{word}: {_edit(one)}" for one in edits[:_MANY]]
        if len(edits) > _MANY:
            lines.append(f"{word}: {len(edits) - _MANY} more")
    return lines


def _waiting(found: OperationStatus | OperationSummary) -> str:
    how_far = f": {found.done} of {found.total} edits are done" if found.state == "running" else ""
    return f"operation {found.id} ({found.kind}) is {found.state}{how_far}"


def _later(found: OperationSummary | None) -> str:
    assert found is not None
    return f"{_waiting(found)}\nFollow it: call `operation` with id='{found.id}'."


def _lines(head: str, lines: Iterable[str], *, most: int = _MANY) -> str:
    rest = list(lines)
    more = [f"... and {len(rest) - most} more"] if len(rest) > most else []
    return "\n".join([head, *(f"- {line}" for line in rest[:most]), *more])


def _edit(edit: Edit) -> str:
    return f"{edit.id} '{_short(edit.prompt)}' -> '{_short(edit.target)}'"


def _candidate(one: Candidate) -> str:
    where = "in scope" if one.in_scope else "out of scope"
    return (
        f"edit {one.edit_id} '{_short(one.prompt)}' -> '{_short(one.target)}': {where}, "
        f"distance {one.distance:.3g}, radius {one.radius:.3g}"
        + (f", adjusted: {one.adjusted}" if one.adjusted else "")
    )


def _conflict(one: Contradiction) -> str:
    why = "has the same prompt" if one.kind == "prompt" else "has the new prompt in its scope"
    return f"edit {one.edit_id} '{_short(one.prompt)}' -> '{_short(one.target)}' {why}"


def _entry(entry: LogEntry) -> str:
    what = [entry.version, entry.operation]
    if entry.edit_id is not None:
        what.append(f"edit {entry.edit_id}")
    if entry.prompt is not None:
        what.append(f"'{_short(entry.prompt)}' -> '{_short(entry.target or '')}'")
    if entry.status not in (None, "active"):
        what.append(f"[{entry.status}]")
    says = entry.edit_id is None or entry.operation == "adjust"
    what += [entry.detail] if entry.detail and says else []
    what += [f"by {entry.author}"] if entry.author else []
    what += [f"because: {_short(entry.reason)}"] if entry.reason else []
    return " ".join(what) + _tags(entry.tags)


def _tags(tags: Iterable[str]) -> str:
    names = ", ".join(tags)
    return f" (tags: {names})" if names else ""


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
