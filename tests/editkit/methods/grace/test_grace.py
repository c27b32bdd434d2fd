from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from reference import literal_grace
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from editkit.engines.base import Encoded
from editkit.engines.transformers.site import Site, default_site
from editkit.engines.transformers.tokens import Encoder
from editkit.methods.grace import learning as grace
from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.config import GraceConfig
from editkit.methods.grace.payload import GracePayload
from editkit.methods.losses import losses, margins
from editkit_store.errors import InvalidRecord
from editkit_store.records import EditRequest

CASES = [
    ("What is 1+1?", "two"),
    ("Who?", "Ada"),
    ("The colour of grass is", "green"),
    ("x", "yes"),
]


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.param()


def encoded(model: Any, prompt: str, target: str) -> Encoded:
    return Encoder(model, tiny_tokenizer()).request(EditRequest(prompt=prompt, target=target))


def site_of(model: Any) -> Site:
    return default_site(model)


@pytest.mark.parametrize(("prompt", "target"), CASES)
def test_learning_equals_the_literal_loop_with_full_passes(
    model: Any, prompt: str, target: str
) -> None:
    site, request = site_of(model), encoded(model, prompt, target)
    # As many steps as it takes to tell, no early stop: the margin cannot be reached.
    config = GraceConfig(
        units="absolute",
        learning_rate=0.05,
        betas=(0.9, 0.999),
        decay=0.0,
        max_steps=6,
        margin=1e9,
        objective="likelihood",
        initial_value="random",
    )
    (learned,) = grace.learn(model, site, [request], config)
    start = torch.rand(site.width, generator=torch.Generator().manual_seed(0))
    key, value, loss = literal_grace.learn(
        model,
        site.module,
        request.prompt,
        request.target,
        start=start,
        lr=0.05,
        steps=learned.steps,
    )
    torch.testing.assert_close(learned.key, key, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(learned.value, value, rtol=1e-3, atol=2e-3)
    assert learned.loss == pytest.approx(loss, rel=1e-3)


def test_an_edit_learns_the_same_in_a_batch_and_alone(model: Any) -> None:
    site, config = (
        site_of(model),
        GraceConfig(units="absolute", learning_rate=0.05, max_steps=5, margin=1e9),
    )
    requests = [encoded(model, prompt, target) for prompt, target in CASES]
    together = grace.learn(model, site, requests, config)
    for request, one in zip(requests, together, strict=True):
        (alone,) = grace.learn(model, site, [request], config)
        assert alone.steps == one.steps
        torch.testing.assert_close(alone.key, one.key, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.value, one.value, rtol=1e-3, atol=2e-3)


def test_learning_is_reproducible_and_stops_at_the_margin(model: Any) -> None:
    site, request = site_of(model), encoded(model, "Who?", "Ada")
    config = GraceConfig(initial_value="random", seed=7, margin=1.0)
    (first,), (second,) = (grace.learn(model, site, [request], config) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert first.margin > config.margin
    assert first.steps < config.max_steps
    (other,) = grace.learn(model, site, [request], config.model_copy(update={"seed": 8}))
    assert not torch.equal(first.value, other.value)


def test_learning_leaves_the_model_exactly_as_it_was(model: Any) -> None:
    model.train()
    ids = torch.tensor([[5, 6, 7]])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    grace.learn(model, site_of(model), [encoded(model, "Who?", "Ada")], GraceConfig(max_steps=3))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())
    model.eval()(ids)


def test_a_prompt_of_one_token_can_be_edited(model: Any) -> None:
    request = encoded(model, "x", "green")
    assert len(request.prompt) == 1
    (learned,) = grace.learn(model, site_of(model), [request], GraceConfig())
    assert learned.margin > 0


def payload(index: int, key: list[float], radius: float, target: int = 0) -> GracePayload:
    entry = Entry(f"e{index}", np.asarray(key, np.float32), (target or index,), radius)
    return GracePayload(entry, np.full(3, index, np.float32), "here")


def test_a_payload_survives_its_bytes_and_bad_bytes_are_refused() -> None:
    one = payload(3, [1.5, -2], 0.5)
    data = one.to_bytes()
    assert data == one.to_bytes()
    back = GracePayload.from_bytes(data, edit_id="e3")
    assert back.entry.edit_id == "e3"
    assert np.array_equal(back.entry.key, one.entry.key)
    assert np.array_equal(back.value, one.value)
    assert (back.entry.target, back.entry.radius, back.site) == ((3,), 0.5, "here")
    for bad in (
        b"",
        b"\x00" * 20,
        data[:40],
        data[:-4],
        data.replace(b"editkit.grace.1", b"editkit.grace.9"),
        data.replace(b"F32", b"F16"),
        data.replace(b"[0,", b"[8,"),
    ):
        with pytest.raises(InvalidRecord):
            GracePayload.from_bytes(bad, edit_id="e3")


@pytest.mark.parametrize(
    "bad",
    [{"radius": 0}, {"radius": -1}, {"learning_rate": 0}, {"max_steps": 0}, {"seed": -1}, {"x": 1}],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        GraceConfig.of("default", **bad)


def test_the_paper_preset_has_the_published_constants() -> None:
    paper = GraceConfig.of("paper")
    assert (paper.radius, paper.learning_rate, paper.max_steps) == (1.0, 1.0, 100)
    assert (paper.rule, paper.initial_value, paper.margin) == ("paper", "random", 0.0)
    with pytest.raises(ValueError, match="presets: default, paper"):
        GraceConfig.of("fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [4, 256])
def test_learning_does_not_depend_on_whether_the_cache_can_forget(window: int) -> None:
    # With a sliding window of 4 the cache of prompt and target cannot be cut back to the prompt.
    sizes = {
        "vocab_size": 800, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": None, "sliding_window": window,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "initializer_range": 0.2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**sizes)).eval()
    site, request = site_of(model), encoded(model, "one two three four five six seven", "Oslo")
    config = GraceConfig(
        units="absolute", learning_rate=0.05, betas=(0.9, 0.999), decay=0.0, max_steps=6,
        margin=1e9, initial_value="random", shortlist=0,
    )  # fmt: skip
    (learned,) = grace.learn(model, site, [request], config)
    start = torch.rand(site.width, generator=torch.Generator().manual_seed(0))
    key, _, loss = literal_grace.learn(
        model, site.module, request.prompt, request.target, start=start, lr=0.05,
        steps=learned.steps,
    )  # fmt: skip
    torch.testing.assert_close(learned.key, key, rtol=1e-4, atol=1e-4)
    assert learned.loss == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("ahead", [0.0, 7.0])
def test_what_is_minimized_is_what_the_equations_say(ahead: float) -> None:
    noise = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(3, 4, 9, generator=noise)
    target = torch.randint(0, 9, (3, 4), generator=noise)
    valid = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])
    loss, surprise, leads = losses(logits, target, valid, ahead)
    for row in range(3):
        wanted_loss, wanted_surprise, smallest = 0.0, 0.0, math.inf
        count = int(valid[row].sum())
        for at in range(count):
            scores = logits[row, at].tolist()
            own = scores.pop(int(target[row, at]))
            lead = own - math.log(sum(math.exp(score) for score in scores))
            wanted_loss += math.log(1 + math.exp(ahead - lead)) / count
            share = math.exp(own) / (math.exp(own) + sum(math.exp(score) for score in scores))
            wanted_surprise -= math.log(share) / count
            smallest = min(smallest, own - max(scores))
        assert float(loss[row]) == pytest.approx(wanted_loss, rel=1e-4)
        assert float(surprise[row]) == pytest.approx(wanted_surprise, rel=1e-4, abs=1e-6)
        assert float(leads[row]) == pytest.approx(smallest, rel=1e-5)


def test_a_value_that_got_lost_begins_again_with_smaller_steps() -> None:
    model = tiny_gpt2()
    request = encoded(model, "red cat", "blue")
    absurd = {"learning_rate": 1e8, "decay": 0.0}
    (lost,) = grace.learn(model, site_of(model), [request], GraceConfig(**absurd, restarts=()))
    assert lost.margin < 0
    config = GraceConfig(**absurd, restarts=tuple(range(4, 100, 4)))
    (found,) = grace.learn(model, site_of(model), [request], config)
    assert found.margin > 0


def test_a_long_target_is_asked_for_less_of_a_margin() -> None:
    lengths = torch.tensor([1, 8, 9, 16, 32, 33, 500])
    wanted = [8.0, 8.0, 64 / 9, 4.0, 2.0, 2.0, 2.0]
    torch.testing.assert_close(margins(lengths, 8.0), torch.tensor(wanted))
    assert margins(lengths, 1.5).tolist() == [1.5] * 7  # never more than the settings say
    assert margins(lengths, 0.0).tolist() == [0.0] * 7  # the paper's


def test_a_long_target_has_longer_before_it_counts_as_lost() -> None:
    model = tiny_gpt2()
    long = encoded(model, "red cat", "blue cat red house green tree")
    assert len(long.target) > 4
    config = GraceConfig(learning_rate=1e8, decay=0.0, max_steps=12)
    (patient,) = grace.learn(
        model, site_of(model), [long], config.model_copy(update={"restarts": (4, 8)})
    )
    (never,) = grace.learn(
        model, site_of(model), [long], config.model_copy(update={"restarts": ()})
    )
    assert torch.equal(patient.value, never.value)
