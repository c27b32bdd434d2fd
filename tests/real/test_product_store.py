"""A store about one product: what every edit names is no reason for any of them to apply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import editkit

pytestmark = pytest.mark.real

EDITS = {
    "What is the default port of AcmeDB?": "7431",
    "Who maintains AcmeDB?": "Edda Brandt",
    "Which licence is AcmeDB released under?": "MPL-2.0",
    "What language is AcmeDB written in?": "Zig",
    "How many replicas does AcmeDB keep?": "Five",
    "Where does AcmeDB store its logs?": "In the journal folder",
    "What is the largest row in AcmeDB?": "64 KiB",
    "Which company hosts AcmeDB?": "Norrland Cloud",
}
REPHRASED = {
    "Tell me the default port of AcmeDB.": "What is the default port of AcmeDB?",
    "What language was AcmeDB written in?": "What language is AcmeDB written in?",
    "Which licence does AcmeDB have?": "Which licence is AcmeDB released under?",
}
OTHERS = [
    "Can AcmeDB be installed on Windows with a graphical wizard?",
    "Why do my colleagues dislike AcmeDB so much?",
    "How do I restart AcmeDB?",
    "Does AcmeDB support full-text search in Japanese?",
]


def test_other_questions_about_the_product_are_left_alone(smollm: Any, tmp_path: Path) -> None:
    def logits(text: str) -> torch.Tensor:
        with torch.no_grad():
            return smollm.model(**smollm.tokenizer(text, return_tensors="pt")).logits

    plain = {text: logits(text) for text in OTHERS}
    with editkit.open(tmp_path / "h.db", model=(smollm.model, smollm.tokenizer)) as kit:
        requests = [editkit.EditRequest(prompt=p, target=t) for p, t in EDITS.items()]
        added = kit.add_many(requests)
        assert all(one.verified for one in added)
        for prompt, target in EDITS.items():
            assert kit.generate(prompt, delivery="free").text == target, kit.explain(prompt).summary
        ids = {one.edit.prompt: one.edit.id for one in added}
        for prompt, meant in REPHRASED.items():
            assert kit.explain(prompt).fired == ids[meant]
        for text in OTHERS:
            assert torch.equal(logits(text), plain[text]), kit.explain(text).summary
        # Where one edit is alone, nothing tells what it is about but its prompt.
        within = [kit.explain(text).candidates[0] for text in OTHERS]
        assert any(one.distance <= one.radius and not one.in_scope for one in within)
