"""What every editing method keeps, whoever wrote it: one suite for all that are installed.

A method from another package passes it by being installed; what it is called is all that is asked.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mixed import logits, same
from tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_t5, tiny_tokenizer

import editkit
from editkit.engines.base import Step
from editkit.errors import UnsupportedModel
from editkit.evaluation.evaluate import evaluate
from editkit.kit import Kit
from editkit.methods.registry import registered
from editkit_store import digest_bytes

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

METHODS = tuple(dict.fromkeys(["grace", "elder", "rankone", *registered()]))
MODELS = {"llama": tiny_llama, "gpt2": tiny_gpt2}
QUICK: dict[str, Any] = {"elder": {"r": 4, "train": {"learning_rate": 2e-2, "steps": 80}}}
"""Settings with which a method learns fast enough on a tiny model."""

FACTS = (("tall tree", "two"), ("see Oslo", "yes"), ("gold is", "old"))
PROMPTS = tuple(prompt for prompt, _ in FACTS)
OTHERS = ("milk and bread", "Who are you?")

LEARNS = {("grace", tiny_t5), ("grace", tiny_bert)}
"""Methods that are not for decoders alone."""

Open = Callable[..., Kit]


@dataclass
class Taught:
    """A kit with the facts, a version each; nothing changes it."""

    kit: Kit
    method: str
    ids: tuple[str, ...]
    plain: list[torch.Tensor]


def wanted(method: str) -> str:
    """The method, or a skip that says what to install."""
    if method not in registered():
        pytest.skip(
            f"the method '{method}' is not installed; `make test` installs "
            f"tests/packages/editkit-{method}"
        )
    return method


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return wanted(request.param)


def opened(path: Path, model: Any = None, **options: Any) -> Kit:
    pair = (tiny_llama() if model is None else model, tiny_tokenizer())
    return editkit.open(path, model=pair, methods=QUICK, **options)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Open]:
    """Opens kits that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda name="h.db", model=None, **options: stack.enter_context(
            opened(tmp_path / name, model, **options)
        )


@pytest.fixture(scope="module", params=[(m, name) for m in METHODS for name in MODELS], ids=str)
def taught(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Taught]:
    method, model = wanted(request.param[0]), MODELS[request.param[1]]()
    with opened(tmp_path_factory.mktemp("taught") / "h.db", model) as kit:
        plain = logits(kit, *PROMPTS, *OTHERS)
        added = [kit.add(prompt, target, method=method) for prompt, target in FACTS]
        assert [one.verified for one in added] == [True] * len(FACTS)
        yield Taught(kit, method, tuple(one.edit.id for one in added), plain)


# On one history that nothing changes -------------------------------------------------------------


def test_an_edit_is_verified_recorded_and_fires(taught: Taught) -> None:
    kit = taught.kit
    for (prompt, target), edit_id in zip(FACTS, taught.ids, strict=True):
        said = kit.generate(prompt, delivery="free")
        assert (said.text, said.fired) == (target, (edit_id,))
        (artifact,) = kit.show(edit_id).artifacts
        assert (artifact.method, artifact.verified, artifact.usable) == (taught.method, True, True)
        assert artifact.metrics["answer"] == target
        assert artifact.metrics.get("package") == kit.methods.of(taught.method).package
    assert [one.operation for one in kit.log()] == ["add"] * len(FACTS)
    assert kit.store.verify().problems == ()


def test_each_version_has_its_own_edits_and_v0_is_the_model_as_it_came(taught: Taught) -> None:
    for version in range(len(FACTS) + 1):
        said = taught.kit.generate(list(PROMPTS), version=f"v{version}", delivery="free")
        assert [one.fired for one in said] == [
            (edit_id,) if number <= version else () for number, edit_id in enumerate(taught.ids, 1)
        ]
    assert same(logits(taught.kit, *PROMPTS, *OTHERS, version="v0"), taught.plain)
    assert same(logits(taught.kit, *OTHERS), taught.plain[len(PROMPTS) :])


