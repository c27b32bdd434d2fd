"""Blocks: every form of a prompt of `same` and `other`, and what is said of one that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editkit.editing.files import read_requests
from editkit.errors import MalformedLine
from editkit.evaluation.cases import Case, read_cases

EDIT = {"prompt": "p", "target": "t"}
SYSTEM = {"role": "system", "content": "Be brief."}


def write(path: Path, *blocks: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in blocks), encoding="utf-8")
    return path


def read(tmp_path: Path, **fields: Any) -> Case:
    ((case,), _) = read_cases(write(tmp_path / "b.jsonl", {**EDIT, **fields}))
    return case


def asked(case: Case) -> list[tuple[Any, ...]]:
    return [
        (
            one.prompt,
            one.chat and [(turn.role, turn.content) for turn in one.chat],
            one.kind,
            one.language,
        )
        for one in (*case.same, *case.other)
    ]


def test_a_prompt_is_a_text_turns_messages_or_an_object_of_one(tmp_path: Path) -> None:
    turns = [("user", "about p"), ("assistant", "ok"), ("user", "and?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    case = read(
        tmp_path,
        language="en",
        domain="d",
        same=["s", [text for _, text in turns], messages, {"prompt": "o", "kind": "close"}],
        other=[{"turns": [text for _, text in turns], "language": "de"}, {"chat": messages}],
    )
    assert asked(case) == [
        ("s", None, None, "en"),
        ("and?", turns, None, "en"),
        ("and?", turns, None, "en"),
        ("o", None, "close", "en"),
        ("and?", turns, None, "de"),
        ("and?", turns, None, "en"),
    ]
    assert len(case.same) == 4


def test_kinds_may_be_listed_beside(tmp_path: Path) -> None:
    case = read(tmp_path, same=["a", "b"], same_kinds=["close", "typo"])
    assert [one.kind for one in case.same] == ["close", "typo"]
    assert case.other == ()


def test_of_an_edit_in_a_chat_prompts_are_asked_in_a_chat_with_its_system_prompt(
    tmp_path: Path,
) -> None:
    system = ("system", "Be brief.")
    own = [{"role": "user", "content": "own"}]
    case = read(tmp_path, prompt=None, chat=[SYSTEM, {"role": "user", "content": "p"}],
                same=["s", ["a", "b", "c"], own])  # fmt: skip
    assert [chat for _, chat, _, _ in asked(case)] == [
        [system, ("user", "s")],
        [system, ("user", "a"), ("assistant", "b"), ("user", "c")],
        [("user", "own")],  # said in full, so nothing is added
    ]


@pytest.mark.parametrize("fields", [{}, {"same": None, "other": None}, {"same": [], "other": []}])
def test_without_either_it_is_an_ordinary_edit(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert asked(read(tmp_path, **fields)) == []


def test_to_add_a_block_is_an_edit_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path / "b.jsonl", {**EDIT, "same": ["s"], "other": ["o"], "language": "en"})
    ((_, request),) = read_requests(path)
    assert (request.prompt, request.target, request.rephrases) == ("p", "t", ())


def test_a_table_holds_blocks_too(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text('prompt,target,same,other\np,t,"a\nb","[""c""]"\n')
    ((case,), _) = read_cases(tmp_path / "b.csv")
    assert [one[0] for one in asked(case)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"same": "s"}, "'same' must be a list of prompts"),
        ({"other": {"prompt": "o"}}, "'other' must be a list of prompts"),
        ({"same": ["s", 3]}, r"'same\[1\]' must be a text, a list of turns, or an object"),
        ({"same": [None]}, r"'same\[0\]' must be a text, a list of turns, or an object"),
        ({"other": [{"kind": "close"}]}, r"'other\[0\]' must be a text"),
        ({"same": [["a", 3, "b"]]}, r"'same\[0\]' must be a text, a list of turns"),
        ({"same": [[]]}, r"'same\[0\]' is a conversation that does not end with the user's turn"),
        ({"same": [["a", "b"]]}, r"'same\[0\]' is a conversation that does not end with the user"),
        ({"same": [[{"role": "user"}]]}, r"'same\[0\]' has a turn that is not an object of 'role'"),
        ({"same": [" "]}, r"'same\[0\]' is empty"),
        ({"other": ["o", {"prompt": "\u200b"}]}, r"'other\[1\]' is empty"),
        ({"other": [["a", "", "b"]]}, r"'other\[0\]' is empty"),
        ({"same": ["\ud800"]}, r"'same\[0\]' holds a lone surrogate"),
        ({"same": [{"prompt": "s", "kind": 3}]}, r"'same\[0\].kind' must be a text, not int"),
        ({"same": ["s"], "language": ["en"]}, "'language' must be a text, not list"),
        ({"same": ["s"], "same_kinds": []}, "'same_kinds' must be a list with one kind for each"),
    ],
)
@pytest.mark.parametrize("reader", [read_cases, lambda path: list(read_requests(path))])
def test_what_is_no_prompt_is_refused_with_file_line_and_field(
    tmp_path: Path, fields: dict[str, Any], says: str, reader: Any
) -> None:
    path = write(tmp_path / "b.jsonl", EDIT, {**EDIT, **fields})
    with pytest.raises(MalformedLine, match=rf"^line 2 of .*b\.jsonl: {says}"):
        reader(path)
