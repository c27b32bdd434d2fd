"""Reading and checking edit requests, without any framework.

A line of an edits file is a JSON object with the fields of ``EditRequest``. Lines of the field's
data sets (zsRE, CounterFact, WikiBio) are understood as they come: ``locality_prompt`` becomes a
locality probe, ``id`` becomes the source; their answers to probes are for evaluation and are
passed over.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from editkit.errors import MalformedLine
from editkit_store.errors import EditkitError, InvalidRequest
from editkit_store.records import EditKind, EditRequest, MethodName, ScopeName

__all__ = ["build_request", "read_requests"]

_PASSED_OVER = ("locality_answer", "unrelated_prompt", "ground_truth")


def build_request(
    fields: EditRequest | Mapping[str, Any], *, kind: EditKind = "fact"
) -> EditRequest:
    """Returns a checked request.

    Args:
        fields: Fields of ``EditRequest``. With ``chat`` the prompt may be left out: it is the
            last user turn.
        kind: Kind of a request that names none.

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
        if isinstance(values[name], str) and not _has_text(values[name]):
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
    if request.scope is not None and not _has_scopes(request.method):
        raise InvalidRequest(
            f"edits of the method '{request.method}' have no scope of their own; they all reach as "
            "far as its settings say",
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


def _has_scopes(method: object) -> bool:
    """Whether edits of a method can have a scope; of one that is not installed nobody knows."""
    from editkit.methods.registry import registered  # most requests name no scope

    found = registered().get(method) if isinstance(method, str) else None
    return found is None or found.spec is None or found.spec.has_scopes


def _has_text(text: str) -> bool:
    """Whether anything in it can be seen; zero-width characters cannot."""
    return any(mark.isprintable() and not mark.isspace() for mark in text)


def read_requests(
    path: str | Path, *, method: MethodName | None = None, scope: ScopeName | None = None
) -> Iterator[tuple[int, EditRequest]]:
    """Yields ``(line number, request)``, reading lazily; blank lines are passed over.

    Args:
        path: A file of JSON lines, or ``-`` for standard input.
        method: Method of lines that name none.
        scope: Scope, likewise.

    Raises:
        InvalidRequest: The file cannot be read.
        MalformedLine: On reaching a line that holds no edit; the lines before it were yielded.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        stream: IO[bytes] = sys.stdin.buffer if str(path) == "-" else Path(path).open("rb")
    except OSError as error:
        raise InvalidRequest(
            f"the edits file '{path}' cannot be read: {error.strerror}", field="from"
        ) from error
    unsaid = {"method": method, "scope": scope}
    unsaid = {field: value for field, value in unsaid.items() if value is not None}
    with stream:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)  # as editors on Windows put it there
            if raw.strip():
                yield number, _parse(raw, number, name, unsaid)


def _parse(raw: bytes, number: int, path: str, unsaid: Mapping[str, Any]) -> EditRequest:
    try:
        fields = json.loads(raw.decode("utf-8").strip())
        if not isinstance(fields, dict):
            raise InvalidRequest(f"a JSON object is wanted, not {type(fields).__name__}")
        return build_request(_translated(fields, unsaid))
    except (EditkitError, ValueError, RecursionError) as error:  # the last of deep nesting
        reason = str(error) if isinstance(error, EditkitError) else f"not JSON: {error}"
        raise MalformedLine(
            f"line {number} of {path}: {reason}",
            path=path,
            line=number,
            hint="earlier lines are done; mend the line and run the same command again, "
            "it goes on from here",
        ) from error


def _translated(fields: dict[str, Any], unsaid: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in fields.items() if name not in _PASSED_OVER}
    if "locality_prompt" in values:
        probe = values.pop("locality_prompt")
        if isinstance(probe, str) and probe.strip() and not values.get("locality"):
            values["locality"] = [probe]
    if "id" in values:
        values.setdefault("source", str(values.pop("id")))
        values.pop("id", None)
    if "scope" in unsaid and not _has_scopes(values.get("method")):
        unsaid = {field: value for field, value in unsaid.items() if field != "scope"}
    return {**unsaid, **values}
