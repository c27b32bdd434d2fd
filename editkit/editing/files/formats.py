"""The objects of an edit file: JSON lines, JSON, or CSV with a header."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from editkit.editing.files.shapes import FIELDS, LISTS, PROMPTS, TARGETS
from editkit.editing.files.source import EditSource

__all__ = ["read_objects"]

_DELIMITERS = (",", ";", "\t")
_NO_SPACE = re.compile(r"[^ \t\r\n]")

Lines = Iterator[tuple[int, str]]
Objects = Iterator[tuple[int, dict[str, Any]]]


def read_objects(lines: Lines, source: EditSource) -> Objects:
    """Yields the objects of a file, each with the number of its first line.

    Raises:
        MalformedLine: On reaching something that is not an object; those before it were yielded.
    """
    found = next(((number, line) for number, line in lines if line.strip()), None)
    if found is None:
        return
    lines = itertools.chain([found], lines)
    first = found[1]
    if first.lstrip().startswith("[") or _is_unfinished(first):
        values = _json_values(lines, source)
    elif (delimiter := _delimiter(first, source)) is not None:
        values = _csv_rows(lines, delimiter, source)
    else:
        values = _json_lines(lines, source)
    for number, value in values:
        if not isinstance(value, dict):
            raise source.malformed(number, f"expected a JSON object, not {type(value).__name__}")
        yield number, value


def _is_unfinished(line: str) -> bool:
    """Whether an object starts on a line and continues on the next, as in indented JSON."""
    line = line.strip()
    if not line.startswith("{"):
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line)
    except (ValueError, RecursionError):
        pass
    return False


def _json_lines(lines: Lines, source: EditSource) -> Iterator[tuple[int, Any]]:
    for number, line in lines:
        if text := line.strip():
            try:
                yield number, json.loads(text)
            except (ValueError, RecursionError) as error:
                raise source.malformed(number, _reason(error)) from error


def _json_values(lines: Lines, source: EditSource) -> Iterator[tuple[int, Any]]:
    """Yields the elements of an array, or consecutive values."""
    number, line = next(lines)
    text = line + "".join(line for _, line in lines)
    at = 0

    def skip(position: int) -> int:
        """Skips white space and counts the lines."""
        nonlocal at, number
        found = _NO_SPACE.search(text, position)
        end = found.start() if found else len(text)
        number += text.count("\n", at, end)
        at = end
        return end

    decoder = json.JSONDecoder()
    position = skip(0)
    is_array = text.startswith("[", position)
    if is_array:
        position = skip(position + 1)
    is_closed = is_array and text.startswith("]", position)
    while not is_closed and position < len(text):
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            place = error.pos if isinstance(error, json.JSONDecodeError) else position
            raise source.malformed(
                number + text.count("\n", position, place), _reason(error)
            ) from error
        yield number, value
        position = skip(end)
        if is_array and text.startswith(",", position):
            position = skip(position + 1)
        elif is_array:
            is_closed = text.startswith("]", position)
            if not is_closed and position < len(text):
                raise source.malformed(number, "not JSON: a comma is missing in the array")
    if is_array and not is_closed:
        raise source.malformed(number, "not JSON: the end of the array is missing")
    if is_array and skip(position + 1) < len(text):
        raise source.malformed(number, "not JSON: there is more text after the end of the array")


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply to be read"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at column {error.colno}"
    return f"not JSON: {error}"


def _delimiter(line: str, source: EditSource) -> str | None:
    """Returns the column separator if the line is the header of a CSV file."""
    if line.lstrip().startswith("{"):
        return None
    counts = {one: len(FIELDS & set(_header(line, one))) for one in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda one: counts[one])
    if counts[best]:
        return best
    is_named = PurePath(source.path).suffix.lower() in (".csv", ".tsv")
    return best if is_named else None


def _header(line: str, delimiter: str) -> list[str]:
    try:
        found = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a name longer than the csv module's field limit
        return []
    return [name.strip().lower() for name in found]


def _csv_rows(lines: Lines, delimiter: str, source: EditSource) -> Iterator[tuple[int, Any]]:
    number, line = next(lines)
    header = _header(line, delimiter)
    for names, what in ((PROMPTS, "prompt"), (TARGETS, "target")):
        if not {*names} & {*header}:
            raise source.malformed(
                number, f"the header has no column '{what}'; its columns: {', '.join(header)}"
            )
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise source.malformed(number, f"the header has the column '{twice[0]}' twice")
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        begins = number + reader.line_num + 1  # a cell may span several lines
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise source.malformed(begins, f"not CSV: {error}") from error
        if row is None:
            return
        if any(cell.strip() for cell in row):
            if any(row[len(header) :]):
                raise source.malformed(
                    begins, f"it has {len(row)} cells, but the header has {len(header)} columns"
                )
            if row[0].startswith("{") and isinstance(_value(delimiter.join(row)), dict):
                raise source.malformed(begins, "it is a JSON object, but the file is a table")
            yield begins, _fields(dict(zip(header, row, strict=False)), begins, source)


def _fields(row: dict[str, str], number: int, source: EditSource) -> dict[str, Any]:
    """Returns the fields of a row; an empty cell is an absent field."""
    if row.pop("", ""):
        raise source.malformed(number, "a cell is in a column without a name")
    fields: dict[str, Any] = {}
    for name, cell in row.items():
        if name in LISTS:
            if cell.strip():
                fields[name] = _texts(cell)
        elif cell or name in PROMPTS or name in TARGETS:
            fields[name] = _value(cell) if name == "chat" else cell
    return fields


def _texts(cell: str) -> Any:
    found = _value(cell) if cell.lstrip().startswith("[") else cell
    return found.splitlines() if isinstance(found, str) else found


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell
