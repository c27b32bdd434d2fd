"""Reading the edits of an evaluation, in the formats of the field's data sets.

A file is JSON lines, or one JSON array. Each object is an edit with what to judge it by. Every
field has the names that the published files use:

=============  ====================================================================================
prompt         ``prompt``, ``src`` (zsRE of MEND and WISE), ``requested_rewrite`` (CounterFact of
               ROME: a template, its subject and the new target)
target         ``target``, ``target_new``, ``alt``
rephrases      ``rephrases``, ``rephrase``, ``rephrase_prompt``, ``paraphrase_prompts``
probes         ``locality``, ``locality_prompt``, ``loc``: unrelated, must not change
their answers  ``locality_answer``, ``locality_ground_truth``, ``loc_ans``
neighbours     ``neighbours``, ``neighborhood_prompts``: alike, must not change
subject, kind, chat, id
=============  ====================================================================================

What else is in an object is passed over.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from editkit.errors import MalformedLine
from editkit.evaluation.records import DataFile
from editkit.requests import build_request
from editkit_store.errors import EditkitError, InvalidRequest
from editkit_store.records import EditKind, EditRequest, Record

__all__ = ["Case", "Probe", "contradicted", "read_cases"]

_PROMPT = ("prompt", "src")
_TARGET = ("target", "target_new", "alt")
_REPHRASES = ("rephrases", "rephrase", "rephrase_prompt", "paraphrase_prompts")
_PROBES = ("locality", "locality_prompt", "loc")
_ANSWERS = ("locality_answer", "locality_ground_truth", "loc_ans")
_NEIGHBOURS = ("neighbours", "neighborhood_prompts")
_KEPT = ("subject", "kind", "chat")


class Probe(Record):
    """A prompt whose answer must not change."""

    prompt: str
    answer: str | None = Field(default=None, description="The true answer, where it is known")


class Case(Record):
    """An edit, and what to judge it by."""

    request: EditRequest = Field(description="What a method is given: no rephrase, no probe")
    rephrases: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = Field(default=(), description="Unrelated prompts")
    neighbours: tuple[Probe, ...] = Field(default=(), description="Prompts about something alike")


def read_cases(
    path: str | os.PathLike[str], *, kind: EditKind | None = None, limit: int | None = None
) -> tuple[list[Case], DataFile]:
    """Returns the cases of a file, and what file it is.

    Args:
        path: The file.
        kind: Kind of edits that name none.
        limit: At most so many.

    Raises:
        InvalidRequest: The file cannot be read, or holds no edit.
        MalformedLine: A line holds no edit; the error names it.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(
            f"the data file '{path}' cannot be read: {error.strerror}", field="data"
        ) from error
    cases: list[Case] = []
    for number, fields in _objects(data.removeprefix(codecs.BOM_UTF8), str(path)):
        if limit is not None and len(cases) == limit:
            break
        try:
            cases.append(_case(fields, kind))
        except (EditkitError, ValueError, TypeError) as error:
            raise _malformed(str(path), number, str(error)) from error
        except KeyError as error:
            raise _malformed(str(path), number, f"its {error} is missing") from error
    if not cases:
        raise InvalidRequest(f"there are no edits in '{path}'", field="data")
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return cases, DataFile(path=str(path), digest=digest, edits=len(cases))


def contradicted(cases: Sequence[Case]) -> set[int]:
    """Returns the cases whose prompt a later one gives another target: they cannot both hold."""
    last: dict[Any, int] = {}
    for index, case in enumerate(cases):
        last[_asked(case.request)] = index
    return {
        index
        for index, case in enumerate(cases)
        if cases[last[_asked(case.request)]].request.target.strip() != case.request.target.strip()
    }


def _asked(request: EditRequest) -> Any:
    return request.prompt if request.chat is None else tuple(request.chat)


def _objects(data: bytes, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a file with the lines (or places in an array) where they are."""
    if data.lstrip()[:1] == b"[":
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"'{path}' is not JSON: {error}", field="data") from error
        numbered: Iterable[tuple[int, Any]] = enumerate(found, start=1)
    else:
        numbered = _lines(data, path)
    for number, one in numbered:
        if not isinstance(one, dict):
            raise _malformed(path, number, f"a JSON object is wanted, not {type(one).__name__}")
        yield number, one


def _lines(data: bytes, path: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _malformed(path, number, f"not JSON: {error}") from error


def _malformed(path: str, line: int, reason: str) -> MalformedLine:
    return MalformedLine(
        f"line {line} of {path}: {reason}", path=path, line=line,
        hint="a line is an object with `prompt` and `target`; see `editkit eval --help`",
    )  # fmt: skip


def _case(fields: Mapping[str, Any], kind: EditKind | None) -> Case:
    values = {name: fields[name] for name in _KEPT if fields.get(name) is not None}
    rewrite = fields.get("requested_rewrite")
    if isinstance(rewrite, Mapping):
        values["subject"] = rewrite["subject"]
        values["prompt"] = str(rewrite["prompt"]).replace("{}", str(rewrite["subject"]))
        values["target"] = _text(rewrite["target_new"])
    else:
        values["prompt"] = _first(fields, _PROMPT)
        values["target"] = _text(_first(fields, _TARGET))
    source = fields.get("id", fields.get("case_id"))
    if source is not None:
        values["source"] = str(source)
    request = build_request(values, kind=kind or "fact")
    answers = _texts(_first(fields, _ANSWERS))
    probes = _texts(_first(fields, _PROBES))
    known = answers if len(answers) == len(probes) else [None] * len(probes)
    return Case(
        request=request,
        rephrases=tuple(_texts(_first(fields, _REPHRASES))),
        probes=tuple(Probe(prompt=p, answer=a) for p, a in zip(probes, known, strict=True)),
        neighbours=tuple(Probe(prompt=p) for p in _texts(_first(fields, _NEIGHBOURS))),
    )


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _text(value: Any) -> Any:
    """ROME's files wrap targets: ``{"str": "English", "id": ...}``."""
    return value["str"] if isinstance(value, Mapping) else value


def _texts(value: Any) -> list[str]:
    """One text, or a list of texts; empty ones are left out."""
    found = [value] if isinstance(value, str) else list(value or ())
    if not all(isinstance(one, str) for one in found):
        raise InvalidRequest("rephrases and probes are texts", field="locality")
    for one in found:
        one.encode()  # a lone surrogate is no text, and could not be reported
    return [one for one in found if one.strip()]
