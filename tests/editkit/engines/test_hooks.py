from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reference import literal_grace
from tiny import tiny_gpt2, tiny_llama
from transformers import DynamicCache

from editkit.engines.base import Part, Patch, Positions, Selection, View
from editkit.engines.reading import Near
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.site import Site, default_site

PROMPT = [40, 41, 42, 43]
OTHER = [60, 61]


class OneSelection(Selection):
    """What replaces the output in the rows that fire."""

    def __init__(self, fired: Sequence[int], value: torch.Tensor) -> None:
        super().__init__(fired)
        self.value = value

    def positions(self, row: int) -> Positions:
        return "last"

    def values(self, rows: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        return self.value.to(like.dtype).expand(len(rows), -1)


class OneEdit(Part):
    """Fires for one query, whatever its position: what an attachment sees of a codebook."""

    method = "test"
    version = "v1"

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.key, self.value = key, value
        self.asked = 0

    def __len__(self) -> int:
        return 1

    def select(self, queries: Any) -> Selection:
        self.asked += len(queries)
        near = torch.linalg.vector_norm(queries.float() - self.key, dim=1) < 1e-2
        return OneSelection([0 if hit else -1 for hit in near.tolist()], self.value)

    def near(self, query: Any, k: int) -> list[Near]:
        raise AssertionError("an attachment only selects")

    def edit_id(self, number: int) -> str:
        return "the-edit"

    def number(self, edit_id: str) -> int:
        raise AssertionError("an attachment only selects")

    def firing(self, numbers: Any) -> Selection:
        raise AssertionError("an attachment only selects")

    def without(self, edit_ids: Collection[str]) -> Part:
        raise AssertionError("an attachment only selects")

    @property
    def view(self) -> View:
        return View(self.version, (self,))


class NoEdit(OneEdit):
    version = "v0"

    def __init__(self) -> None:
        super().__init__(torch.zeros(1), torch.zeros(1))

    def __len__(self) -> int:
        return 0


def attach(model: Any, site: Site, part: OneEdit, keys: Any = None) -> Attachment:
    patch = Patch("replace", (site.module,), keys=keys)
    return Attachment(model, site.layout, part.view, {part.method: patch})


def edit_for(model: Any, site: Site, prompt: list[int]) -> OneEdit:
    key, value, _ = literal_grace.learn(
        model, site.module, prompt, [70, 1],
        start=torch.randn(site.width, generator=torch.Generator().manual_seed(1)) * 3,
        lr=0.1, steps=0,
    )  # fmt: skip
    return OneEdit(key, value)


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return request.param()


def generate(model: Any, rows: list[list[int]], **options: Any) -> list[list[int]]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, **options}
    out = model.generate(ids, attention_mask=mask, pad_token_id=0, **options)
    return [row[width:] for row in out.tolist()]


