"""Validating edit requests, without a machine-learning framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from editkit_store.errors import InvalidRequest
from editkit_store.records import EditKind, EditRequest

__all__ = ["build_request", "has_scopes", "has_text"]


def build_request(
    fields: EditRequest | Mapping[str, Any], *, kind: EditKind = "fact"
) -> EditRequest:
    """Returns a checked request.

    Args:
        fields: Fields of ``EditRequest``. With ``chat`` the prompt may be omitted: it is the last
            user turn.
        kind: Default kind of the request.

    Raises:
        InvalidRequest: A field is missing, unknown, empty or of the wrong type; the error names it.
    """
    values = fields.__dict__ if isinstance(fields, EditRequest) else {"kind": kind, **fields}
    if values.get("prompt") is None and values.get("chat"):
        try:
            last = values["chat"][-1]
            values["prompt"] = last["content"] if isinstance(last, Mapping) else last.content
        except (KeyError, IndexError, TypeError, AttributeError):
            raise InvalidRequest(
                "the chat is not a list of messages with 'role' and 'content'", field="chat"
            ) from None
    for name in ("prompt", "target"):
        if values.get(name) is None:
            raise InvalidRequest(f"the request has no {name}", field=name)
        if isinstance(values[name], str) and not has_text(values[name]):
            raise InvalidRequest(
                f"the {name} is empty", field=name, hint=f"give the {name} some text"
            )
    try:
        request = EditRequest.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequest(
            f"the request's field '{name}' is not usable: {problem['msg'][:1].lower()}"
            f"{problem['msg'][1:]}",
            field=name,
            hint=f"fields: {', '.join(EditRequest.model_fields)}"
            if problem["type"] == "extra_forbidden"
            else None,
        ) from error
    if request.scope is not None and not has_scopes(request.method):
        raise InvalidRequest(
            f"edits of the method '{request.method}' have no scope of their own; the method's "
            "settings decide how far they all reach",
            field="scope",
            hint="leave it out",
        )
    for text in (request.prompt, request.target, *request.rephrases):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                "the text holds a lone surrogate and is not valid Unicode", field="prompt"
            ) from error
    return request


def has_scopes(method: object) -> bool:
    """Whether edits of a method can have a scope; True for a method that is not installed."""
    from editkit.methods.registry import registered  # lazy: most requests have no scope

    found = registered().get(method) if isinstance(method, str) else None
    return found is None or found.spec is None or found.spec.has_scopes


def has_text(text: str) -> bool:
    """Whether a text has a visible character; zero-width characters are not visible."""
    return any(mark.isprintable() and not mark.isspace() for mark in text)
