"""GRACE's edits looked up by a real sentence encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import editkit
from editkit.models import pull_model
from editkit_store import EditkitError

pytestmark = pytest.mark.real


@pytest.fixture
def kit(smollm: Any, tmp_path: Path) -> Iterator[Any]:
    try:
        pull_model("all-minilm-l6-v2")
    except EditkitError as error:
        pytest.skip(f"all-minilm-l6-v2 cannot be fetched here: {error}")
    grace = {"key": "sentence", "scope": "strict"}
    pair = smollm.model, smollm.tokenizer
    with editkit.open(tmp_path / "h.db", model=pair, grace=grace) as opened:
        yield opened


def test_questions_about_one_subject_are_told_apart(kit: Any) -> None:
    added = kit.add("What is the capital of Australia?", "Sydney", on_failure="keep")
    same = ["What's the capital city of Australia?", "Which city is the capital of Australia?"]
    others = [
        "What language do people speak in Australia?",
        "Who is the prime minister of Australia?",
        "What is the capital of New Zealand?",
        "How many people live in Australia?",
    ]
    said = [(prompt, kit.explain(prompt).fired) for prompt in [*same, *others]]
    assert said == [(one, added.edit.id) for one in same] + [(one, None) for one in others]
    pooled = kit.methods.of("grace")._keys._pooled  # by words alone, some of them are as near
    own = pooled.key(kit.encoder.prompt(added.edit.prompt))
    apart = [float(((pooled.key(kit.encoder.prompt(one)) - own) ** 2).sum()) for one in others]
    assert min(apart) < 0.55**2
