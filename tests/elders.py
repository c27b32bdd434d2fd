"""Tiny models with ELDER adapters, and the literal loop beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from reference import literal_elder

import editkit
from editkit.methods.elder.peft.tuner import ElderLinear

PROMPT = [40, 41, 42, 43]
SECOND = [50, 51, 52]
OTHER = [60, 61]

Make = Callable[[], Any]


def config(**changes: Any) -> editkit.ElderConfig:
    return editkit.ElderConfig(
        **{
            "r": 2,
            "lora_alpha": 3.0,
            "threshold": 2,
            "layers_to_transform": [1, 2],
            "num_experts": 6,
            **changes,
        }
    )


def randomize(peft: Any, adapter: str = "default", seed: int = 1) -> None:
    """Gives an adapter random routers and experts, large enough to be seen."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in peft.named_parameters():
            if "elder_" in name and name.endswith(f".{adapter}"):
                tensor.normal_(std=0.5, generator=noise)


def queries_of(peft: Any, prompts: Sequence[list[int]]) -> torch.Tensor:
    found = []
    for prompt in prompts:
        with torch.no_grad(), peft.base_model.watching() as seen:
            peft(torch.tensor([prompt]))
        found.append(seen[0][0, -1])
    return torch.stack(found)


def learned(make: Make, prompts: Sequence[list[int]] = (PROMPT, SECOND), **changes: Any) -> Any:
    """An adapted model that remembers prompts."""
    peft = get_peft_model(make(), config(**changes)).eval()
    randomize(peft)
    names = [f"edit-{index}" for index in range(len(prompts))]
    peft.base_model.remember(queries_of(peft, prompts), names)
    return peft


def literal(peft: Any, model: Any, adapter: str = "default") -> literal_elder.Elder:
    """The same adapter on an untouched model."""
    settings = peft.peft_config[adapter]
    blocks = model.model.layers if hasattr(model, "model") else model.transformer.h
    layers = [m for m in peft.modules() if isinstance(m, ElderLinear)]
    bits = len(layers) * settings.num_experts
    stored = peft.base_model.elder_codes[adapter].numpy()
    first = model.get_submodule(settings.target_modules[0])
    return literal_elder.Elder(
        model=model,
        entry=next(block for block in blocks if first in list(block.modules())),
        layers=[model.get_submodule(path) for path in settings.target_modules],
        lora_a=[layer.elder_A[adapter].detach() for layer in layers],
        lora_b=[layer.elder_B[adapter].detach() for layer in layers],
        routers=torch.stack([layer.elder_router[adapter].detach() for layer in layers]),
        codes=np.unpackbits(stored, axis=1, count=bits).tolist(),
        k=settings.top_k,
        scaling=settings.lora_alpha / settings.r,
        threshold=settings.threshold,
        weighting=settings.weighting,
        experts=settings.experts,
        span=settings.span,
    )


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Rows as a batch, padded on the left."""
    width = max(map(len, rows))
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}


@torch.no_grad()
def logits(model: Any, *rows: list[int]) -> torch.Tensor:
    found: torch.Tensor = model(**padded(list(rows))).logits
    return found


def generate(model: Any, *rows: list[int], **options: Any) -> list[list[int]]:
    batch = padded(list(rows))
    batch.pop("position_ids")
    width = batch["input_ids"].shape[1]
    options = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0, **options}
    out = model.generate(**batch, **options)
    return [row[width:] for row in out.tolist()]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


def adapter_tensors(peft: Any, adapter: str = "default") -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in peft.state_dict().items()
        if "elder_" in name and name.endswith(f".{adapter}")
    }
