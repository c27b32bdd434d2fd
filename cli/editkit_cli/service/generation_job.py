"""What one request asked for: its continuations, awaited in the event loop."""

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
from editkit_store.records import Generation

if TYPE_CHECKING:
    from editkit import Kit
    from editkit.engines.base import Sampling

__all__ = ["GenerationJob", "GenerationRequest", "JobEvent"]


@dataclass(frozen=True)
class GenerationRequest:
    """What is to be continued, and how.

    Attributes:
        prompts: Token ids.
        version: Version to answer at, by its own name: `v12`.
        limit: Tokens of each continuation.
        copies: Continuations of each prompt.
        stops: Strings that end one.
        temperature: 0 is greedy.
        top_p: Share of the probability that is drawn from.
        seed: Makes drawing repeatable.
    """

    prompts: tuple[tuple[int, ...], ...]
    version: str
    limit: int
    copies: int = 1
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def sampling(self, copy: int) -> Sampling | None:
        """Returns how a copy is drawn; each has noise of its own."""
        if self.temperature == 0:
            return None
        from editkit.engines.base import Sampling

        seed = None if self.seed is None else self.seed + copy
        return Sampling(self.temperature, self.top_p, seed)


@dataclass(frozen=True)
class JobEvent:
    """Something new of one continuation.

    Attributes:
        index: Which one.
        text: New text.
        is_last: It has ended.
    """

    index: int
    text: str
    is_last: bool


_SLACK = 2.0
"""Seconds that a reader has to tell that the time is up."""

_Item = JobEvent | EditkitError


class GenerationJob:
    """The continuations of one request. Whoever leaves early calls ``abandon``.

    Attributes:
        request: What to generate.
        answers: One a continuation: prompt times ``copies`` plus copy.
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
        """Yields what is new, until every continuation has ended.

        Raises:
            EditkitError: One of them could not be generated; the others are abandoned.
        """
        left = len(self._rows)
        while left:
            try:
                found = await asyncio.wait_for(self._queue.get(), self._seconds + _SLACK)
            except TimeoutError:  # every reader is busy, so nobody could tell
                found = too_late()
            if isinstance(found, EditkitError):
                self.abandon()
                raise found
            left -= found.is_last
            yield found

    async def finished(self) -> Sequence[StreamBuffer]:
        """Returns the continuations, when all of them have ended.

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
                prompt=prompt,
                tokens=one.tokens,
                finish_reason=one.ending or "stop",
            )
            for prompt, one in zip(prompts, await self.finished(), strict=True)
        ]

    def abandon(self) -> None:
        """Stops generating: nobody waits for it any more."""
        for row in self._rows:
            row.is_abandoned = True

    def _teller(self, index: int) -> Callable[[str], None]:
        return lambda text: self._tell(JobEvent(index, text, False))

    def _ended(self, index: int, error: EditkitError | None) -> None:
        self._tell(JobEvent(index, "", True) if error is None else error)

    def _tell(self, item: _Item) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


def _room(limit: int, prompt: int, kit: Kit) -> int:
    """Returns how many tokens fit behind a prompt."""
    context = kit.encoder.context
    if context is None:
        return limit
    return max(1, min(limit, context - (prompt if kit.encoder.family == "decoder" else 1)))
