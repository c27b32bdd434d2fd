"""The continuations of one request, awaited in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editkit_cli.service.decoding import Decoder
from editkit_cli.service.errors import too_late
from editkit_cli.service.generation_pool import GenerationPool, GenerationRow
from editkit_cli.service.stream_buffer import StreamBuffer
from editkit_store.errors import EditkitError
from editkit_store.records import Delivery, Generation

if TYPE_CHECKING:
    from editkit import Kit
    from editkit.engines.base import Sampling

__all__ = ["GenerationJob", "GenerationRequest", "JobEvent"]


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate, and how.

    Attributes:
        prompts: Token ids.
        version: Canonical name of the version to answer at: `v12`.
        limit: Most tokens of each continuation.
        copies: Number of continuations of each prompt.
        stops: Strings that end a continuation.
        temperature: 0 is greedy.
        top_p: Share of the probability to sample from.
        seed: Makes sampling repeatable.
        delivery: Whether answers are held to the targets of the edits that fire.
    """

    prompts: tuple[tuple[int, ...], ...]
    version: str
    limit: int
    copies: int = 1
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    delivery: Delivery = "exact"

    def sampling(self, copy: int) -> Sampling | None:
        """Returns how a copy is sampled; each has its own noise."""
        if self.temperature == 0:
            return None
        from editkit.engines.base import Sampling

        seed = None if self.seed is None else self.seed + copy
        return Sampling(self.temperature, self.top_p, seed)


@dataclass(frozen=True)
class JobEvent:
    """New text of one continuation, or its end.

    Attributes:
        index: Number of the continuation.
        text: The new text.
        is_last: Whether the continuation has ended.
    """

    index: int
    text: str
    is_last: bool


_SLACK = 2.0
"""Seconds that a thread of the pool has to report that the time is up."""

_Item = JobEvent | EditkitError


class GenerationJob:
    """The continuations of one request. Call ``abandon`` to leave before their end.

    Attributes:
        request: What to generate.
        answers: One per continuation; its index is prompt times ``copies`` plus copy.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        kit: Kit,
        readers: GenerationPool,
        decoder: Decoder,
        seconds: float,
        caller: str | None,
        is_streamed: bool,
    ) -> None:
        self.request = request
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()
        stop_ids = kit.encoder.stop_ids
        rows = []
        self.answers: list[StreamBuffer] = []
        for index in range(len(request.prompts) * request.copies):
            prompt = request.prompts[index // request.copies]
            answer = StreamBuffer(
                decoder,
                stop_ids=stop_ids,
                limit=_room(request.limit, len(prompt), kit),
                stops=request.stops,
                on_text=self._teller(index) if is_streamed else None,
            )
            self.answers.append(answer)
            rows.append(
                GenerationRow(
                    prompt=prompt,
                    version=request.version,
                    answer=answer,
                    deadline=time.monotonic() + seconds,
                    ended=functools.partial(self._ended, index),
                    caller=caller,
                    sampling=request.sampling(index % request.copies),
                    delivery=request.delivery,
                )
            )
        self._rows = rows
        readers.put(rows)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(map(len, self.request.prompts))

    @property
    def completion_tokens(self) -> int:
        """Tokens generated so far."""
        return sum(answer.tokens for answer in self.answers)

    async def parts(self) -> AsyncGenerator[JobEvent]:
        """Yields new text until every continuation has ended.

        Raises:
            EditkitError: One of them could not be generated; the others are abandoned.
        """
        left = len(self._rows)
        while left:
            try:
                found = await asyncio.wait_for(self._queue.get(), self._seconds + _SLACK)
            except TimeoutError:  # all threads are busy, so none could report it
                found = too_late()
            if isinstance(found, EditkitError):
                self.abandon()
                raise found
            left -= found.is_last
            yield found

    async def finished(self) -> Sequence[StreamBuffer]:
        """Returns the continuations, once all of them have ended.

        Raises:
            EditkitError: One of them could not be generated.
        """
        async for _ in self.parts():
            pass
        return self.answers

    async def records(self, prompts: Sequence[str]) -> list[Generation]:
        """Returns one record per prompt, once every continuation has ended.

        Args:
            prompts: The prompts as text, or the last turns of the conversations.

        Raises:
            EditkitError: One of them could not be generated.
        """
        return [
            Generation(
                text=one.text,
                version=self.request.version,
                fired=one.fired,
                delivered=one.delivered,
                prompt=prompt,
                tokens=one.tokens,
                finish_reason=one.ending or "stop",
            )
            for prompt, one in zip(prompts, await self.finished(), strict=True)
        ]

    def abandon(self) -> None:
        """Stops generating, because nobody waits any more."""
        for row in self._rows:
            row.is_abandoned = True

    def _teller(self, index: int) -> Callable[[str], None]:
        return lambda text: self._tell(JobEvent(index, text, False))

    def _ended(self, index: int, error: EditkitError | None) -> None:
        self._tell(JobEvent(index, "", True) if error is None else error)

    def _tell(self, item: _Item) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


def _room(limit: int, prompt: int, kit: Kit) -> int:
    """Returns how many tokens fit after a prompt."""
    context = kit.encoder.context
    if context is None:
        return limit
    return max(1, min(limit, context - (prompt if kit.encoder.family == "decoder" else 1)))
