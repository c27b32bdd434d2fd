"""What one client asks for does not use up what all share: lines, threads, what is remembered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.http.test_running import until

import editkit
from editkit_cli.service import runner as module
from editkit_cli.service.decoding import Decoder
from editkit_cli.service.errors import Refused
from editkit_cli.service.events import Events
from editkit_cli.service.generation_pool import GenerationPool, GenerationRow
from editkit_cli.service.limits import Limits
from editkit_cli.service.runner import Runner
from editkit_cli.service.stream_buffer import StreamBuffer
from editkit_cli.service.writer import _KEPT, _KEPT_BYTES, ChangeWriter, QueuedChange
from editkit_store.records import Tagged


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from tiny import tiny_llama, tiny_tokenizer

    path: Path = tmp_path_factory.mktemp("fairness") / "history.db"
    with editkit.open(path, model=(tiny_llama(), tiny_tokenizer())) as found:
        yield found


def refused(work: Callable[[], Any]) -> None:
    with pytest.raises(Refused) as told:
        work()
    assert (told.value.status, told.value.code) == (429, "busy")


def test_one_token_does_not_fill_the_line_of_those_who_ask(kit):
    readers = GenerationPool(kit, Limits(readers=1, waiting_rows=8), lambda _: None)  # not started

    def ask(caller: str | None, rows: int) -> None:
        answer = StreamBuffer(Decoder(kit.tokenizer), stop_ids=(), limit=1)
        made = GenerationRow((1,), "v0", answer, float("inf"), lambda _: None, caller=caller)
        readers.put([made] * rows)

    ask("mallory", 3)
    refused(lambda: ask("mallory", 2))
    ask("mallory", 1)
    refused(lambda: ask("mallory", 1))
    ask("ada", 3)
    ask(None, 1)
    assert readers.waiting == 8
    refused(lambda: ask("bob", 1))


def test_a_request_that_is_larger_than_a_share_is_taken_where_it_is_the_only_one(kit):
    readers = GenerationPool(kit, Limits(readers=1, waiting_rows=4), lambda _: None)
    answer = StreamBuffer(Decoder(kit.tokenizer), stop_ids=(), limit=1)
    readers.put([GenerationRow((1,), "v0", answer, float("inf"), lambda _: None)] * 4)
    assert readers.waiting == 4


def writing(kit: Any, work: Callable[[ChangeWriter], None], **limits: Any) -> None:
    """Runs something with a writer that is not started."""

    async def main() -> None:
        events = Events(asyncio.get_running_loop(), 1)
        work(ChangeWriter(kit, Limits(**limits), events, lambda *_: None))

    asyncio.run(main())


def change(kit: Any, caller: str | None, size: int = 1) -> QueuedChange:
    """A change that tells so many bytes when it is done, and writes nothing."""
    done = Tagged(version="v0", tag="x" * size)
    return QueuedChange("tag", lambda *_: done, kit.provenance, 1, caller)


def test_one_token_does_not_fill_the_line_of_changes(kit):
    def work(writer: ChangeWriter) -> None:
        for _ in range(2):
            writer.put(change(kit, "mallory"))
        refused(lambda: writer.put(change(kit, "mallory")))
        writer.put(change(kit, "ada"))
        writer.put(change(kit, None))
        refused(lambda: writer.put(change(kit, "bob")))

    writing(kit, work, waiting_writes=4)


def test_what_ended_is_forgotten_by_bytes_too_and_is_then_said_to_be(kit):
    def work(writer: ChangeWriter) -> None:
        writer.start()
        small = change(kit, "ada")
        large = [change(kit, "mallory", _KEPT_BYTES // 4) for _ in range(10)]
        for one in (small, *large):
            writer.put(one)
            one.future.result(60)
        writer.close(60)
        assert writer.find(small.operation.id).result == small.future.result(), "of somebody else"
        kept = [one for one in large if one.operation in writer.all()]
        assert kept == large[-3:]
        with pytest.raises(Refused, match="or not any more") as told:
            writer.find(large[0].operation.id)
        assert (told.value.status, told.value.code) == (404, "unknown_operation")
        assert told.value.hint is not None
        assert "the log tells" in told.value.hint

    writing(kit, work)


def test_the_newest_result_is_kept_however_large_it_is(kit):
    def work(writer: ChangeWriter) -> None:
        writer.start()
        for one in (change(kit, None), change(kit, None, 2 * _KEPT_BYTES)):
            writer.put(one)
            one.future.result(60)
        writer.close(60)
        assert [found.id for found in writer.all()] == [one.operation.id]

    writing(kit, work)


def test_many_small_changes_of_one_token_do_not_make_others_results_forgotten(kit):
    def work(writer: ChangeWriter) -> None:
        writer.start()
        first = change(kit, "ada")
        last = first
        for number in range(_KEPT + 50):
            writer.put(last)
            if number % 20 == 0:
                last.future.result(60)
            last = change(kit, "mallory")
        writer.close(60)
        assert len(writer.all()) == _KEPT
        assert writer.find(first.operation.id).state == "done"

    writing(kit, work)


def test_those_who_compare_do_not_keep_every_thread_waiting(kit, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 600.0)
    go = threading.Event()
    came: list[str] = []

    async def main() -> None:
        runner = Runner(kit, Limits(readers=1))

        def compare() -> None:
            try:
                with runner.beside():
                    go.wait(60)
                came.append("done")
            except Refused as error:
                came.append(error.code)

        threads = [threading.Thread(target=compare) for _ in range(5)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(until, lambda: came == ["busy"] * 3)
        go.set()
        for thread in threads:
            await asyncio.to_thread(thread.join, 60)
        assert came[3:] == ["done"] * 2

    try:
        asyncio.run(main())
    finally:
        go.set()