def test_rows_of_one_batch_run_at_versions_of_their_own(taught: Taught) -> None:
    prompt, target = FACTS[1]
    versions = ["v0", "v3", "v1", "v2"]
    said = taught.kit.generate([prompt] * 4, version=versions, max_new_tokens=4, delivery="free")
    assert [one.version for one in said] == versions
    assert [one.fired for one in said] == [(), taught.ids[1:2], (), taught.ids[1:2]]
    assert [one.text == target for one in said] == [False, True, False, True]


def test_a_stream_says_which_edit_fires_and_a_score_sees_it(taught: Taught) -> None:
    kit = taught.kit
    steps: list[Step] = []

    def watch(step: Step) -> Sequence[bool]:
        steps.append(step)
        return [False] * len(step.tokens)

    asked = [kit.encoder.prompt(prompt) for prompt in (PROMPTS[0], OTHERS[0])]
    said = kit.generate_tokens(asked, max_new_tokens=3, watch=watch)
    assert {step.fired for step in steps} == {(taught.ids[0], None)}
    assert said[0].text == FACTS[0][1]
    now, before = (kit.score(*FACTS[0], version=version) for version in ("v3", "v0"))
    assert (now.fired, before.fired) == ((taught.ids[0],), ())
    assert now.log_likelihood > before.log_likelihood
    assert now.right == now.tokens


def test_explain_names_the_method_of_what_is_near(taught: Taught) -> None:
    found = taught.kit.explain(PROMPTS[2])
    assert found.fired == taught.ids[2]
    assert {one.method for one in found.candidates} == {taught.method}
    nearest = found.candidates[0]
    assert (nearest.edit_id, nearest.in_scope) == (taught.ids[2], True)
    assert nearest.distance <= nearest.radius
    assert taught.kit.explain(OTHERS[0]).fired is None
    assert taught.kit.explain(PROMPTS[2], version="v0").candidates == ()


def test_diff_tells_edits_and_answers_apart(taught: Taught) -> None:
    found = taught.kit.diff("v1", "v3", behavior=True)
    assert [one.id for one in found.added] == list(taught.ids[1:])
    assert found.removed == ()
    changed = {one.prompt: one for one in found.behavior}
    assert changed[PROMPTS[1]].after == FACTS[1][1]
    assert changed[PROMPTS[1]].fired_after == taught.ids[1:2]
    assert json.loads(found.model_dump_json())["details"] == found.details


# On a history of its own -------------------------------------------------------------------------


def test_what_a_model_learned_is_the_same_bytes_again_and_after_reopening(
    method: str, start: Open
) -> None:
    digests = []
    for name in ("one.db", "two.db"):
        kit = start(name)
        added = kit.add(*FACTS[0], method=method)
        (artifact,) = kit.show(added.edit.id).artifacts
        (part,) = kit.store.artifacts.usable(kit.fingerprint, method=method)
        assert [one.edit_id for one in part] == [added.edit.id]
        assert digest_bytes(part[0].payload) == artifact.digest
        digests.append(artifact.digest)
        found = logits(kit, *PROMPTS, *OTHERS)
        kit.close()
        again = start(name)
        assert added.edit.id in again.methods.of(method)
        assert same(logits(again, *PROMPTS, *OTHERS), found)
        again.close()
    assert digests[0] == digests[1]


