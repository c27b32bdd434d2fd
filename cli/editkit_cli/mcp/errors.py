"""Errors that a model can act on: a code, a message, and a hint in terms of the tools."""

from __future__ import annotations

from typing import Any, TypeVar

from mcp import types
from pydantic import ValidationError

from editkit.errors import UnsupportedMethod
from editkit_cli.service.errors import Refused, failure_of
from editkit_cli.service.guard import Caller
from editkit_cli.service.schemas import Body
from editkit_cli.service.tokens import Role
from editkit_store.errors import EditkitError

__all__ = ["check_role", "failed", "parsed"]

_Taken = TypeVar("_Taken", bound=Body)

_HINTS = {
    "unknown_version": "call `log` for the versions there are; `@` is the current one, `@-` the "
    "one before",
    "unknown_edit": "call `list` for the active edits and their ids, or `log` for all of them",
    "ambiguous_id": "give more digits of the id; `list` has them in full",
    "not_active": "there is nothing to change; `show` with its id says what became of it",
    "nothing_to_undo": "call `log` for the versions, and `rollback` to the one that is wanted",
    "contradicts_edit": "look at that edit with `show`. If the new one is right, call `add` again "
    "with on_conflict='supersede', or `adjust` that edit with `not`; else leave it as it is",
    "key_reused": "a new request needs a new idempotency_key",
    "prompt_too_long": "shorten the prompt to what the model can take",
    "empty_target": "give the target some text",
    "unsupported_method": "leave out 'method' and 'kind'",
    "artifacts_missing": "call `replay` with dry_run=true, to see what this model has not learned",
    "unknown_operation": "call `status` for the changes that are known, `log` for what was done",
}
"""Hints that replace those about command lines."""


def check_role(caller: Caller, role: Role, name: str) -> None:
    """Raises ``Refused`` if a caller may not use a tool."""
    if not caller.may(role):
        raise Refused(
            f"'{name}' needs a token of the role '{role}'; yours is '{caller.role}'", status=403,
            code="role", hint="only the people who run the server can change that; tell them what "
            "should be corrected",
        )  # fmt: skip


def parsed(takes: type[_Taken], arguments: dict[str, Any] | None) -> _Taken:
    """Returns the validated arguments of a tool.

    Raises:
        Refused: They are invalid; names the first problem.
    """
    try:
        return takes.model_validate(arguments or {})
    except ValidationError as error:
        problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"]) or None
    known = ", ".join(one.alias or name for name, one in takes.model_fields.items())
    if problem["type"] == "extra_forbidden":
        said = f"there is no argument '{place}'"
    elif problem["type"] == "missing":
        said = f"the argument '{place}' is missing"
    else:
        what = str(problem["msg"]).removeprefix("Value error, ")
        said = what if place is None else f"the argument '{place}' is not usable: {what}"
    raise Refused(
        said, code="invalid_arguments", param=place,
        hint=f"arguments: {known}" if known else "it takes no arguments",
    )  # fmt: skip


def failed(error: EditkitError) -> types.CallToolResult:
    """Returns the result that reports an error, without any internals."""
    _, failure = failure_of(error)
    hint = _HINTS.get(error.code, failure.hint)
    if isinstance(error, UnsupportedMethod) and failure.hint:
        hint = f"{hint}; {failure.hint}"  # it lists the methods that are installed
    failure = failure.model_copy(update={"hint": hint})
    text = f"{failure.code}: {failure.message}"
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=f"{text}\nhint: {hint}" if hint else text)],
        structured_content={"error": failure.model_dump(mode="json")},
        is_error=True,
    )
