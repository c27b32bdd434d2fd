"""Reading the requests of a file line by line, up to the first bad one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editkit.editing.files import read_requests
from editkit.errors import MalformedLine
from editkit_store.errors import InvalidRequest


def write(path: Path, *lines: Any) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_plain_lines_and_lines_of_the_fields_data_sets_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "e.jsonl",
        {"prompt": "a", "target": "1"},
        "",
        {
            "id": "zsre-0", "prompt": "b", "target": "2", "subject": "s", "rephrases": ["c"],
            "locality_prompt": "d", "locality_answer": "x", "ground_truth": "y",
            "unrelated_prompt": "z",
        },
    )  # fmt: skip
    (one, first), (two, second) = read_requests(file)
    assert (one, two) == (1, 3)
    assert (first.prompt, first.target, first.method) == ("a", "1", "grace")
    assert (second.source, second.rephrases, second.locality) == ("zsre-0", ("c",), ("d",))


def test_the_method_of_the_command_is_for_lines_that_name_none(tmp_path: Path) -> None:
    file = write(
        tmp_path / "e.jsonl",
        {"prompt": "a", "target": "1"},
        {"prompt": "a", "target": "1", "method": "grace"},
    )
    assert [r.method for _, r in read_requests(file, method="elder")] == ["elder", "grace"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{oops", "not JSON"),
        ("[1]", "expected a JSON object, not list"),
        ('{"prompt": "a"}', "the request has no target"),
        ('{"prompt": "", "target": "x"}', "the prompt is empty"),
        ('{"prompt": "a", "target": "\\u200b"}', "the target is empty"),
        ('{"prompt": "a", "target": 3}', "field 'target' is not usable"),
        ('{"prompt": "a", "target": "b", "note": 1}', "field 'note' is not usable"),
        ('{"prompt": "a", "target": "b", "kind": "joke"}', "field 'kind' is not usable"),
        ('{"prompt": "a\\ud800", "target": "b"}', "lone surrogate"),
        ("\udcff", "not UTF-8 text"),
    ],
)
def test_a_malformed_line_is_named_after_the_lines_before_it(
    tmp_path: Path, line: str, reason: str
) -> None:
    file = tmp_path / "e.jsonl"
    good = b'{"prompt": "a", "target": "1"}\n'
    file.write_bytes(good + line.encode("utf-8", "surrogateescape") + b"\n" + good)
    found = read_requests(file)
    assert next(found)[0] == 1
    with pytest.raises(MalformedLine, match=f"line 2 of .*{reason}") as caught:
        next(found)
    assert caught.value.line == 2
    assert "run the same command again" in str(caught.value.hint)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.jsonl' cannot be read: No such file"):
        next(read_requests(tmp_path / "none.jsonl"))


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "e.jsonl"
    file.write_bytes(data)
    with contextlib.suppress(MalformedLine):  # any other exception is the failure
        list(read_requests(file))
