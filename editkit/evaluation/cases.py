"""The cases of an evaluation: edits with rephrases and probes, read from edit files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from editkit.editing.files import BlockPrompt, EditSource, FileEdit, read_edits
from editkit.editing.requests import build_request
from editkit.evaluation.records import DataFile
from editkit_store.errors import EditkitError, InvalidRequest
from editkit_store.records import EditKind, EditRequest, Record

__all__ = ["Case", "Probe", "contradicted", "read_cases"]

_KEPT = ("prompt", "target", "subject", "kind", "chat", "source")
_HINT = "an edit is an object with `prompt` and `target`; see `editkit eval --help`"


class Probe(Record):
    """A prompt whose answer must not change."""

    prompt: str
    answer: str | None = Field(default=None, description="The true answer, where it is known")


class Case(Record):
    """An edit with the prompts to judge it by."""

    request: EditRequest = Field(description="What a method is given: no rephrase, no probe")
    rephrases: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = Field(default=(), description="Unrelated prompts")
    neighbours: tuple[Probe, ...] = Field(default=(), description="Prompts about something alike")
    same: tuple[BlockPrompt, ...] = Field(default=(), description="Prompts that ask for the same")
    other: tuple[BlockPrompt, ...] = Field(default=(), description="… and for something else")


def read_cases(
    path: str | os.PathLike[str], *, kind: EditKind | None = None, limit: int | None = None
) -> tuple[list[Case], DataFile]:
    """Returns the cases of a file, and the record of the file.

    Args:
        path: The file; see ``editkit.editing.files`` for the formats.
        kind: Default kind of the edits.
        limit: At most this many.

    Raises:
        InvalidRequest: The file cannot be read, or has no edits.
        MalformedLine: A line does not hold an edit; the error names it.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(
            f"the data file '{path}' cannot be read: {error.strerror}", field="data"
        ) from error
    source = EditSource(str(path), _HINT)
    cases: list[Case] = []
    for edit in read_edits(io.BytesIO(data), source):
        if limit is not None and len(cases) == limit:
            break
        try:
            cases.append(_case(edit, kind))
        except EditkitError as error:
            raise source.malformed(edit.line, str(error)) from error
    if not cases:
        raise InvalidRequest(f"there are no edits in '{path}'", field="data")
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return cases, DataFile(path=str(path), digest=digest, edits=len(cases))


def contradicted(cases: Sequence[Case]) -> set[int]:
    """Returns the cases that cannot hold: a later case gives their prompt another target."""
    last: dict[Any, int] = {}
    for index, case in enumerate(cases):
        last[_prompt_of(case.request)] = index
    return {
        index
        for index, case in enumerate(cases)
        if cases[last[_prompt_of(case.request)]].request.target.strip()
        != case.request.target.strip()
    }


def _prompt_of(request: EditRequest) -> Any:
    return request.prompt if request.chat is None else tuple(request.chat)


def _case(edit: FileEdit, kind: EditKind | None) -> Case:
    given = {name: edit.fields[name] for name in _KEPT if name in edit.fields}
    return Case(
        request=build_request(given, kind=kind or "fact"),
        rephrases=edit.rephrases,
        probes=tuple(Probe(prompt=p, answer=a) for p, a in edit.probes),
        neighbours=tuple(Probe(prompt=p, answer=a) for p, a in edit.neighbours),
        same=edit.same,
        other=edit.other,
    )
