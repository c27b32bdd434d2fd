"""Listeners: how many there are, who gives way, and how far behind one may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from editkit_cli.service.errors import Refused
from editkit_cli.service.events import _KEPT, _KEPT_BYTES, Events, Listener
from editkit_cli.service.limits import Limits

SMALL = {"is": "small"}


def looping(listeners: int, work: Callable[[Events], Coroutine[Any, Any, None]]) -> None:
    """Runs something with events in a loop of its own."""

    async def main() -> None:
        await asyncio.wait_for(work(Events(asyncio.get_running_loop(), listeners)), 60)

    asyncio.run(main())


async def heard(listener: Listener, most: int = 10**9) -> list[int]:
    """Ids of what a listener hears, until it has heard so much, its end, or a silence."""
    ids = []
    async for event in listener.follow(pause=0.01):
        if event is None:
            break
        ids.append(event.id)
        if len(ids) == most:
            break
    return ids


async def has_ended(listener: Listener) -> bool:
    """Whether a listener's stream has ended; else it waits for more."""
    async for event in listener.follow(pause=0.01):
        if event is None:
            return False
    return True


def test_two_listeners_do_not_share_the_last_place():
    async def work(events: Events) -> None:
        first = events.listen("ada")
        with pytest.raises(Refused) as refused:
            events.listen("bob")  # before anybody has heard anything
        assert (refused.value.status, refused.value.code) == (429, "busy")
        assert int(refused.value.headers["Retry-After"]) >= 1
        first.leave()
        events.listen("bob").leave()
        assert events.listeners == 0

    looping(1, work)


def test_the_oldest_listener_of_a_token_gives_way_to_its_next():
    async def work(events: Events) -> None:
        mallory = [events.listen("mallory") for _ in range(40)]
        assert events.listeners == 4
        for one in ("ada", "bob", None, "eve"):
            events.listen(one)
        assert events.listeners == 8
        assert [await has_ended(one) for one in mallory] == [True] * 36 + [False] * 4

    looping(8, work)


def test_whoever_has_the_most_gives_way_to_somebody_new_until_all_have_as_many():
    async def work(events: Events) -> None:
        ada = [events.listen("ada") for _ in range(2)]
        bob = [events.listen("bob") for _ in range(2)]
        eve = [events.listen("eve")]
        assert [await has_ended(one) for one in (*ada, *bob)] == [True, False, False, False]
        eve.append(events.listen("eve"))
        assert [await has_ended(one) for one in (*ada, *bob)] == [True, False, False, False]
        assert [await has_ended(one) for one in eve] == [True, False], "its own, as bob has two"
        events.listen("joe")
        with pytest.raises(Refused):
            events.listen("kim")

    looping(4, work)


def test_one_token_does_not_keep_another_from_listening(start):
    server = start(limits=Limits(listeners=4, grace=5))
    mallory, ada = server.token("read", "mallory"), server.token("read", "ada")
    with server.client(mallory) as many, server.client(ada) as client:
        streams = [many.build_request("GET", "/v1/events") for _ in range(6)]
        answers = [many.send(one, stream=True) for one in streams]
        assert {one.status_code for one in answers} == {200}
        with client.stream("GET", "/v1/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": editkit"
            with server.client() as owner:
                owner.post("/v1/undo")  # refused, and told of
            assert '"state":"failed"' in next(line for line in lines if '"state":"failed"' in line)
        for one in answers[:4]:
            assert "operation" not in "".join(one.iter_lines()), "it had ended before"
        for one in answers:
            one.close()


def test_a_listener_that_is_behind_too_far_is_let_go_and_the_others_are_not():
    async def work(events: Events) -> None:
        slow, quick = events.listen("ada"), events.listen("bob")
        for _ in range(_KEPT):
            events.tell("learning", SMALL)
        assert len(await heard(quick)) == _KEPT
        assert await heard(slow, 1) == [1]
        events.tell("learning", SMALL)
        events.tell("learning", SMALL)
        assert await heard(quick) == [_KEPT + 1, _KEPT + 2]
        assert await heard(slow) == []
        assert await has_ended(slow)

    looping(8, work)


def test_what_listeners_are_behind_is_bounded_in_bytes_and_counted_once():
    large = {"is": "x" * (_KEPT_BYTES // 4)}

    async def work(events: Events) -> None:
        slow = [events.listen("ada") for _ in range(4)]
        for _ in range(20):
            events.tell("version", large)
        kept = [one.data for one in events._kept]
        assert sum(map(len, kept)) <= _KEPT_BYTES
        assert len(kept) == 3
        for one in slow:
            assert await has_ended(one)
        late = events.listen("bob", after=0)
        assert await heard(late) == [18, 19, 20], "as far back as there is something"
        # One that is larger than all of the room is told all the same.
        quick = events.listen("eve")
        events.tell("version", {"is": "x" * (2 * _KEPT_BYTES)})
        assert await heard(quick) == [21]

    looping(16, work)


def test_what_happened_before_the_end_is_heard_and_nothing_after_it():
    async def work(events: Events) -> None:
        listener = events.listen(None)
        events.tell("learning", SMALL)
        events.close()
        events.tell("learning", SMALL)
        assert await heard(listener) == [1]
        assert await has_ended(listener)
        assert await has_ended(events.listen(None))

    looping(4, work)


def test_an_id_of_an_earlier_life_of_the_server_is_none_of_the_future():
    async def work(events: Events) -> None:
        for after in (10**19, 5):
            listener = events.listen(None, after=after)
            events.tell("learning", SMALL)
            assert await heard(listener) == [events.newest]

    looping(4, work)
