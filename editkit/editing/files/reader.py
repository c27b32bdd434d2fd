"""Reading edit files: from a path to edits and to validated requests."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from editkit.editing.files.formats import read_objects
from editkit.editing.files.shapes import FileEdit, edits_of
from editkit.editing.files.source import EditSource
from editkit.editing.requests import build_request, has_scopes
from editkit.errors import MalformedLine
from editkit_store.errors import EditkitError, InvalidRequest
from editkit_store.records import EditRequest, MethodName, ScopeName

__all__ = ["HINT", "count_edits", "read_edits", "read_requests"]

HINT = "the edits before it are done; fix the line and run the same command again, it resumes there"
"""What to do about a bad line of a file whose edits are added one by one."""


def read_edits(stream: BinaryIO, source: EditSource) -> Iterator[FileEdit]:
    """Yields the edits of a file in any format and shape, before validation.

    Args:
        stream: The file. JSON lines and CSV are streamed, other JSON is read as a whole.
        source: Names the file in errors.

    Raises:
        MalformedLine: On reaching a line that holds no edit; the edits before it were yielded.
    """
    for line, fields in read_objects(source.lines(stream), source):
        try:
            yield from edits_of(line, fields)
        except InvalidRequest as error:
            raise source.malformed(line, str(error)) from error
        except RecursionError as error:
            raise source.malformed(line, "it is nested too deeply") from error


def read_requests(
    path: str | Path, *, method: MethodName | None = None, scope: ScopeName | None = None
) -> Iterator[tuple[int, EditRequest]]:
    """Yields ``(line number, request)`` for the edits of a file.

    Args:
        path: The file, or ``-`` for standard input.
        method: Default method of the edits.
        scope: Default scope of the edits.

    Raises:
        InvalidRequest: The file cannot be read.
        MalformedLine: On reaching a line that holds no edit; the edits before it were yielded.
    """
    source = EditSource(str(path), HINT)
    defaults = {"method": method, "scope": scope}
    with _opened(source.path) as stream:
        for edit in read_edits(stream, source):
            try:
                request = build_request(_request(edit, defaults))
            except EditkitError as error:
                raise source.malformed(edit.line, str(error)) from error
            yield edit.line, request


def count_edits(path: str | Path) -> int | None:
    """Returns how many edits a file holds before its first bad line.

    Returns None for a pipe, which can be read only once.
    """
    if str(path) == "-" or not Path(path).is_file():
        return None
    count = 0
    source = EditSource(str(path), HINT)
    with contextlib.suppress(MalformedLine), _opened(source.path) as stream:
        for count, _ in enumerate(read_edits(stream, source), start=1):  # noqa: B007
            pass
    return count


def _request(edit: FileEdit, defaults: dict[str, str | None]) -> dict[str, Any]:
    """Returns the fields of a request, unknown ones included so that validation names them."""
    values: dict[str, Any] = {**edit.unknown, **edit.fields}
    locality = [prompt for prompt, _ in (*edit.probes, *edit.neighbours)]
    given: dict[str, Any] = {"rephrases": edit.rephrases, "locality": locality}
    values |= {name: texts for name, texts in given.items() if texts}
    base = {name: value for name, value in defaults.items() if value is not None}
    if "scope" in base and not has_scopes(values.get("method")):
        del base["scope"]
    return {**base, **values}


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Opens an edits file; errors while reading it name the file."""
    try:
        if path == "-":
            yield sys.stdin.buffer
        else:
            with Path(path).open("rb") as stream:
                yield stream
    except OSError as error:
        raise InvalidRequest(
            f"the edits file '{path}' cannot be read: {error.strerror}", field="from"
        ) from error
