"""Adding to what modules give: on the positions that an edit says, and in its rows alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest
import torch
from tiny import tiny_gpt2, tiny_llama

from editkit.engines.base import Part, Patch, Positions, Queries, Selection, View
from editkit.engines.reading import Near
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.site import feed_forward
from editkit.models.layout import layout_of

PROMPTS = [[40, 41, 42, 43], [60, 61]]
WIDTH, MORE = 4, 3


class Fires(Selection):
    def __init__(self, part: Adds, count: int) -> None:
        super().__init__([0] * count)
        self.part = part

    def positions(self, row: int) -> Positions:
        return self.part.where

    def lora(
        self, module: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        down, up = self.part.down, self.part.up
        return down.expand(len(rows), 1, -1), up.expand(len(rows), -1)[..., None]


class Adds(Part):
    method = "adds"

    def __init__(self, where: Positions, down: torch.Tensor, up: torch.Tensor) -> None:
        self.where, self.down, self.up = where, down, up

    def __len__(self) -> int:
        return 1

    def select(self, queries: Queries) -> Selection:
        return Fires(self, len(queries))

    def near(self, query: Queries, k: int) -> list[Near]:
        return []

    def edit_id(self, number: int) -> str:
        return "it"

    def number(self, edit_id: str) -> int:
        return 0

    def firing(self, numbers: Sequence[int]) -> Selection:
        return Fires(self, len(numbers))

    def without(self, edit_ids: Collection[str]) -> Part:
        return self


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("where", ["last", "prompt", "query", "all"])
def test_an_edit_is_added_where_it_says(make: Any, where: Positions) -> None:
    model = make()
    layout, site = layout_of(model), feed_forward(model, 0.5)
    noise = torch.Generator().manual_seed(0)
    down = torch.randn(site.inputs, generator=noise)
    up = torch.randn(site.width, generator=noise)
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []
    # Hooks run in the order in which they are registered: this one sees the output untouched.
    model.get_submodule(site.path).register_forward_hook(
        lambda module, args, output: passed.append((args[0].clone(), output.clone()))
    )
    patch = Patch("add", (site.module,), entry=layout.blocks[site.block])
    ids = torch.tensor([[0] * (WIDTH - len(row)) + row for row in PROMPTS])
    mask = torch.tensor([[0] * (WIDTH - len(row)) + [1] * len(row) for row in PROMPTS])
    shifts: list[torch.Tensor] = []
    with Attachment(model, layout, View("v", (Adds(where, down, up),)), {"adds": patch}):
        model.get_submodule(site.path).register_forward_hook(
            lambda module, args, output: shifts.append(output - passed[-1][1])
        )
        model.generate(
            ids, attention_mask=mask, do_sample=False, min_new_tokens=MORE, max_new_tokens=MORE,
            pad_token_id=0,
        )  # fmt: skip
    added = torch.cat(shifts, dim=1)  # prompt, then a token a step
    whole = torch.cat([(inputs @ down)[..., None] * up for inputs, _ in passed], dim=1)
    first = {"last": WIDTH - 1, "query": WIDTH - 1}.get(where, 0)
    end = {"last": WIDTH, "prompt": WIDTH}.get(where, added.shape[1])
    wanted = torch.zeros_like(whole)
    wanted[:, first:end] = whole[:, first:end]
    torch.testing.assert_close(added, wanted, rtol=1e-3, atol=1e-4)
