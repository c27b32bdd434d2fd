"""What goes wrong for one is not paid for by the others, and it is told what was done."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
import time
import weakref
from typing import Any

import pytest
import torch

import editkit
from editkit_cli.http.app import create_app
from editkit_cli.http.routes import edits as routes
from editkit_cli.service.decoding import Decoder
from editkit_cli.service.errors import Refused
from editkit_cli.service.generation_pool import GenerationPool, GenerationRow
from editkit_cli.service.guard import Locks
from editkit_cli.service.limits import Limits
from editkit_cli.service.stream_buffer import StreamBuffer
from editkit_cli.service.tokens import TokenFile
from editkit_store.errors import EditkitError

CAT = "The red cat is"
GUILTY = "tall tree"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from tiny import tiny_llama, tiny_tokenizer

    path = tmp_path_factory.mktemp("failures") / "history.db"
    with editkit.open(path, model=(tiny_llama(), tiny_tokenizer())) as found:
        yield found


def together(kit: Any, rows: list[GenerationRow]) -> None:
    """Runs rows as one batch."""
    readers = GenerationPool(kit, Limits(readers=1), lambda _: None)
    readers.put(rows)
    readers.start()
    readers.close(60)


def row(kit: Any, prompt: str, shown: list[str] | None = None, **how: Any) -> Any:
    ended: list[EditkitError | None] = []
    answer = StreamBuffer(
        Decoder(kit.tokenizer), stop_ids=kit.encoder.stop_ids, limit=6,
        on_text=None if shown is None else shown.append,
    )  # fmt: skip
    made = GenerationRow(
        kit.encoder.prompt(prompt), "v0", answer, float("inf"), ended.append, **how
    )
    return made, ended


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("a bug"), "internal_error"),
    ],
)
@pytest.mark.parametrize("steps", [0, 1])
def test_only_the_row_that_fails_a_batch_fails(kit, monkeypatch, error, code, steps):
    """Also where the others have shown a part of their answers already."""
    plain = kit.generate_tokens
    guilty = list(kit.encoder.prompt(GUILTY))

    def failing(prompts: Any, *, watch: Any, **how: Any) -> Any:
        left = [steps]

        def watching(step: Any) -> Any:
            found = watch(step)
            left[0] -= 1
            if left[0] < 0 and guilty in [list(one) for one in prompts]:
                raise error
            return found

        return plain(prompts, watch=watching, **how)

    monkeypatch.setattr(kit, "generate_tokens", failing)
    asked = ["one two", GUILTY, "sea", "sun moon"]
    shown: list[list[str]] = [[] for _ in asked]
    rows = [row(kit, prompt, pieces) for prompt, pieces in zip(asked, shown, strict=True)]
    together(kit, [one for one, _ in rows])
    alone = [one.text for one in kit.generate(asked, max_new_tokens=6)]
    for prompt, (one, ended), pieces, text in zip(asked, rows, shown, alone, strict=True):
        if prompt == GUILTY:
            assert [told.code for told in ended] == [code]
        else:
            assert ended == [None]
            assert (one.answer.text, "".join(pieces)) == (text, text)


def test_an_answer_that_was_drawn_and_shown_is_not_told_twice(kit, monkeypatch):
    """Begun anew, it would be another: whoever has seen its beginning is told that it failed."""
    from editkit.engines.base import Sampling

    plain = kit.generate_tokens

    def failing(prompts: Any, *, watch: Any, **how: Any) -> Any:
        steps: list[Any] = []

        def watching(step: Any) -> Any:
            steps.append(watch(step))
            if len(prompts) > 1 and len(steps) == 4:
                raise RuntimeError("a bug")
            return steps[-1]

        return plain(prompts, watch=watching, **how)

    monkeypatch.setattr(kit, "generate_tokens", failing)
    # So cold that what is drawn is all but certain: words, and not an end before them.
    cold = Sampling(1e-6)
    drawn = row(kit, CAT, shown := [], sampling=cold)
    repeatable = row(kit, CAT, [], sampling=dataclasses.replace(cold, seed=1))
    unseen = row(kit, CAT, sampling=cold)
    together(kit, [one for one, _ in (drawn, repeatable, unseen)])
    assert shown, "it has been seen"
    assert [error.code for error in drawn[1]] == ["internal_error"]
    assert repeatable[1] == unseen[1] == [None]


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Refused("no room", status=507, code="x")])
def test_a_batch_of_edits_that_fails_in_the_middle_names_those_that_are_there(
    server, monkeypatch, error
):
    store, adds = server.kit.store, []
    plain = store.add_many

    def once(new: Any, **how: Any) -> Any:
        adds.append(new)
        if len(adds) > 1:
            raise error
        return plain(new[:1], **how)  # the rest would be asked again

    edits = [{"prompt": f"{word} tree", "target": "two"} for word in ("one", "ten", "six")]
    with server.client() as client:
        monkeypatch.setattr(store, "add_many", once)
        body = {"edits": edits, "on_conflict": "keep"}  # so that they come one by one
        said = client.post("/v1/edits/batch", json=body)
        monkeypatch.undo()
        failure = said.json()["error"]
        assert (said.status_code, failure["code"]) == (
            (507, "x") if isinstance(error, Refused) else (500, "internal_error")
        )
        (there,) = client.get("/v1/edits").json()
        assert failure["committed"] == [
            {"edit_id": there["id"], "version": "v1", "status": "active"}
        ]
        assert failure["message"].startswith("1 of 3 edits were added, then: ")
        (operation,) = client.get("/v1/operations").json()
        assert operation["error"] == failure, "whoever follows it is told as well"
        again = client.post("/v1/edits", json={**edits[1], "target": " "})
        assert again.json()["error"]["committed"] is None


def test_changes_that_have_ended_are_remembered_without_what_was_asked(server, monkeypatch):
    asked: list[Any] = []
    plain = routes.prepare_add

    def adding(*how: Any) -> Any:
        act = plain(*how)
        asked.append(weakref.ref(act))
        return act

    monkeypatch.setattr(routes, "prepare_add", adding)
    server.add(CAT, "blue")
    with server.client() as client:
        body = {"prompt": CAT, "target": "gold", "on_conflict": "error"}
        assert client.post("/v1/edits", json=body).status_code == 409
        for _ in range(100):  # the answer is sent a moment before the writer lets go
            gc.collect()
            if not any(one() for one in asked):
                break
            time.sleep(0.05)
        assert [one() for one in asked] == [None, None]
        states = [one["state"] for one in client.get("/v1/operations").json()]
        assert states == ["failed", "done"]


def test_a_client_that_leaves_before_its_stream_begins_frees_its_place(kit, monkeypatch):
    """The application is asked directly, for a network could not be made to cut it that close."""
    go, steps = threading.Event(), list[Any]()
    plain = kit.generate_tokens

    def held(*args: Any, watch: Any, **how: Any) -> Any:
        def waiting(step: Any) -> Any:
            steps.append(watch(step))
            if len(steps) > 3:  # the first words are told
                go.wait(60)
            return steps[-1]

        return plain(*args, watch=waiting, **how)

    monkeypatch.setattr(kit, "generate_tokens", held)
    app = create_app(kit, Locks(owner="key", tokens=TokenFile(kit.store.path)), Limits(grace=60))
    body = b'{"model": "%s", "prompt": "one two", "max_tokens": 200, "stream": true,'
    body += b' "temperature": 2, "seed": 1}'
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer key"),
               (b"content-type", b"application/json")]  # fmt: skip

    async def asked(path: str, method: str, content: bytes) -> None:
        """The client is there until the first words have come, and gone when they are sent."""
        messages: list[Any] = [{"type": "http.request", "body": content}]
        if method == "POST":
            messages.append(None)

        async def receive() -> Any:
            if not messages:
                return {"type": "http.disconnect"}
            return messages.pop(0) or await asyncio.sleep(60)

        async def send(_: Any) -> None:
            await asyncio.sleep(0)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(),
                 "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1),
                 "server": ("127.0.0.1", 2), "scheme": "http", "http_version": "1.1",
                 "asgi": {"version": "3.0", "spec_version": "2.3"}}  # fmt: skip
        await app(scope, receive, send)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            runner = app.state.runner
            name = runner.name.encode()
            await asked("/v1/completions", "POST", body % name)
            await asked("/v1/events", "GET", b"")
            assert runner.events.listeners == 0
            go.set()
            while runner._readers.running:
                await asyncio.sleep(0.01)
            assert len(steps) <= 6

    asyncio.run(asyncio.wait_for(main(), 60))
