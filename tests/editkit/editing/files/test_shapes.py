"""Every published shape, in every format, encoding and ending of lines, for both who read them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from editkit.editing.files import count_edits, read_requests
from editkit.evaluation.cases import read_cases

PLAIN = {
    "id": "a", "prompt": "p é 漢 Ċ", "target": "t", "subject": "s", "rephrases": ["r", "q"],
    "locality_prompt": "l", "locality_answer": "x", "ground_truth": "old",
}  # fmt: skip
ZSRE = {
    "src": "p é 漢 Ċ", "alt": "t", "subject": "s", "pred": "old", "rephrase": "r", "loc": "l",
    "loc_ans": "x", "answers": ["old"], "cond": "old >> t || p",
}  # fmt: skip
COUNTERFACT = {
    "case_id": 7, "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "{} é 漢 Ċ", "subject": "p", "relation_id": "P1",
        "target_new": {"str": "t", "id": "Q1"}, "target_true": {"str": "old", "id": "Q2"},
    },
    "paraphrase_prompts": ["r", "q"], "neighborhood_prompts": ["n", "m"],
    "attribute_prompts": ["a"], "generation_prompts": ["g"],
}  # fmt: skip
KNOWEDIT = {
    "subject": "s", "prompt": "p é 漢 Ċ", "target_new": "t", "ground_truth": ["old"],
    "rephrase_prompt": "r", "cond": "old >> t || p",
    "portability": {"Reasoning": [{"prompt": "why", "ground_truth": "so"}]},
    "locality": {
        "Relation_Specificity": [
            {"prompt": "l", "ground_truth": [["x", "X"], ["y"]]},
            {"prompt": "k", "ground_truth": "z"},
        ],
        "Forgetfulness": [{"prompt": "f", "ground_truth": ["w"]}],
    },
}  # fmt: skip
WIKIBIO = {
    "text": "p é 漢 Ċ", "labels": "t", "concept": "s",
    "locality": {"Relation_Specificity": [{"prompt": "l", "ground_truth": ["x"]}]},
}  # fmt: skip
EASYEDIT = {
    "case_id": 0, "prompt": "p é 漢 Ċ", "target_new": "t", "subject": "s", "ground_truth": "old",
    "rephrase_prompt": "r", "locality_prompt": "l", "locality_ground_truth": "x",
}  # fmt: skip
GROUPED = {
    "prompt": "p é 漢 Ċ", "target_new": "t", "subject": "s", "ground_truth": "old",
    "locality": {
        "neighborhood": {"prompt": ["n", "m"], "ground_truth": ["u", ["v", "V"]]},
        "distracting": {"prompt": "l", "ground_truth": ["x", "X"]},
    },
}  # fmt: skip
MQUAKE = {
    "case_id": 9,
    "requested_rewrite": [
        {
            "prompt": "{} é 漢 Ċ", "relation_id": "P1", "subject": "p", "question": "r?",
            "target_new": {"str": "t", "id": "Q1"}, "target_true": {"str": "old", "id": "Q2"},
        },
        {
            "prompt": "{} is led by", "relation_id": "P2", "subject": "t", "question": "who leads?",
            "target_new": {"str": "u", "id": "Q3"}, "target_true": {"str": "old", "id": "Q4"},
        },
    ],
    "questions": ["a", "b"], "answer": "old", "answer_alias": [], "new_answer": "u",
    "new_answer_alias": [], "single_hops": [], "new_single_hops": [], "orig": {},
}  # fmt: skip

# Of each: subject, source, rephrases, probes, neighbours of its first edit.
SHAPES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "plain": (PLAIN, ("s", "a", ["r", "q"], [("l", "x")], [])),
    "zsre": (ZSRE, ("s", None, ["r"], [("l", "x")], [])),
    "counterfact": (COUNTERFACT, ("p", "7", ["r", "q"], [], [("n", None), ("m", None)])),
    "knowedit": (KNOWEDIT, ("s", None, ["r"], [("l", "x"), ("k", "z"), ("f", "w")], [])),
    "wikibio": (WIKIBIO, ("s", None, [], [("l", "x")], [])),
    "easyedit": (EASYEDIT, ("s", "0", ["r"], [("l", "x")], [])),
    "grouped": (GROUPED, ("s", None, [], [("l", "x")], [("n", "u"), ("m", "v")])),
    "mquake": (MQUAKE, ("p", "9", ["r?"], [], [])),
}
ENCODINGS = [
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be",
]  # fmt: skip
FORMATS = {
    "lines": lambda objects: "\n".join(json.dumps(one, ensure_ascii=False) for one in objects),
    "array": lambda objects: json.dumps(objects, ensure_ascii=False, indent=1),
    "compact": lambda objects: json.dumps(objects, ensure_ascii=False),
    "indented": lambda objects: "\n".join(
        json.dumps(one, ensure_ascii=False, indent=2) for one in objects
    ),
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_edit_to_both_readers(
    tmp_path: Path, shape: str, form: str, encoding: str, end: str
) -> None:
    given, (subject, source, rephrases, probes, neighbours) = SHAPES[shape]
    text = FORMATS[form]([given, {"prompt": "last", "target": "one"}])
    file = tmp_path / "edits.anything"
    file.write_bytes((text.replace("\n", end) + end).encode(encoding))
    expected = 3 if shape == "mquake" else 2
    cases, data = read_cases(file)
    assert data.edits == len(cases) == count_edits(file) == expected
    case = cases[0]
    assert (case.request.prompt, case.request.target) == ("p é 漢 Ċ", "t")
    assert (case.request.subject, case.request.source) == (subject, source)
    assert list(case.rephrases) == rephrases
    assert [(one.prompt, one.answer) for one in case.probes] == probes
    assert [(one.prompt, one.answer) for one in case.neighbours] == neighbours
    assert case.request.rephrases == case.request.locality == ()  # a method is not given them
    (_, request), *others = read_requests(file)
    assert len(others) == expected - 1
    assert (request.prompt, request.target) == ("p é 漢 Ċ", "t")
    assert (request.subject, request.source) == (subject, source)
    assert list(request.rephrases) == rephrases
    assert list(request.locality) == [prompt for prompt, _ in probes + neighbours]
    assert others[-1][1].prompt == "last"


def test_each_rewrite_of_a_chain_of_facts_is_an_edit(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(MQUAKE))
    (_, first), (_, second) = read_requests(tmp_path / "d.json")
    assert (first.source, second.source) == ("9", "9")
    assert (second.prompt, second.target, second.subject) == ("t is led by", "u", "t")
    assert second.rephrases == ("who leads?",)


def table(rows: list[list[str]], delimiter: str, end: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_has_an_edit_a_row(tmp_path: Path, delimiter: str, encoding: str, end: str) -> None:
    rows = [
        [" Prompt", "target", "rephrases", "locality_prompt", "locality_answer", "kind", ""],
        ["p, é; 漢\tĊ", 'a "t"', "r\nq", "l", "x", "passage", ""],
        ["", "", "", "", "", "", ""],
        ["next", "one", '["r, 1", "q"]', "", "", "", ""],
    ]
    file = tmp_path / "edits.anything"
    file.write_bytes(table(rows, delimiter, end).encode(encoding))
    (one, first), (four, second) = read_requests(file)
    assert (one, four) == (2, 5)  # a cell has two lines
    assert (first.prompt, first.target, first.kind) == ("p, é; 漢\tĊ", 'a "t"', "passage")
    assert (first.rephrases, first.locality) == (("r", "q"), ("l",))
    assert (second.kind, second.rephrases) == ("fact", ("r, 1", "q"))
    case = read_cases(file)[0][0]
    assert [(probe.prompt, probe.answer) for probe in case.probes] == [("l", "x")]


def test_a_table_can_hold_conversations_and_all_other_fields(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    rows = [["chat", "target", "method", "author", "case_id"]]
    rows += [[json.dumps(chat), "t", "elder", "ada", "12"]]
    (tmp_path / "d.csv").write_text(table(rows, ",", "\n"))
    ((_, request),) = read_requests(tmp_path / "d.csv", method="grace", scope="broad")
    assert (request.prompt, request.chat and request.chat[0].content) == ("hi", "s")
    assert (request.method, request.author, request.source) == ("elder", "ada", "12")
    assert request.scope is None  # its method has none