def test_an_edited_generation_equals_the_literal_loop(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    model.generation_config.eos_token_id = None
    expected = literal_grace.greedy(model, site.module, PROMPT, edit.value, tokens=6)
    plain = literal_grace.greedy(model, site.module, PROMPT, None, tokens=6)
    assert expected != plain
    with attach(model, site, edit):
        assert generate(model, [PROMPT]) == [expected]
        assert edit.asked == 1  # decided once, at prefill
        assert generate(model, [PROMPT], use_cache=False) == [expected]
        assert edit.asked == 2
        assert generate(model, [PROMPT], prefill_chunk_size=2) == [expected]
    assert generate(model, [PROMPT]) == [plain]


def test_rows_with_and_without_an_edit_mix_under_padding(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    model.generation_config.eos_token_id = None
    alone = [literal_grace.greedy(model, site.module, PROMPT, edit.value, tokens=6)]
    with attach(model, site, edit) as attached, attached.running() as run:
        rows = generate(model, [OTHER, PROMPT, [*OTHER, *PROMPT, 9]])
    assert run.edits == [None, "the-edit", None]
    assert rows[1] == alone[0]
    assert rows[0] == literal_grace.greedy(model, site.module, OTHER, None, tokens=6)


def test_a_row_that_fires_nothing_has_bit_identical_logits(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    ids = torch.tensor([PROMPT, [50, 51, 52, 53]])
    with torch.no_grad():
        plain = model(ids).logits
        with attach(model, site, edit):
            edited = model(ids).logits
    assert torch.equal(plain[1], edited[1])
    assert torch.equal(plain[0, :-1], edited[0, :-1])
    assert not torch.equal(plain[0, -1], edited[0, -1])


def test_right_padding_takes_the_query_from_the_mask(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    ids = torch.tensor([[*PROMPT, 0, 0], [*PROMPT, 50, 51]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    with torch.no_grad(), attach(model, site, edit) as attached, attached.running() as run:
        model(ids, attention_mask=mask)
    assert run.edits == ["the-edit", None]


def test_beams_share_their_prompts_decision(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    with attach(model, site, edit) as attached, attached.running() as run:
        model.generate(
            torch.tensor([PROMPT, [50, 51, 52, 53]]), attention_mask=torch.ones(2, 4).long(),
            num_beams=3, max_new_tokens=4, do_sample=False, pad_token_id=0,
        )  # fmt: skip
    assert run.edits == ["the-edit"] * 3 + [None] * 3


def test_a_new_turn_on_a_kept_cache_decides_on_its_own_last_token(model: Any) -> None:
    site = default_site(model)
    model.generation_config.eos_token_id = None
    first, turn = OTHER, [44, 45, 46]
    edit = edit_for(model, site, [*first, *turn])
    fresh = literal_grace.greedy(model, site.module, [*first, *turn], edit.value, tokens=4)
    with torch.no_grad(), attach(model, site, edit):
        cache = DynamicCache(config=model.config)
        model(torch.tensor([first]), past_key_values=cache, use_cache=True)
        out = model.generate(
            torch.tensor([[*first, *turn]]), attention_mask=torch.ones(1, 5).long(),
            past_key_values=cache, max_new_tokens=4, do_sample=False, pad_token_id=0,
        )  # fmt: skip
    assert out[0, 5:].tolist() == fresh


def test_a_hand_written_decode_loop_is_edited_like_generate(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    expected = literal_grace.greedy(model, site.module, PROMPT, edit.value, tokens=4)
    with torch.no_grad(), attach(model, site, edit):
        cache = DynamicCache(config=model.config)
        ids, found = torch.tensor([PROMPT]), []
        for _ in range(4):
            logits = model(ids, past_key_values=cache, use_cache=True).logits
            ids = logits[:, -1:].argmax(-1)
            found.append(int(ids))
    assert found == expected
    assert edit.asked == 1


def test_removal_leaves_no_trace_and_may_be_repeated(model: Any) -> None:
    site = default_site(model)
    ids = torch.tensor([PROMPT])
    keys = list(model.state_dict())
    with torch.no_grad():
        before = model(ids).logits
    mine = model.register_forward_hook(lambda *_: None)  # somebody else's hook stays
    attached = attach(model, site, edit_for(model, site, PROMPT))
    assert attached.is_attached
    attached.remove()
    attached.remove()
    assert not attached.is_attached
    assert "generate" not in model.__dict__
    assert len(model._forward_hooks) == 1
    assert not model._forward_pre_hooks
    assert not site.module._forward_hooks
    mine.remove()
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


def test_an_installation_that_fails_half_way_is_taken_back(model: Any) -> None:
    site = default_site(model)

    class NoHooks(torch.nn.Module):
        def register_forward_hook(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no room")

    broken = dataclasses.replace(site, module=NoHooks())
    with pytest.raises(RuntimeError, match="no room"):
        attach(model, broken, NoEdit())
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    assert "generate" not in model.__dict__


def test_a_removed_attachment_lets_the_model_be_freed() -> None:
    model = tiny_gpt2()
    attach(model, default_site(model), NoEdit()).remove()
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_an_exception_in_a_forward_call_does_not_leak_into_the_next(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    with torch.no_grad(), attach(model, site, edit):
        with pytest.raises(IndexError):
            model(torch.tensor([[10**6]]))
        edited = model(torch.tensor([PROMPT])).logits
    with torch.no_grad():
        assert not torch.equal(edited, model(torch.tensor([PROMPT])).logits)


def test_threads_run_on_the_view_they_began_with(model: Any) -> None:
    site = default_site(model)
    edit, none = edit_for(model, site, PROMPT), NoEdit()
    wanted: dict[str, Any] = {}
    with attach(model, site, none) as attached:
        for view in (edit, none):
            with attached.running(view.view):
                wanted[view.version] = generate(model, [PROMPT])
        assert wanted["v0"] != wanted["v1"]
        wrong: list[str] = []

        def work(view: OneEdit) -> None:
            for _ in range(5):
                with attached.running(view.view):
                    if generate(model, [PROMPT]) != wanted[view.version]:
                        wrong.append(view.version)

        threads = [threading.Thread(target=work, args=(view,)) for view in (edit, none) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_swapping_the_view_takes_effect_with_the_next_call(model: Any) -> None:
    site = default_site(model)
    edit = edit_for(model, site, PROMPT)
    with attach(model, site, NoEdit()) as attached:
        plain = generate(model, [PROMPT])
        attached.view = edit.view
        assert generate(model, [PROMPT]) != plain
        attached.view = NoEdit().view
        assert generate(model, [PROMPT]) == plain


class TokensAsKeys:
    """A prompt's key is its first token."""

    def key(self, ids: Sequence[int]) -> np.ndarray:
        return np.array([ids[0]], np.float32)

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        raise AssertionError("the tokens are known")


class ByToken(OneEdit):
    """Fires for prompts that begin with one token."""

    def select(self, queries: Any) -> Selection:
        self.asked += len(queries)
        fired = [0 if float(query[0]) == float(self.key) else -1 for query in queries]
        return OneSelection(fired, self.value)


def test_keys_of_prompts_are_looked_up_once_before_the_first_block(model: Any) -> None:
    site = default_site(model)
    edit = ByToken(torch.tensor(5.0), torch.zeros(site.width))
    seen: list[list[str | None]] = []
    with attach(model, site, edit, keys=TokensAsKeys()) as attached, attached.running() as run:
        layer = site.layout.blocks[0]
        hook = layer.register_forward_pre_hook(lambda *_: seen.append(run.edits))
        try:
            generate(model, [[5, 6, 7], [8, 9]])
        finally:
            hook.remove()
    assert seen[0] == ["the-edit", None]
    assert edit.asked == 2
