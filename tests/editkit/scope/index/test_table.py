from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from editkit.scope.index import IndexBackend, KeyTable, distances

NewBackend = Callable[[], IndexBackend]
Literal = Callable[..., list[int]]


def random_keys(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def view(*radii: float) -> np.ndarray:
    return np.array(radii, np.float32)


def test_row_numbers_are_handed_out_in_order_of_arrival() -> None:
    table = KeyTable(8)
    assert table.add(random_keys(3)) == range(3)
    assert table.add(random_keys(0)) == range(3, 3)
    assert table.add(random_keys(2)) == range(3, 5)
    assert len(table) == 5


def test_row_numbers_are_never_used_again() -> None:
    table = KeyTable(8)
    table.add(random_keys(4))
    table.kill([2, 3])
    table.kill([0, 1])
    assert table.add(random_keys(1)) == range(4, 5)
    assert (len(table), table.living) == (5, 1)


@pytest.mark.parametrize("start", [0, 100, 300])
def test_keys_that_come_in_parts_are_found_as_if_they_came_at_once(start: int) -> None:
    keys, radii = random_keys(1000), np.full(1000, 0.8, np.float32)
    whole, parts = KeyTable(8), KeyTable(8)
    whole.add(keys)
    parts.add(keys[:start])
    rest = keys[start:]
    found = parts.extend((rest[at : at + 128] for at in range(0, len(rest), 128)), len(rest))
    assert found == range(start, 1000)
    queries = random_keys(50, seed=1)
    assert parts.select(queries, radii).tolist() == whole.select(queries, radii).tolist()
    assert parts.backend == whole.backend


def test_a_part_that_is_refused_leaves_those_before_it() -> None:
    table, keys = KeyTable(8), random_keys(300)
    with pytest.raises(ValueError, match="NaN"):
        table.extend([keys[:200], np.full((1, 8), np.nan, np.float32)], 201)
    assert len(table) == 200
    assert table.select(keys[150:151], np.full(200, 0.1, np.float32)).tolist() == [150]


@pytest.mark.parametrize("count", [1, 100, 300])
def test_an_array_taken_over_serves_as_if_it_were_copied_and_grows_in_place(count: int) -> None:
    keys, radii = random_keys(400), np.full(count, 0.8, np.float32)
    own = keys.copy()
    copied, adopted = KeyTable(8), KeyTable(8)
    copied.add(keys[:count])
    assert adopted.adopt(own, count) == range(count)
    queries = random_keys(50, seed=1)
    assert adopted.select(queries, radii).tolist() == copied.select(queries, radii).tolist()
    assert np.shares_memory(adopted._keys, own)
    more = random_keys(100, seed=2)
    for table in (copied, adopted):
        assert table.add(more) == range(count, count + 100)
        table.kill([0])
    assert np.shares_memory(adopted._keys, own)
    radii = np.full(count + 100, 0.8, np.float32)
    assert adopted.select(queries, radii).tolist() == copied.select(queries, radii).tolist()


def test_an_array_is_taken_over_by_an_empty_table_only_and_checked() -> None:
    table = KeyTable(8)
    bad = random_keys(3)
    bad[1, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        table.adopt(bad, 2)
    with pytest.raises(ValueError, match="width"):
        table.adopt(np.zeros((3, 7), np.float32), 3)
    assert len(table) == 0
    table.adopt(bad, 1)  # what lies behind the keys is not looked at
    with pytest.raises(ValueError, match="empty"):
        table.adopt(random_keys(3), 3)


def test_an_empty_table_fires_nothing() -> None:
    table = KeyTable(8)
    assert table.select(random_keys(2), view()).tolist() == [-1, -1]
    assert table.within(random_keys(1)[0], 1e9)[0].tolist() == []
    assert table.nearest(random_keys(1)[0], 3, view())[0].tolist() == []


def test_no_queries_get_no_answers() -> None:
    table = KeyTable(8)
    table.add(random_keys(2))
    assert table.select(np.empty((0, 8), np.float32), view(1, 1)).shape == (0,)


def test_a_farther_ball_that_holds_the_query_beats_a_nearer_one_that_does_not() -> None:
    table = KeyTable(1)
    table.add(np.array([[0], [10]], np.float32))
    assert table.select(np.array([[1]], np.float32), view(0.5, 9.5)).tolist() == [1]


def test_of_equal_distances_the_newest_row_fires() -> None:
    table = KeyTable(1)
    table.add(np.array([[-1], [1], [1], [-1]], np.float32))
    query = np.zeros((1, 1), np.float32)
    assert table.select(query, view(1, 1, 1, 1)).tolist() == [3]
    assert table.select(query, view(1, 1, 1, -1)).tolist() == [2]
    assert table.nearest(query[0], 3, view(1, 1, 1, 1))[0].tolist() == [3, 2, 1]


@pytest.mark.usefixtures("few_direct_rows")
def test_of_many_equal_keys_the_newest_fires(new_backend: NewBackend) -> None:
    table = KeyTable(8, backend=new_backend())
    table.add(np.repeat(random_keys(2), 300, axis=0))
    radii = np.zeros(600, np.float32)
    assert table.select(random_keys(2), radii).tolist() == [299, 599]
    assert table.nearest(random_keys(2)[0], 4, radii)[0].tolist() == [299, 298, 297, 296]


def test_a_key_exactly_on_the_edge_fires() -> None:
    table = KeyTable(2)
    table.add(np.array([[3, 4]], np.float32))
    query = np.zeros((1, 2), np.float32)
    assert table.select(query, view(5)).tolist() == [0]
    assert table.select(query, np.nextafter(view(5), np.float32(0))).tolist() == [-1]


def test_a_radius_of_zero_fires_at_its_key_only() -> None:
    table = KeyTable(8)
    keys = random_keys(3)
    table.add(keys)
    queries = np.concatenate([keys, np.nextafter(keys, np.float32(9))])
    assert table.select(queries, view(0, 0, 0)).tolist() == [0, 1, 2, -1, -1, -1]


def test_rows_added_after_a_view_are_not_in_it() -> None:
    table = KeyTable(8)
    keys = random_keys(6)
    table.add(keys[:4])
    radii = np.full(4, 0.1, np.float32)
    table.add(keys[4:])
    assert table.select(keys, radii).tolist() == [0, 1, 2, 3, -1, -1]


@pytest.mark.usefixtures("few_direct_rows")
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_fires_nothing_and_spoils_no_other(
    new_backend: NewBackend, broken: float
) -> None:
    table = KeyTable(8, backend=new_backend())
    keys = random_keys(40)
    table.add(keys)
    queries = keys[:3].copy()
    queries[1, 5] = broken
    radii = np.full(40, np.inf, np.float32)
    assert table.select(queries, radii).tolist() == [0, -1, 2]
    assert table.within(queries[1], np.inf)[0].tolist() == []
    assert table.nearest(queries[1], 3, radii)[0].tolist() == []


@pytest.mark.usefixtures("few_direct_rows")
def test_a_radius_that_is_not_a_number_is_not_in_the_view(new_backend: NewBackend) -> None:
    table = KeyTable(8, backend=new_backend())
    keys = random_keys(40)
    table.add(keys)
    radii = np.full(40, 0.1, np.float32)
    radii[:3] = np.nan
    assert table.select(keys[2:5], radii).tolist() == [-1, 3, 4]


@pytest.mark.usefixtures("few_direct_rows")
def test_an_infinite_radius_holds_every_query(new_backend: NewBackend) -> None:
    table = KeyTable(8, backend=new_backend())
    table.add(random_keys(40))
    radii = np.full(40, -1, np.float32)
    radii[17] = np.inf
    assert table.select(1e30 * random_keys(2, seed=1), radii).tolist() == [17, 17]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_key_that_is_not_finite_is_refused(value: float) -> None:
    table = KeyTable(8)
    with pytest.raises(ValueError, match="NaN or infinity"):
        table.add(np.full((1, 8), value, np.float32))
    assert len(table) == 0


def test_vectors_of_another_width_are_refused() -> None:
    table = KeyTable(8)
    with pytest.raises(ValueError, match=r"shape \(2, 7\) for a table of width 8"):
        table.add(random_keys(2, 7))
    with pytest.raises(ValueError, match="width 8"):
        table.select(random_keys(2, 7), view())
    with pytest.raises(ValueError, match="width 8"):
        table.select(random_keys(1)[0], view())


def test_a_view_of_more_rows_than_there_are_is_refused() -> None:
    table = KeyTable(8)
    table.add(random_keys(2))
    with pytest.raises(ValueError, match="a table of 2 rows"):
        table.select(random_keys(1), view(1, 1, 1))


@pytest.mark.usefixtures("few_direct_rows")
def test_dead_rows_never_fire_and_the_living_keep_their_numbers(
    new_backend: NewBackend, literal: Literal
) -> None:
    rng = np.random.default_rng(3)
    table = KeyTable(8, backend=new_backend())
    keys = random_keys(0)
    dead: set[int] = set()
    radii = np.empty(0, np.float32)
    for step in range(20):
        new = random_keys(12, seed=step)
        keys = np.concatenate([keys, new])
        radii = np.concatenate([radii, rng.uniform(0.5, 3, 12).astype(np.float32)])
        table.add(new)
        killed = rng.choice(len(keys), 10)
        table.kill(killed)
        dead |= set(killed.tolist())
        queries = keys[rng.choice(len(keys), 3)] + np.float32(0.2)
        assert table.select(queries, radii).tolist() == literal(keys, radii, dead, queries)
        assert (len(table), table.living) == (len(keys), len(keys) - len(dead))
        living = sorted(set(range(len(keys))) - dead)
        assert np.array_equal(table.keys_of(living), keys[living])


@pytest.mark.usefixtures("few_direct_rows")
def test_clearing_dead_rows_gives_memory_back(new_backend: NewBackend) -> None:
    table = KeyTable(8, backend=new_backend())
    table.add(random_keys(4000))
    host, index = table.nbytes, table.index_nbytes
    table.kill(range(3000))
    assert table.nbytes < host / 2
    assert table.index_nbytes < index / 2
    table.kill(range(4000))
    assert (table.nbytes, table.index_nbytes, table.living) == (0, 0, 0)
    table.add(random_keys(9))
    assert table.select(random_keys(9), np.zeros(4009, np.float32)).tolist() == [*range(4000, 4009)]


def test_killing_twice_changes_nothing() -> None:
    table = KeyTable(8)
    table.add(random_keys(8))
    table.kill([3])
    table.kill([3, 3])
    assert table.living == 7


def test_killing_a_row_that_never_was_is_refused() -> None:
    table = KeyTable(8)
    table.add(random_keys(8))
    for rows in ([8], [-1]):
        with pytest.raises(ValueError, match="the 8 that exist"):
            table.kill(rows)
    assert table.living == 8


def test_the_key_of_a_dead_row_is_refused() -> None:
    table = KeyTable(8)
    table.add(random_keys(8))
    table.kill([3])
    for row in (3, 8, -1):
        with pytest.raises(ValueError, match="are not live"):
            table.keys_of([2, row])


def test_keys_are_copies() -> None:
    table = KeyTable(8)
    keys = random_keys(2)
    table.add(keys)
    table.keys_of([0])[:] = 9
    keys[:] = 9
    assert np.array_equal(table.keys_of([0, 1]), random_keys(2))


@pytest.mark.usefixtures("few_direct_rows")
def test_a_reach_is_one_number_or_one_a_row(new_backend: NewBackend) -> None:
    table = KeyTable(1, backend=new_backend())
    table.add(np.arange(6, dtype=np.float32)[:, None])
    query = np.zeros(1, np.float32)
    rows, far = table.within(query, 2)
    assert (rows.tolist(), far.tolist()) == ([0, 1, 2], [0, 1, 2])
    rows, _ = table.within(query, np.array([-1, 0.5, 2, 9, np.nan]))
    assert rows.tolist() == [2, 3]
    with pytest.raises(ValueError, match="a table of 6 rows"):
        table.within(query, np.ones(7))


@pytest.mark.usefixtures("few_direct_rows")
def test_threads_select_while_one_adds_and_kills(new_backend: NewBackend) -> None:
    table = KeyTable(16, backend=new_backend())
    keys = random_keys(64, 16)
    table.add(keys)
    radii = np.full(64, 1e-3, np.float32)
    wrong: list[object] = []
    done = threading.Event()

    def look_up(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not done.is_set():
            rows = rng.choice(64, 3)
            found = table.select(keys[rows], radii)
            if found.tolist() != rows.tolist():
                wrong.append((rows, found))

    readers = [threading.Thread(target=look_up, args=(seed,)) for seed in range(4)]
    for reader in readers:
        reader.start()
    for step in range(40):
        added = table.add(random_keys(20, 16, seed=step + 1))
        table.kill(added[::2])
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_table_picks_its_backend_when_rows_are_many() -> None:
    table = KeyTable(8)
    table.add(random_keys(100))
    assert (table.backend, table.index_nbytes) == (None, 0)
    table.add(random_keys(100))
    assert table.backend == "faiss"
    assert table.index_nbytes > 0


@pytest.mark.parametrize("backend", [None, "faiss", "torch"])
def test_the_backends_as_shipped_agree_on_thousands_of_rows(backend: str | None) -> None:
    rng = np.random.default_rng(5)
    width, count = 96, 5000
    centers = 5 + rng.standard_normal((50, width))
    keys = centers[rng.integers(50, size=count)] + 0.05 * rng.standard_normal((count, width))
    keys = keys.astype(np.float32)
    queries = keys[rng.choice(count, 40)] + 0.03 * rng.standard_normal((40, width))
    queries = queries.astype(np.float32)
    radii = rng.uniform(0.1, 0.6, count).astype(np.float32)
    table = KeyTable(width, backend=backend)
    for start in range(0, count, 1000):
        table.add(keys[start : start + 1000])
    wanted = []
    for query in queries:
        found = distances(keys, query)
        inside = np.where(found <= radii, found, np.inf)
        wanted.append(int(inside.argmin()) if np.isfinite(inside.min()) else -1)
    assert -1 in wanted
    assert table.select(queries, radii).tolist() == wanted
