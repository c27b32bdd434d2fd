"""The second look: what many edits share does not make one of them apply."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.part import GracePart
from editkit.methods.grace.payload import GracePayload
from editkit.scope.confirm import Confirmation
from editkit.scope.index import KeyTable

WIDTH = 48
RADIUS = 0.8  # a cosine of 0.68


def about(*directions: int) -> npt.NDArray[np.float32]:
    """A key with equal parts of some of the axes; the first one is the product's."""
    key = np.zeros(WIDTH, np.float32)
    key[list(directions)] = 1
    key[0] *= 1.6  # a name weighs more
    return key / np.float32(np.linalg.norm(key))


def view(keys: Any, targets: Any = None, *, kind: str = "pooled", **fields: Any) -> GracePart:
    targets = range(len(keys)) if targets is None else targets
    memory = Memory()
    memory.put(
        [
            GracePayload(
                Entry(f"e{row}", np.asarray(key, np.float32), (target,), RADIUS, "nearest"),
                np.zeros(3, np.float32),
                "here",
                key=kind,
                **fields,
            )
            for row, (key, target) in enumerate(zip(keys, targets, strict=True))
        ]
    )
    return GracePart(memory, np.arange(len(keys)))


def chosen(found: GracePart, query: npt.NDArray[np.float32]) -> int:
    return found.select(torch.from_numpy(query[None])).fired[0]


UNSEEN = about(0, WIDTH - 1)  # about the product, and something that no edit is about


def test_what_one_edit_shares_with_a_prompt_is_enough_as_long_as_it_is_alone() -> None:
    assert chosen(view([about(0, 1)]), UNSEEN) == 0


def test_what_many_edits_share_is_not_enough() -> None:
    found = view([about(0, axis) for axis in range(1, 9)])
    (near,) = found.near(torch.from_numpy(UNSEEN), 1)
    assert near.distance < near.radius
    assert not near.in_scope
    assert "7 other edits share" in str(near.doubt)
    assert chosen(found, UNSEEN) == -1


def test_a_rephrasing_of_one_of_many_edits_fires_it() -> None:
    found = view([about(0, axis, axis + 8) for axis in range(1, 9)])
    assert chosen(found, about(0, 3, WIDTH - 1)) == 2


def test_the_prompt_of_an_edit_fires_it_however_much_it_shares() -> None:
    keys = [about(0), *(about(0, axis) for axis in range(1, 9)), about(*range(9))]
    found = view(keys)
    assert [chosen(found, key) for key in keys] == list(range(len(keys)))


def test_other_wordings_of_a_correction_are_no_reason_to_doubt_it() -> None:
    keys = [about(0, axis) for axis in range(1, 9)]
    assert chosen(view(keys, targets=[5] * 8), UNSEEN) >= 0


def test_an_edit_with_rephrasings_goes_as_far_as_its_caller_said() -> None:
    keys = [about(0, axis) for axis in range(1, 9)]
    assert chosen(view(keys, is_confirmed=False), UNSEEN) >= 0


def test_hidden_states_are_looked_at_once() -> None:
    assert chosen(view([about(0, axis) for axis in range(1, 9)], kind="state"), UNSEEN) >= 0


def test_what_was_taken_back_is_no_reason_to_doubt() -> None:
    keys = [about(0, axis) for axis in range(1, 9)]
    memory = view(keys).memory
    assert chosen(GracePart(memory, np.arange(8)), UNSEEN) == -1
    assert chosen(GracePart(memory, np.arange(1)), UNSEEN) == 0
    assert chosen(GracePart(memory, np.arange(8)), UNSEEN) == -1


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 45), st.integers(0, 2**32 - 1))
def test_it_is_the_definition(count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    keys = draw.standard_normal((count, 12)) + 2 * draw.standard_normal(12)
    keys = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    targets = draw.integers(0, 4, count).tolist()
    found = view(keys, targets)
    for row in range(count):
        query = keys[row] + 0.4 * draw.standard_normal(12).astype(np.float32) / 12**0.5
        query /= np.linalg.norm(query)
        apart = np.linalg.norm(keys - keys[row], axis=1)
        order = [int(other) for other in np.argsort(apart) if apart[other] <= 1.095][:33]
        near = [other for other in order if targets[other] != targets[row]]
        if near:
            common = keys[near].astype(np.float64).mean(axis=0)
            common /= np.linalg.norm(common)
            share = len(near) / (len(near) + 1)
            one, other = (x - share * (x @ common) * common for x in (query, keys[row]))
            cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        else:
            cosine = 1.0
        if abs(cosine - 0.48) > 1e-4 and (count <= 33 or len(order) < 33):
            expected = bool(cosine >= 1 - RADIUS**2 / 2 - 0.2)
            assert Confirmation(found.memory, found.radii).confirms(row, query) == expected


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_a_payload_says_whether_its_edit_came_with_rephrasings(is_confirmed: bool) -> None:
    payload = view([about(0, 1)], is_confirmed=is_confirmed).memory.payload(0)
    data = payload.to_bytes()
    assert GracePayload.from_bytes(data, edit_id="e0").is_confirmed is is_confirmed
    assert (b"confirm" in data) is not is_confirmed  # nothing is said of the usual case


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("reach", [0.2, 0.9, 2.0])  # nothing else, few, and all of the others
def test_rows_around_a_unit_key_are_the_nearest_ones(count: int, reach: float) -> None:
    draw = np.random.default_rng(count)
    keys = draw.standard_normal((count, 24)) + draw.standard_normal(24)
    keys = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    table = KeyTable(24)
    table.add(keys)
    table.kill([count // 2] if count > 1 else [])
    radii = np.where(np.arange(count) % 3 == 1, -1, 0.5).astype(np.float32)
    for k in (1, 5, 2 * count):
        rows, apart = table.around(keys[0], k, radii, reach)
        expected, far = table.nearest(keys[0], k, radii)
        assert rows.tolist() == expected[far <= reach].tolist()
        assert apart.tolist() == far[far <= reach].tolist()
    assert table.around(keys[0], 3, np.full(count, -1, np.float32), reach)[0].tolist() == []
