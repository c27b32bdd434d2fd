"""ELDER adapters in training, in threads, in half precision, and looked up by words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elders import (
    OTHER,
    PROMPT,
    SECOND,
    Make,
    adapter_tensors,
    close,
    config,
    generate,
    learned,
    literal,
    logits,
    queries_of,
    randomize,
)
from peft import PeftModel, get_peft_model
from reference import literal_elder
from tiny import tiny_llama, tiny_tokenizer

from editkit.errors import ModelUnavailable
from editkit.methods.elder import routing
from editkit.methods.elder.peft.tuner import ElderLinear

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def in_threads(*works: tuple[Callable[[], Any], Any]) -> None:
    """Runs each piece of work several times beside the others; its result is always the same."""
    wrong: list[Any] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any], wanted: Any) -> None:
        start.wait()
        for _ in range(4):
            found = work()
            if found != wanted:
                wrong.append((found, wanted))

    threads = [threading.Thread(target=run, args=one) for one in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_models_in_two_threads_do_not_disturb_each_other(make: Make) -> None:
    one, two = learned(make, prompts=[PROMPT]), learned(make, prompts=[SECOND], top_k=3)
    rows = (PROMPT, SECOND)
    wanted = [generate(peft, *rows) for peft in (one, two)]
    plain = generate(make(), *rows)
    assert [wanted[0][1], wanted[1][0]] == plain[::-1]
    assert wanted[0][0] != plain[0]
    assert wanted[1][1] != plain[1]
    in_threads((lambda: generate(one, *rows), wanted[0]), (lambda: generate(two, *rows), wanted[1]))


def test_one_model_serves_two_threads_with_different_prompts(make: Make) -> None:
    peft = learned(make)
    # Different numbers of rows and tokens, so that a decision of the other thread would show.
    batches = ((PROMPT,), (OTHER, SECOND), (OTHER,))
    wanted = [generate(peft, *rows) for rows in batches]
    in_threads(
        *[
            (lambda rows=rows: generate(peft, *rows), found)
            for rows, found in zip(batches, wanted, strict=True)
        ],
        (lambda: logits(peft, PROMPT).tolist(), logits(peft, PROMPT).tolist()),
    )


# Training


@pytest.mark.parametrize("target", [None, ["gate_proj"], ["gate_proj", "down_proj"]])
def test_exactly_the_adapters_parameters_are_trainable(target: list[str] | None) -> None:
    peft = get_peft_model(tiny_llama(), config(target_modules=target))
    names = {name for name, parameter in peft.named_parameters() if parameter.requires_grad}
    layers = [m for m in peft.modules() if isinstance(m, ElderLinear)]
    assert len(layers) == 2 * len(target or [None])
    assert len(names) == 3 * len(layers)
    assert names == {
        f"{path}.{kind}.default"
        for path, module in peft.named_modules()
        if isinstance(module, ElderLinear)
        for kind in ("elder_A", "elder_B", "elder_router")
    }


def test_the_guided_loss_trains_the_routers_and_nothing_else(make: Make) -> None:
    peft = learned(make)
    queries = queries_of(peft, [PROMPT, OTHER])
    allocations = torch.from_numpy(routing.allocate(2, layers=2, experts=6, k=2))
    tuner = peft.base_model
    optimizer = torch.optim.Adam(
        [parameter for parameter in peft.parameters() if parameter.requires_grad], lr=0.05
    )
    before = {name: tensor.clone() for name, tensor in adapter_tensors(peft).items()}
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = tuner.guided_loss(queries, allocations)
        losses.append(loss.detach())
        loss.sum().backward()
        optimizer.step()
    routers = literal(peft, make()).routers
    expected = [
        literal_elder.guided_loss(literal_elder.scores(routers, query), allocation)
        for query, allocation in zip(queries, allocations.tolist(), strict=True)
    ]
    found = tuner.guided_loss(queries, allocations).detach()
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert (found < losses[0]).all()
    tuner.remember(queries, ["a", "b"])
    assert np.array_equal(tuner.state().codes, routing.packed(allocations.numpy(), 6))
    for name, tensor in adapter_tensors(peft).items():
        if "elder_A" in name or "elder_B" in name:
            assert torch.equal(tensor, before[name])


def training(peft: Any) -> Any:
    """The same model in training, but for its dropout."""
    peft.eval()
    peft.base_model.training = True
    return peft


def gradients(peft: Any, ids: torch.Tensor) -> None:
    peft.zero_grad()
    torch.nn.functional.cross_entropy(peft(ids).logits[0], ids[0]).backward()


def test_in_training_nothing_is_deferred(make: Make) -> None:
    peft = learned(make, prompts=[PROMPT])
    plain = make()
    assert torch.equal(logits(peft, OTHER), logits(plain, OTHER))
    close(logits(training(peft), OTHER)[0], literal(peft, plain).logits(OTHER, is_training=True))


def test_the_models_loss_trains_the_chosen_experts_and_the_routers_alone(make: Make) -> None:
    peft = training(learned(make))
    gradients(peft, torch.tensor([OTHER]))
    expected = literal(peft, make())
    _, taken, _ = expected.decide(expected.query(OTHER), is_training=True)
    layers = [m for m in peft.modules() if isinstance(m, ElderLinear)]
    for layer, experts in zip(layers, taken, strict=True):
        for tensor in (layer.elder_A["default"], layer.elder_B["default"]):
            assert [i for i, part in enumerate(tensor.grad) if part.any()] == experts
        assert layer.elder_router["default"].grad.any()
    others = [p for name, p in peft.named_parameters() if "elder_" not in name]
    assert all(parameter.grad is None for parameter in others)


def test_equal_weights_give_the_routers_no_gradient(make: Make) -> None:
    peft = training(learned(make, weighting="equal"))
    gradients(peft, torch.tensor([OTHER]))
    for module in peft.modules():
        if isinstance(module, ElderLinear):
            pull = module.elder_router["default"].grad
            assert pull is None or not pull.any()
            assert module.elder_B["default"].grad.any()


def test_an_adapter_learns_a_sequence(make: Make) -> None:
    peft = training(get_peft_model(make(), config(lora_alpha=8.0)))
    ids = torch.tensor([[*PROMPT, 70]])
    optimizer = torch.optim.Adam(
        [parameter for parameter in peft.parameters() if parameter.requires_grad], lr=0.02
    )
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(peft(ids).logits[0, 3:4], ids[0, 4:])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_refused_instead_of_training_nothing(reentrant: bool) -> None:
    peft = learned(tiny_llama).train()
    peft.enable_input_require_grads()
    peft.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    with pytest.raises(RuntimeError, match="switch gradient checkpointing off"):
        gradients(peft, torch.tensor([OTHER]))
    peft.gradient_checkpointing_disable()
    gradients(peft, torch.tensor([OTHER]))
    assert peft.base_model.state().lora_B[0].grad.any()


# Half precision, and prompts looked up by their words


def test_a_model_in_half_precision_keeps_its_experts_in_single(tmp_path: Path) -> None:
    def make() -> Any:
        return tiny_llama().to(torch.bfloat16)

    peft, plain = learned(make), make()
    experts = [t for name, t in adapter_tensors(peft).items() if "elder_A" in name or "_B" in name]
    assert {tensor.dtype for tensor in experts} == {torch.float32}
    found, before = logits(peft, OTHER, PROMPT), logits(plain, OTHER, PROMPT)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found[0], before[0])
    wanted = literal(peft, plain).logits(PROMPT)
    assert (wanted - before[1]).abs().max() > 1
    torch.testing.assert_close(found[1], wanted, rtol=0.05, atol=0.2)
    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make(), tmp_path)
    assert torch.equal(logits(again, OTHER, PROMPT), found)
    assert generate(again, OTHER, PROMPT) == generate(peft, OTHER, PROMPT)


@pytest.mark.usefixtures("no_cache")
def test_prompts_can_be_looked_up_by_their_words(make: Make, routings: list[int]) -> None:
    peft, plain = get_peft_model(make(), config(query="pooled")).eval(), make()
    randomize(peft)
    tuner = peft.base_model
    tuner.read_words_with(tiny_tokenizer())
    asked = tiny_tokenizer()("red cat Paris")["input_ids"]
    other = tiny_tokenizer()("eight green stars")["input_ids"]
    key = torch.from_numpy(tuner.words().key(asked))
    assert key.shape == (64,)
    tuner.remember(key[None], ["edit-0"])
    expected = literal(peft, plain)
    found, before = logits(peft, other, asked), logits(plain, other, asked)
    assert routings == [2]
    wanted = expected.logits(asked, query=key)
    assert (wanted - before[1, -len(asked) :]).abs().max() > 0.1
    close(found[1, -len(asked) :], wanted)
    assert torch.equal(found[0], before[0])
    tokens = [
        expected.greedy(row, tokens=5, query=torch.from_numpy(tuner.words().key(row)))
        for row in (other, asked)
    ]
    assert generate(peft, other, asked, max_new_tokens=5) == tokens


def test_a_loaded_adapter_learns_what_words_say_from_the_model_without_its_edits(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tiny_tokenizer()("red cat Paris")["input_ids"]
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "one"))
    peft = get_peft_model(make(), config(query="pooled", threshold=8)).eval()
    randomize(peft)
    peft.base_model.read_words_with(tiny_tokenizer())
    key = peft.base_model.words().key(asked)
    peft.base_model.remember(torch.from_numpy(key)[None], ["edit-0"])
    peft.save_pretrained(tmp_path)
    # Nothing is known yet of the second model's tokens: it is asked while the edits are there.
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "two"))
    again = PeftModel.from_pretrained(make(), tmp_path)
    again.base_model.read_words_with(tiny_tokenizer())
    found = logits(again, asked)
    assert np.array_equal(again.base_model.words().key(asked), key)
    assert torch.equal(found, logits(peft, asked))
    assert not torch.equal(found, logits(make(), asked))


@pytest.mark.usefixtures("no_cache")
def test_words_without_a_tokenizer_are_an_error_that_says_how_to_give_it() -> None:
    peft = get_peft_model(tiny_llama(), config(query="pooled")).eval()
    randomize(peft)
    peft.base_model.remember(torch.ones(1, 64), ["edit-0"])
    with pytest.raises(ModelUnavailable, match="looks prompts up") as caught:
        logits(peft, PROMPT)
    assert "read_words_with(tokenizer)" in str(caught.value.hint)
