"""Every backend, and a literal loop, decide the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editkit.scope.index import IndexBackend, KeyTable, distances

pytestmark = pytest.mark.usefixtures("always_indexed")

Makers = dict[str, Callable[[], IndexBackend]]


class Case(NamedTuple):
    keys: np.ndarray
    radii: np.ndarray
    dead: list[int]
    queries: np.ndarray


def keys_of_kind(kind: str, count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((count, width))
    if kind == "isotropic":
        keys = noise
    elif kind == "clustered":
        centers = 3 * rng.standard_normal((3, width))
        keys = centers[rng.integers(3, size=count)] + 10.0 ** -rng.integers(1, 6) * noise
    elif kind == "offset":  # a large common mean, and spreads down to float32's last bits
        offset = rng.standard_normal(width)
        offset *= rng.choice([100, 1000]) / np.linalg.norm(offset)
        keys = offset + 10.0 ** rng.integers(-4, 2) * noise
    elif kind == "grid":  # equal keys and equal distances abound
        keys = rng.integers(-1, 2, size=(count, width)).astype(float)
    elif kind == "wide":  # lengths over many orders of magnitude
        keys = 10.0 ** rng.uniform(-30, 30, size=(count, 1)) * noise
    else:
        keys = np.zeros((count, width))
    return keys.astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, width = draw(st.integers(1, 60)), draw(st.sampled_from([1, 2, 5, 17, 40]))
    kinds = ["isotropic", "clustered", "offset", "grid", "wide", "zero"]
    keys = keys_of_kind(draw(st.sampled_from(kinds)), count, width, rng)
    batch = draw(st.sampled_from([1, 2, 19, 20, 21, 64]))
    # Near a key, at a key, between two keys, far out.
    at, other = keys[rng.integers(count, size=(2, batch))]
    hop = 10.0 ** rng.uniform(-7, 0, (batch, 1)) * np.abs(at).max(axis=1, keepdims=True)
    near = at + hop * rng.standard_normal((batch, width))
    options = np.stack([near, at, (at + other) / 2, 1.5 * at + 1, np.zeros_like(at)])
    queries = options[rng.integers(len(options), size=batch), np.arange(batch)].astype(np.float32)
    # Radii on the edge of the balls: exactly the distance to some query, or a hair off it.
    edges = np.stack([distances(keys, query) for query in queries])
    radii = edges[rng.integers(batch, size=count), np.arange(count)]
    hairs = np.array([1, 1 + 1e-6, 1 - 1e-6, 2, 0.5, 0, 1e-3, -1])
    radii = (radii * rng.choice(hairs, count)).astype(np.float32)
    next_one = np.nextafter(radii, rng.choice(np.float32([-np.inf, np.inf]), count))
    radii = np.where(rng.random(count) < 0.5, next_one, radii)
    if draw(st.booleans()):
        radii = radii[: draw(st.integers(0, count))]
    if draw(st.integers(0, 9)) == 0:
        radii = np.full_like(radii, -1)
    dead = np.flatnonzero(rng.random(count) < draw(st.sampled_from([0, 0, 0.1, 0.6])))
    return Case(keys, radii.astype(np.float32), dead.tolist(), queries)


@settings(max_examples=100, deadline=None)
@given(case=cases(), split=st.integers(0, 60))
def test_every_backend_decides_as_a_loop_over_all_rows_does(
    makers: Makers, literal: Callable[..., list[int]], case: Case, split: int
) -> None:
    wanted = literal(case.keys, case.radii, set(case.dead), case.queries)
    for name, maker in makers.items():
        table = KeyTable(case.keys.shape[1], backend=maker())
        table.add(case.keys[:split])
        table.add(case.keys[split:])
        table.kill(case.dead)
        assert table.select(case.queries, case.radii).tolist() == wanted, name


@settings(max_examples=40, deadline=None)
@given(case=cases(), k=st.integers(1, 7))
def test_the_nearest_rows_are_those_of_a_full_sort(makers: Makers, case: Case, k: int) -> None:
    living = np.setdiff1d(np.flatnonzero(case.radii >= 0), case.dead)
    query = case.queries[0]
    found = distances(case.keys[living], query)
    order = np.lexsort((-living, found))[:k]
    for name, maker in makers.items():
        table = KeyTable(case.keys.shape[1], backend=maker())
        table.add(case.keys)
        table.kill(case.dead)
        rows, far = table.nearest(query, k, case.radii)
        assert rows.tolist() == living[order].tolist(), name
        assert far.tolist() == found[order].tolist(), name


@settings(max_examples=40, deadline=None)
@given(case=cases(), is_one=st.booleans())
def test_rows_within_reach_are_all_found(makers: Makers, case: Case, is_one: bool) -> None:
    query = case.queries[0]
    reach = float(np.median(np.abs(case.radii))) if is_one and len(case.radii) else case.radii
    reaches = np.full(len(case.keys), reach) if isinstance(reach, float) else reach
    found = distances(case.keys, query)[: len(reaches)]
    wanted = np.setdiff1d(np.flatnonzero(found <= reaches), case.dead)
    for name, maker in makers.items():
        table = KeyTable(case.keys.shape[1], backend=maker())
        table.add(case.keys)
        table.kill(case.dead)
        rows, far = table.within(query, reach)
        assert rows.tolist() == wanted.tolist(), name
        assert far.tolist() == found[wanted].tolist(), name


@pytest.mark.parametrize("norm", [1, 100, 1000])
@pytest.mark.parametrize("share", [0.06, 1e-3, 1e-6])
@pytest.mark.parametrize("batch", [1, 25])
def test_keys_a_millionth_inside_and_outside_of_their_balls(
    makers: Makers, norm: float, share: float, batch: int
) -> None:
    rng = np.random.default_rng(7)
    count, width, radius = 300, 64, share * norm
    offset = rng.standard_normal(width)
    offset *= norm / np.linalg.norm(offset)
    queries = (offset + radius * rng.standard_normal((batch, width))).astype(np.float32)
    away = rng.standard_normal((count, width))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    hairs = rng.choice([1 - 1e-6, 1 + 1e-6], count)
    keys = (queries[np.arange(count) % batch] + radius * away * hairs[:, None]).astype(np.float32)
    radii = np.full(count, radius, np.float32)
    wanted = []
    for query in queries:
        found = distances(keys, query)
        inside = np.where(found <= radii, found, np.inf)
        last = count - 1 - int(inside[::-1].argmin())
        wanted.append(last if np.isfinite(inside[last]) else -1)
    assert min(wanted) >= 0
    for name, maker in makers.items():
        table = KeyTable(width, backend=maker())
        table.add(keys)
        assert table.select(queries, radii).tolist() == wanted, name
