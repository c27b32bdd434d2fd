"""A target taken as the draft of an answer stands exactly if greedy generation gives it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer

import editkit
from editkit.editing.requests import build_request
from editkit.engines.transformers.generator import Generated

PROMPTS = ["a good day in Paris", "Who?", "a bad night in Rome one two three", "x"]
TARGETS = ["Canberra", "Oslo or Bergen", "one", "red green blue"]


@pytest.fixture(params=[tiny_llama, tiny_gpt2, tiny_t5], ids=["llama", "gpt2", "t5"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with editkit.open(tmp_path / "h.db", model=(request.param(), tiny_tokenizer())) as opened:
        yield opened


def drafted(
    kit: Any, prompts: Sequence[str], targets: Sequence[str], versions: Sequence[str | None]
) -> list[Generated | None]:
    """Drafts of targets for prompts, as verification makes them after learning."""
    learner = kit.methods.of("grace")
    asked = [
        build_request({"prompt": p, "target": t}) for p, t in zip(prompts, targets, strict=True)
    ]
    requests = [kit.encoder.request(one) for one in asked]
    edits = [kit.store.prepare(one) for one in asked]
    lessons = learner.learn(list(zip(edits, requests, strict=True)))
    order = sorted(range(len(lessons)), key=lambda index: lessons[index].row)
    found = kit._running.engine.drafted(
        lessons[0].batch,
        [requests[index] for index in order],
        [kit._running.view(versions[index]) for index in order],
    )
    return [found[order.index(index)] for index in range(len(requests))]


def test_a_draft_stands_exactly_where_generation_gives_the_target(kit: Any) -> None:
    kit.add_many([{"prompt": p, "target": t} for p, t in zip(PROMPTS, TARGETS, strict=True)])
    prompts, targets = PROMPTS * 2, [*TARGETS, *reversed(TARGETS)]
    versions = [None, "v0", None, "v2", None, None, "v0", None]
    found = drafted(kit, prompts, targets, versions)
    wanted = kit.generate(
        prompts, version=[v or "@" for v in versions], max_new_tokens=8, delivery="free"
    )
    assert any(found)
    assert not all(found)
    for draft, target, generated in zip(found, targets, wanted, strict=True):
        assert (draft is not None) == (generated.text == target)
        if draft is not None:
            assert (draft.fired,) == generated.fired
            assert (draft.text, draft.tokens) == (generated.text, generated.tokens)


def test_a_model_whose_own_settings_bend_greedy_decoding_is_asked_step_by_step(kit: Any) -> None:
    kit.add(PROMPTS[0], TARGETS[0])
    assert drafted(kit, PROMPTS[:1], TARGETS[:1], [None])[0] is not None
    kit.model.generation_config.temperature = 0.5  # for sampling only
    assert drafted(kit, PROMPTS[:1], TARGETS[:1], [None])[0] is not None
    kit.model.generation_config.repetition_penalty = 50.0
    assert drafted(kit, PROMPTS[:1], TARGETS[:1], [None])[0] is None
    # The penalty forbids what is already in the prompt: verification must see that.
    failed = kit.add("green green green", "green green green", on_failure="keep")
    assert not failed.verified
    assert (
        failed.answer == kit.generate("green green green", max_new_tokens=8, delivery="free").text
    )


def test_a_lead_that_rounding_could_turn_is_not_taken(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.add(PROMPTS[0], TARGETS[0])
    monkeypatch.setattr("editkit.engines.transformers.generator._CLEAR", 1e6)
    assert drafted(kit, PROMPTS[:1], TARGETS[:1], [None]) == [None]
    again = kit.add(PROMPTS[1], "Oslo")
    assert again.verified  # by decoding step by step


def test_a_classifier_is_asked_in_the_same_pass(tmp_path: Path) -> None:
    with editkit.open(tmp_path / "h.db", model=(tiny_bert(), tiny_tokenizer())) as kit:
        other = next(
            label
            for label in ("negative", "positive")
            if label != str(kit.generate("Who?", delivery="free"))
        )
        added = kit.add("Who?", other)
        assert (added.verified, added.answer) == (True, other)
        (lesson,) = kit.methods.of("grace").learn([(added.edit, kit.encoder.request(added.edit))])
        for version, stands in ((None, True), ("v0", False)):
            view = kit._running.view(version)
            (draft,) = kit._running.engine.drafted(lesson.batch, [lesson.encoded], [view])
            assert (draft is not None) == stands
