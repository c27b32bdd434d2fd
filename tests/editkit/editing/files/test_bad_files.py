"""What is no edit file, and what the message says of it: the file, the line, and what is wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from editkit.editing.files import EditSource, count_edits, read_edits, read_requests
from editkit.errors import MalformedLine
from editkit.evaluation.cases import read_cases
from editkit_store.errors import InvalidRequest

GOOD = b'{"prompt": "a", "target": "1"}\n'
DEEP = b"[" * 100_000
NESTED = b'{"a":' * 100_000

BAD = {
    "not json": (b"nonsense\n", 1, "not JSON: Expecting value at column 1"),
    "a second line": (GOOD + b"{oops\n", 2, "not JSON: Expecting property name"),
    "truncated text": (GOOD + b'{"prompt": "b', 2, "not JSON: Unterminated string"),
    "truncated object": (b'{"prompt": "b",\n "target":\n', 3, "not JSON: Expecting value"),
    "truncated array": (b'[{"prompt": "a", "target": "1"},\n', 2, "end of the array is missing"),
    "truncated in array": (b'[\n{"prompt": "a",\n"tar', 3, "not JSON: Unterminated string"),
    "no comma": (b"[" + GOOD + GOOD + b"]", 2, "not JSON: a comma is missing in the array"),
    "array, then lines": (b"[" + GOOD + b"]\n" + GOOD, 3, "after the end of the array"),
    "lines, then an array": (GOOD + b"[" + GOOD.strip() + b"]", 2, "a JSON object, not list"),
    "lines, then a table": (GOOD + b"prompt,target\n", 2, "not JSON: Expecting value"),
    "a table, then lines": (b"prompt,target\na,1\n" + GOOD, 3, "a JSON object, but the file is a"),
    "a number": (b"3\n", 1, "expected a JSON object, not int"),
    "numbers": (b"[\n1]", 2, "expected a JSON object, not int"),
    "null": (b"[null]", 1, "expected a JSON object, not NoneType"),
    "a nul": (b'{"prompt": "a\0", "target": "1"}\n', 1, "not text: it holds a NUL character"),
    "a nul in a table": (b"prompt,target\na\0,b\n", 2, "not text: it holds a NUL character"),
    "a nul alone": (b"\0", 1, "not text: it holds a NUL character"),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, "not UTF-8 text: byte 1 is 0x89"),
    "latin-1": (b'{"prompt": "\xe9t\xe9", "target": "x"}', 1, "not UTF-8 text: byte 13 is 0xe9"),
    "odd utf-16": ('{"prompt": "a"}'.encode("utf-16") + b"x", 1, "not UTF-16-LE text: .*truncated"),
    "a deep array": (DEEP, 1, "nested too deeply"),
    "a deep object": (NESTED, 1, "nested too deeply"),
    "a deep line": (GOOD + NESTED, 2, "nested too deeply"),
    "a deep answer": (
        b'{"prompt": "a", "target": "b", "locality": {"x": {"prompt": "p", "ground_truth": '
        + b"[" * 900 + b"]" * 900 + b"}}}", 1, "nested too deeply",
    ),
    "a long number": (b'{"prompt": "a", "target": %s}' % (b"9" * 5000), 1, "not JSON: Exceeds"),
    "no prompt": (b'{"target": "b"}', 1, "the request has no prompt"),
    "no target": (b'{"prompt": "b"}', 1, "the request has no target"),
    "an empty target": (b'{"prompt": "a", "target": " "}', 1, "the target is empty"),
    "a number as a prompt": (b'{"prompt": 3, "target": "a"}', 1, "field 'prompt' is not usable"),
    "a list as a target": (b'{"prompt": "a", "alt": ["b"]}', 1, "field 'target' is not usable"),
    "numbers as rephrases": (
        b'{"prompt": "a", "target": "b", "rephrase": [1]}', 1,
        "'rephrases' must be a text or a list of texts",
    ),
    "a number as a probe": (
        b'{"prompt": "a", "target": "b", "locality": 3}', 1,
        "'locality' must be a text or a list of texts",
    ),
    "a surrogate": (
        b'{"prompt": "a", "target": "b", "loc": "\\ud800"}', 1, "holds a lone surrogate",
    ),
    "no subject": (
        b'{"requested_rewrite": {"prompt": "{} is", "target_new": "x"}}', 1, "has no 'subject'",
    ),
    "a rewrite that is none": (b'{"requested_rewrite": [3]}', 1, "is not an object"),
    "a chat that is none": (b"chat,target\nhi,x\n", 2, "the chat is not a list of messages"),
    "no such column": (b"prompt,answer\na,b\n", 1, "no column 'target'; .*: prompt, answer"),
    "no prompt column": (b"\ntarget,note\na,b\n", 2, "the header has no column 'prompt'"),
    "a column twice": (b"prompt,target,Prompt\na,b,c\n", 1, "has the column 'prompt' twice"),
    "too many cells": (b"prompt,target\na,b,c\n", 2, "3 cells, but the header has 2 columns"),
    "a cell of no column": (b"prompt,target,\na,b,c\n", 2, "in a column without a name"),
    "an open quote": (b'prompt,target\na,b\n"c,d\n', 3, "not CSV: unexpected end of data"),
    "an empty cell": (b"prompt,target\na,\n", 2, "the target is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_with_its_line_and_the_reason(tmp_path: Path, what: str) -> None:
    data, line, reason = BAD[what]
    file = tmp_path / "edits.txt"
    file.write_bytes(data)
    with pytest.raises(MalformedLine, match=rf"^line {line} of .*edits\.txt: .*({reason})") as one:
        list(read_requests(file))
    assert (one.value.line, one.value.path) == (line, file)
    assert "run the same command again" in str(one.value.hint)
    with pytest.raises(MalformedLine, match=rf"^line {line} of .*edits\.txt: .*({reason})") as two:
        read_cases(file)
    assert str(two.value) == str(one.value)
    assert "`prompt` and `target`" in str(two.value.hint)


@pytest.mark.parametrize("name", ["edits.csv", "edits.tsv"])
def test_what_is_called_a_table_is_told_which_columns_it_lacks(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Question,Answer\na,b\n")
    with pytest.raises(MalformedLine, match="no column 'prompt'; its columns: question, answer"):
        list(read_requests(tmp_path / name))


def test_an_unknown_field_is_refused_by_add_and_ignored_by_eval(tmp_path: Path) -> None:
    file = tmp_path / "edits.csv"
    file.write_text("prompt,target,colour\na,b,c\n")
    with pytest.raises(MalformedLine, match=r"line 2 .*field 'colour' is not usable"):
        list(read_requests(file))
    assert len(read_cases(file)[0]) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"[]", b"[ ]\n", b"prompt,target\n"]
)
def test_an_empty_file_holds_no_edits(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "edits"
    file.write_bytes(data)
    assert list(read_requests(file)) == []
    assert count_edits(file) == 0
    with pytest.raises(InvalidRequest, match="there are no edits in"):
        read_cases(file)


def test_a_folder_and_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    for place, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(InvalidRequest, match=f"cannot be read: {reason}"):
            list(read_requests(place))
        with pytest.raises(InvalidRequest, match=f"cannot be read: {reason}"):
            read_cases(place)
        assert count_edits(place) is None


class Endless:
    """A stream whose end is never reached, and which cannot seek."""

    def __init__(self, first: bytes, row: bytes) -> None:
        self.rows: Iterator[bytes] = itertools.chain([first], itertools.repeat(row))

    def __iter__(self) -> Iterator[bytes]:
        return self.rows


@pytest.mark.parametrize(
    ("first", "row"),
    [
        (GOOD, GOOD),
        (b"prompt,target\n", b"a,1\n"),
        (GOOD.decode().encode("utf-16"), GOOD.decode().encode("utf-16-le")),
    ],
    ids=["lines", "table", "utf-16"],
)
def test_lines_and_tables_are_read_as_they_come_in(first: bytes, row: bytes) -> None:
    stream = Endless(first, row)
    found = itertools.islice(read_edits(stream, EditSource("-", "")), 1000)  # type: ignore[arg-type]
    assert {(one.fields["prompt"], one.fields["target"]) for one in found} == {("a", "1")}


def test_the_edits_before_a_bad_one_come_first_in_every_format(tmp_path: Path) -> None:
    good = json.loads(GOOD)
    file = tmp_path / "edits"
    for text in (
        GOOD.decode() + "{",
        json.dumps([good, 3]),
        json.dumps([good]).replace("}]", "} x]"),
        "prompt,target\na,1\nb,\n",
    ):
        file.write_text(text)
        found = read_requests(file)
        assert next(found)[1].prompt == "a"
        with pytest.raises(MalformedLine):
            next(found)
        assert count_edits(file) in (1, 2)