def test_taking_back_is_exact(method: str, start: Open) -> None:
    kit = start()
    seen = [logits(kit, *PROMPTS, *OTHERS)]
    ids = []
    for prompt, target in FACTS:
        ids.append(kit.add(prompt, target, method=method).edit.id)
        seen.append(logits(kit, *PROMPTS, *OTHERS))
    kit.revert(ids[2])
    assert same(logits(kit, *PROMPTS, *OTHERS), seen[2])
    kit.undo()
    assert same(logits(kit, *PROMPTS, *OTHERS), seen[3])
    kit.redo()
    kit.rollback("v1")
    assert same(logits(kit, *PROMPTS, *OTHERS), seen[1])
    kit.rollback("v0")
    assert same(logits(kit, *PROMPTS, *OTHERS), seen[0])
    kit.rollback("v3")
    kit.revert(ids[1])  # one in the middle
    said = kit.generate(list(PROMPTS), delivery="free")
    assert [one.fired for one in said] == [(ids[0],), (), (ids[2],)]
    assert kit.store.verify().problems == ()


def test_a_newer_edit_of_a_prompt_supersedes_and_comes_off_again(method: str, start: Open) -> None:
    kit = start()
    first = kit.add(*FACTS[0], method=method)
    before = logits(kit, *PROMPTS)
    second = kit.add(FACTS[0][0], "old", method=method)
    assert second.supersedes == (first.edit.id,)
    assert kit.generate(FACTS[0][0], delivery="free").text == "old"
    kit.revert(second.edit.id)
    assert same(logits(kit, *PROMPTS), before)


def test_a_second_model_replays_the_history(method: str, start: Open, tmp_path: Path) -> None:
    with opened(tmp_path / "h.db") as kit:
        kit.add_many([{"prompt": p, "target": t, "method": method} for p, t in FACTS])
    kit = start("h.db", tiny_gpt2(), missing="skip")
    assert kit.generate(PROMPTS[0]).fired == ()
    done = kit.replay()
    assert (done.restored, done.learned, done.failed) == (0, len(FACTS), 0)
    assert [str(one) for one in kit.generate(list(PROMPTS), delivery="free")] == [
        target for _, target in FACTS
    ]
    assert kit.replay().restored == len(FACTS)
    kit.close()
    again = start("h.db", tiny_llama())
    assert [str(one) for one in again.generate(list(PROMPTS), delivery="free")] == [
        target for _, target in FACTS
    ]


def test_a_bundle_brings_what_was_learned(method: str, start: Open, tmp_path: Path) -> None:
    kit = start("from.db")
    added = kit.add(*FACTS[0], method=method)
    found = logits(kit, *PROMPTS, *OTHERS)
    kit.export_bundle(tmp_path / "bundle")
    kit.close()
    other = start("to.db")
    other.import_bundle(tmp_path / "bundle")
    assert other.generate(PROMPTS[0]).fired == (added.edit.id,)
    assert same(logits(other, *PROMPTS, *OTHERS), found)


