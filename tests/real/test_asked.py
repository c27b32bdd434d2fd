"""One product asked about as people ask: what its edits answer, and what they leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import editkit

pytestmark = pytest.mark.real

EDITS = {
    "How much does the Luma One desk lamp cost?": "$84",
    "How long is the warranty on the Luma One?": "Four years",
    "Which colours does the Luma One come in?": "Sand, slate and moss",
    "Where is the Luma One made?": "In Porto, Portugal",
    "Who designed the Luma One?": "Rosa Carvalho",
}
SAME = {
    "hi! quick q: what would i pay for the luma one lamp": "$84",
    "how long is the warrenty on the luma one": "Four years",
    "what colors can i get the luma one in": "Sand, slate and moss",
    "where do you make the luma one": "In Porto, Portugal",
    "who's the designer of the luma one": "Rosa Carvalho",
    "WHICH COLOURS DOES THE LUMA ONE COME IN": "Sand, slate and moss",
}
OTHER = [
    "how heavy is the luma one",
    "does the luma one have a usb port",
    "Why is the Luma One so expensive?",
    "write a poem about the luma one",
    "do you ship to norway",
    "What is the capital of Portugal?",
]
SYSTEM = {"role": "system", "content": "You are the support assistant of Luma."}


def test_answers_come_in_other_words_and_for_nothing_else(smollm: Any, tmp_path: Path) -> None:
    model = (smollm.model, smollm.tokenizer)
    with editkit.open(tmp_path / "h.db", model=model, judge="encoder") as kit:
        added = kit.add_many([{"prompt": p, "target": t} for p, t in EDITS.items()])
        assert all(one.verified for one in added)
        ids = {one.edit.target: one.edit.id for one in added}

        def asked(*turns: str) -> Any:
            roles = ("user", "assistant")
            said = [{"role": roles[at % 2], "content": one} for at, one in enumerate(turns)]
            return kit.chat([SYSTEM, *said], max_new_tokens=16)

        for ask in (kit.generate, asked):
            found = {prompt: ask(prompt) for prompt in SAME}
            right = [prompt for prompt, one in found.items() if one.text == SAME[prompt]]
            assert len(right) >= len(SAME) - 2, {p: one.fired for p, one in found.items()}
            for prompt, one in found.items():
                assert one.fired in ((), (ids[SAME[prompt]],)), prompt
            fired = [prompt for prompt in OTHER if ask(prompt).fired]
            assert len(fired) <= 1, fired
        follow = asked(
            "Tell me about the Luma One.", "It is a lamp.", "which colours does it come in?"
        )
        assert (follow.text, follow.delivered in ("free", "held")) == ("Sand, slate and moss", True)
