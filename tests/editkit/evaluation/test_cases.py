"""Reading the data of an evaluation: every published form, and what is wrong with a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editkit.errors import MalformedLine
from editkit.evaluation.cases import contradicted, read_cases
from editkit_store.errors import InvalidRequest


def write(path: Path, *lines: Any) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


PLAIN = {
    "id": "a", "prompt": "p", "target": "t", "subject": "s", "rephrases": ["r", "q"],
    "locality_prompt": "l", "locality_answer": "x", "neighbours": ["n"], "portability": {"a": 1},
}  # fmt: skip
ZSRE = {
    "src": "p", "alt": "t", "subject": "s", "pred": "old", "rephrase": "r", "loc": "l",
    "loc_ans": "x", "answers": ["old"], "cond": "old >> t || p",
}  # fmt: skip
FLAT = {
    "prompt": "p", "target_new": "t", "ground_truth": "old", "rephrase_prompt": "r",
    "locality_prompt": "l", "locality_ground_truth": "x", "subject": "s",
}  # fmt: skip
ROME = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} is a", "subject": "s", "relation_id": "P1",
        "target_new": {"str": "t", "id": "Q1"}, "target_true": {"str": "old", "id": "Q2"},
    },
    "paraphrase_prompts": ["r", "q"], "neighborhood_prompts": ["n", "m"],
    "generation_prompts": ["g"],
}  # fmt: skip


@pytest.mark.parametrize("fields", [PLAIN, ZSRE, FLAT], ids=["plain", "zsre", "flat"])
def test_the_fields_of_published_files_are_understood(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    (case,), file = read_cases(write(tmp_path / "d.jsonl", fields))
    assert (case.request.prompt, case.request.target, case.request.subject) == ("p", "t", "s")
    assert case.request.rephrases == () == case.request.locality  # a method is not given them
    assert case.rephrases[0] == "r"
    assert [(probe.prompt, probe.answer) for probe in case.probes] == [("l", "x")]
    assert file.edits == 1
    assert file.digest.startswith("sha256:")


def test_a_template_gets_its_subject_and_neighbours_are_kept_apart(tmp_path: Path) -> None:
    (case,), _ = read_cases(write(tmp_path / "d.jsonl", ROME))
    assert (case.request.prompt, case.request.target) == ("s is a", "t")
    assert case.request.source == "7"
    assert case.rephrases == ("r", "q")
    assert case.probes == ()
    assert [probe.prompt for probe in case.neighbours] == ["n", "m"]


def test_an_array_is_read_as_lines_are(tmp_path: Path) -> None:
    lines, _ = read_cases(write(tmp_path / "a.jsonl", PLAIN, "", ROME))
    (tmp_path / "b.json").write_text(json.dumps([PLAIN, ROME], indent=2), encoding="utf-8")
    assert read_cases(tmp_path / "b.json")[0] == lines
    assert len(read_cases(tmp_path / "b.json", limit=1)[0]) == 1


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(PLAIN).encode() + b"\r\n"
    (tmp_path / "d.jsonl").write_bytes(data)
    assert len(read_cases(tmp_path / "d.jsonl")[0]) == 1


def test_labels_are_what_a_classifier_is_given(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", PLAIN, {**PLAIN, "kind": "fact"})
    (first, second), _ = read_cases(file, kind="label")
    assert (first.request.kind, second.request.kind) == ("label", "fact")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("3", "expected a JSON object, not int"),
        ({"target": "t"}, "no prompt"),
        ({"prompt": "p"}, "no target"),
        ({"prompt": "p", "target": " "}, "target is empty"),
        ({"prompt": "p", "target": "t", "rephrases": [1]}, "texts"),
        ({"prompt": "p", "target": "t", "locality": 3}, ""),
        ({"requested_rewrite": {"prompt": "{}", "subject": "s"}}, "target_new"),
        ("[" * 100_000, ""),
    ],
)
def test_a_line_that_holds_no_edit_is_named(tmp_path: Path, line: Any, says: str) -> None:
    file = write(tmp_path / "d.jsonl", PLAIN, line)
    with pytest.raises(MalformedLine, match="line 2") as caught:
        read_cases(file)
    assert says in str(caught.value)


def test_a_file_without_edits_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no edits"):
        read_cases(write(tmp_path / "d.jsonl", ""))
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_cases(tmp_path / "none.jsonl")
    with pytest.raises(InvalidRequest, match="not JSON"):
        read_cases(write(tmp_path / "d.json", '[{"prompt": "p"'))


def test_what_a_later_edit_takes_back_is_known(tmp_path: Path) -> None:
    edits = [("a", "1"), ("b", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("a", "1")]
    file = write(tmp_path / "d.jsonl", *({"prompt": p, "target": t} for p, t in edits))
    assert contradicted(read_cases(file)[0]) == {2}  # the last word on `a` is 1 again