@pytest.mark.parametrize("step", ["learn", "joined", "verify", "finalize", "to_bytes"])
def test_a_method_that_raises_writes_nothing(
    method: str, step: str, start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = start()
    learner = kit.methods.of(method)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no more memory")

    with monkeypatch.context() as patch:
        patch.setattr(learner, step, broken)
        with pytest.raises(RuntimeError, match="no more memory"):
            kit.add(*FACTS[0], method=method)
    assert (kit.version, kit.log()) == ("v0", [])
    assert kit.store.artifacts.attempted(kit.fingerprint) == set()
    assert kit.generate(PROMPTS[0]).fired == ()
    added = kit.add(*FACTS[0], method=method)
    assert (added.version, added.verified) == ("v1", True)


def test_a_replay_that_raises_can_be_run_again(
    method: str, start: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "h.db") as kit:
        kit.add(*FACTS[0], method=method)
    kit = start("h.db", tiny_gpt2(), missing="skip")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no more memory")

    with monkeypatch.context() as patch:
        patch.setattr(kit.methods.of(method), "verify", broken)
        with pytest.raises(RuntimeError, match="no more memory"):
            kit.replay()
    assert kit.store.artifacts.attempted(kit.fingerprint) == set()
    assert kit.replay().learned == 1
    assert kit.generate(PROMPTS[0], delivery="free").text == FACTS[0][1]


@pytest.mark.parametrize("make", [tiny_t5, tiny_bert])
def test_a_model_that_it_is_not_for_is_refused_or_learns(
    method: str, make: Any, start: Open
) -> None:
    kit = start(model=make())
    target = "positive" if make is tiny_bert else "two"
    learner = kit.methods.get(method)
    assert learner is not None
    if (method, make) not in LEARNS:
        with pytest.raises(UnsupportedModel, match=type(kit.model).__name__):
            learner.check()
        with pytest.raises(UnsupportedModel):
            kit.add(PROMPTS[0], target, method=method)
        assert kit.log() == []
        return
    added = kit.add(PROMPTS[0], target, method=method)
    assert added.verified
    assert kit.generate(PROMPTS[0]).fired == (added.edit.id,)
    kit.revert(added.edit.id)
    assert kit.generate(PROMPTS[0]).fired == ()


def test_others_read_while_it_learns_and_the_view_moves(method: str, start: Open) -> None:
    kit = start()
    first = kit.add(*FACTS[0], method=method).edit
    plain = logits(kit, OTHERS[0])
    over = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        asked = 0
        try:
            while not over.is_set() or asked < 3:
                said = kit.generate(
                    [PROMPTS[0]] * 2, version=["v1", "v0"], max_new_tokens=3, delivery="free"
                )
                if [one.fired for one in said] != [(first.id,), ()]:
                    wrong.append(said)
                if not same(logits(kit, OTHERS[0]), plain):
                    wrong.append("another prompt changed")
                asked += 1
        except BaseException as error:
            wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        kit.add(*FACTS[1], method=method)
        kit.rollback("v0")
        kit.undo()
    finally:
        over.set()
        reader.join()
    assert wrong == []
    assert str(kit.generate(PROMPTS[1], delivery="free")) == FACTS[1][1]


def test_it_is_evaluated(method: str, tmp_path: Path) -> None:
    data = tmp_path / "edits.jsonl"
    rows = [{"prompt": p, "target": t, "locality": [OTHERS[0]]} for p, t in FACTS[:2]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = evaluate(
        [data], model=(tiny_llama(), tiny_tokenizer()), methods=[method], out=tmp_path / "out",
        at=[2], general="The sea is blue.\nA cat and a dog, one black and one white.",
    )  # fmt: skip
    assert report.methods == (method,)
    last = report.points[-1]
    assert (last.method, last.edits) == (method, 2)
    assert last.locality.value == 1.0


# Together ----------------------------------------------------------------------------------------


def test_all_methods_share_a_view_and_one_arbiter(start: Open) -> None:
    here = [name for name, one in registered().items() if one.spec is not None]
    kit = start()
    plain = logits(kit, *OTHERS)
    ids = {}
    for name, (prompt, target) in zip(here, FACTS, strict=False):
        ids[name] = kit.add(prompt, target, method=name).edit.id
    count = len(ids)
    said = kit.generate(list(PROMPTS[:count]), max_new_tokens=6, delivery="free")
    assert [one.fired for one in said] == [(one,) for one in ids.values()]
    assert [one.text for one in said] == [target for _, target in FACTS[:count]]
    assert [part.method for part in kit._running.engine.view.parts] == list(ids)
    assert same(logits(kit, *OTHERS), plain)
    for name, prompt in zip(ids, PROMPTS, strict=False):
        found = kit.explain(prompt)
        assert found.fired == ids[name]
        assert {one.edit_id: one.method for one in found.candidates}[ids[name]] == name
    # An edit of the same prompt by another method takes the first one's place.
    first, last = here[0], here[count - 1]
    added = kit.add(PROMPTS[0], "old", method=last)
    assert added.supersedes == (ids[first],)
    assert kit.generate(PROMPTS[0]).fired == (added.edit.id,)
    kit.revert(added.edit.id)
    assert kit.generate(PROMPTS[0]).fired == (ids[first],)
