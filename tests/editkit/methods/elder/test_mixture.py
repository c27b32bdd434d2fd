"""The mixture of LoRAs against the literal sum, expert by expert and token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import literal_elder

from editkit.engines.transformers.lora import lora_output
from editkit.methods.elder.mixture import selected


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(
    experts=st.integers(1, 5),
    rank=st.integers(1, 3),
    rows=st.integers(1, 3),
    length=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_the_mixture_is_the_literal_sum(
    experts: int, rank: int, rows: int, length: int, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, experts))
    lora_a, lora_b = noise(experts, rank, 6, seed=seed), noise(experts, 5, rank, seed=seed + 1)
    inputs, weights = noise(rows, length, 6, seed=seed + 2), noise(rows, k, seed=seed + 3)
    order = noise(rows, experts, seed=seed + 4).argsort(dim=1)
    allocations = order[:, :k].sort(dim=1).values
    found = lora_output(inputs, *selected(lora_a, lora_b, allocations, weights))
    assert found.shape == (rows, length, 5)
    for row in range(rows):
        for at in range(length):
            expected = literal_elder.added(
                lora_a, lora_b, allocations[row].tolist(), weights[row].tolist(), inputs[row, at]
            )
            torch.testing.assert_close(found[row, at], expected, rtol=1e-4, atol=1e-4)


def test_only_the_chosen_experts_have_a_part_and_gradients() -> None:
    lora_a, lora_b = noise(4, 2, 6).requires_grad_(), noise(4, 5, 2, seed=1).requires_grad_()
    weights = torch.tensor([[0.5, 0.25]], requires_grad=True)
    down, up = selected(lora_a, lora_b, torch.tensor([[1, 3]]), weights)
    assert down.shape == (1, 4, 6)  # (rows, k r, in)
    assert up.shape == (1, 5, 4)  # (rows, out, k r)
    lora_output(noise(1, 3, 6, seed=2), down, up).square().sum().backward()
    for tensor in (lora_a, lora_b):
        assert tensor.grad is not None
        assert [bool(part.any()) for part in tensor.grad] == [False, True, False, True]
    assert weights.grad is not None
    assert weights.grad.all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inputs_in_half_precision_are_computed_in_that_of_the_experts(dtype: torch.dtype) -> None:
    lora_a, lora_b = noise(4, 2, 6), noise(4, 5, 2, seed=1)
    parts = selected(lora_a, lora_b, torch.tensor([[0, 2]]), torch.tensor([[0.5, 0.5]]))
    inputs = noise(1, 3, 6, seed=2).to(dtype)
    assert torch.equal(lora_output(inputs, *parts), lora_output(inputs.float(), *parts))
