"""The threads that generate: continuations wait in a bounded queue, and run in batches.

A batch is what waits when a thread is free, so a single request starts at once, and many requests
share the passes through the model. The rows of a batch need nothing in common: each has its own
version, limit, stop strings and sampling, and leaves the batch when it ends, when its client
disconnects, or when its time is up. No cached states outlive a request, so none can be of an old
version.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from editkit_cli.service.errors import (
    LOG,
    closing,
    internal_error,
    out_of_memory,
    too_busy,
    too_late,
)
from editkit_cli.service.limits import Limits
from editkit_cli.service.shares import share
from editkit_cli.service.stream_buffer import StreamBuffer
from editkit_store.errors import EditkitError
from editkit_store.records import Delivery

if TYPE_CHECKING:
    from editkit import Kit
    from editkit.engines.base import Sampling, Step

__all__ = ["GenerationPool", "GenerationRow"]

_BATCH_TOKENS = 16_384
"""Most prompt tokens of a batch, including padding: the memory for its states grows with them."""


@dataclass(eq=False)
class GenerationRow:
    """One continuation that a client waits for.

    Attributes:
        prompt: Token ids.
        version: Version to answer at.
        answer: What was generated so far.
        deadline: On ``time.monotonic``.
        ended: Called once, in another thread, with the error if there was one.
        caller: Name of the caller's token; ``None`` is the owner.
        sampling: How it is sampled; ``None`` is greedy.
        delivery: Whether it is held to the target of the edit that fires.
        is_abandoned: Whether nobody waits for it any more.
    """

    prompt: tuple[int, ...]
    version: str
    answer: StreamBuffer
    deadline: float
    ended: Callable[[EditkitError | None], None]
    caller: str | None = None
    sampling: Sampling | None = None
    delivery: Delivery = "exact"
    is_abandoned: bool = False
    _is_told: bool = field(default=False, repr=False)

    def end(self, error: EditkitError | None = None) -> None:
        """Reports the end to the client, once."""
        if not self._is_told:
            self._is_told = True
            self.ended(error)

    def can_restart(self) -> bool:
        """Whether it can start again: a client waits, and what it has seen would be the same."""
        if self._is_told or self.is_abandoned:
            return False
        is_sure = self.sampling is None or self.sampling.seed is not None
        return is_sure or not self.answer.has_shown

    def is_late(self) -> bool:
        """Returns whether its time is up; the client then gets an error."""
        if time.monotonic() < self.deadline:
            return False
        self.end(too_late())
        return True


class GenerationPool:
    """The threads that generate.

    Args:
        kit: The running model.
        limits: How many threads there are, and how long the queue may be.
        counted: Called with every row that ran.
    """

    def __init__(self, kit: Kit, limits: Limits, counted: Callable[[GenerationRow], None]) -> None:
        self._kit = kit
        self._limits = limits
        self._counted = counted
        self._line: deque[GenerationRow] = deque()
        self._changed = threading.Condition()
        self._is_open = True
        self._is_cut = False
        self.running = 0
        self._seconds = 1.0  # of a recent batch, on average
        self._threads = [
            threading.Thread(target=self._work, name=f"editkit-reader-{number}", daemon=True)
            for number in range(limits.readers)
        ]

    @property
    def waiting(self) -> int:
        """Number of rows in the queue."""
        return len(self._line)

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def put(self, rows: Sequence[GenerationRow]) -> None:
        """Queues the rows of one request, all of them or none.

        Raises:
            Refused: The queue is full, or the server is closing.
        """
        with self._changed:
            if not self._is_open:
                raise closing()
            self._line = deque(row for row in self._line if not row.is_abandoned)
            most = self._limits.waiting_rows
            own = sum(row.caller == rows[0].caller for row in self._line)
            # A request larger than a share is accepted while no other one of its caller waits.
            if len(self._line) + len(rows) > most or (own and own + len(rows) > share(most)):
                batches = len(self._line) / (16 * len(self._threads))
                raise too_busy("continuations", self._seconds * (1 + batches))
            self._line.extend(rows)
            self._changed.notify(len(rows))

    def close(self, grace: float) -> None:
        """Accepts no more rows, ends those left after ``grace`` seconds, and joins the threads."""
        deadline = time.monotonic() + grace
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            while (self._line or self.running) and not self._is_cut:
                if time.monotonic() >= deadline:
                    break
                self._changed.wait(min(0.2, max(0.0, deadline - time.monotonic())))
            self._is_cut = True
            left, self._line = list(self._line), deque()
        for row in left:
            row.end(closing())
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def cut(self) -> None:
        """Ends all rows at once, whether they run or wait."""
        self._is_cut = True

    def _work(self) -> None:
        while (rows := self._take()) is not None:
            start = time.monotonic()
            self._answer(rows)
            with self._changed:
                self.running -= len(rows)
                self._changed.notify_all()
                self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - start)

    def _answer(self, rows: list[GenerationRow]) -> None:
        """Runs rows together; if the batch fails, each of them alone.

        A single row may have caused the failure, by a version that this model has not learned or by
        the memory that it needs. The others should not fail with it.
        """
        error = self._tried(rows)
        if error is not None and len(rows) > 1:
            again = [row for row in rows if row.can_restart()]
            failed = [row for row in rows if row not in again]
            for row in failed:
                self._end(row, error)
            for row in again:
                row.answer.restart()
                self._end(row, self._tried([row]))
        else:
            for row in rows:
                self._end(row, error)

    def _tried(self, rows: list[GenerationRow]) -> EditkitError | None:
        try:
            self._run(rows)
        except EditkitError as error:
            return error
        except Exception as error:
            # Not passed on: its traceback keeps the tensors of the batch in memory.
            LOG.error("generation failed", exc_info=error)
            return out_of_memory() if _is_of_memory(error) else internal_error()
        return None

    def _end(self, row: GenerationRow, error: EditkitError | None) -> None:
        row.end(error)
        self._counted(row)

    def _take(self) -> list[GenerationRow] | None:
        """Waits for rows, and returns the next batch; ``None`` at the end."""
        with self._changed:
            while True:
                while not self._line:
                    if not self._is_open:
                        return None
                    self._changed.wait()
                taken: list[GenerationRow] = []
                while self._line:
                    row = self._line[0]
                    if row.is_abandoned or row.is_late():
                        self._line.popleft()
                    elif not taken or self._fits(taken, row):
                        taken.append(self._line.popleft())
                    else:
                        break
                if taken:
                    self.running += len(taken)
                    return taken

    def _fits(self, rows: Sequence[GenerationRow], one: GenerationRow) -> bool:
        """Returns whether a row gives the same in a batch with others as alone."""
        together = [*rows, one]
        width = max(len(row.prompt) for row in together)
        if len(together) > 16 or width * len(together) > _BATCH_TOKENS:
            return False
        # All rows are padded to the widest one: beside a long prompt, a short one would reach the
        # end of the context window early.
        limit = self._kit.encoder.context
        return limit is None or width + max(row.answer.limit for row in together) <= limit

    def _run(self, rows: list[GenerationRow]) -> None:
        versions = [row.version for row in rows]
        made = self._kit.generate_tokens(
            [row.prompt for row in rows],
            version=versions[0] if len(set(versions)) == 1 else versions,
            max_new_tokens=max(row.answer.limit for row in rows),
            watch=lambda step: self._watch(rows, step),
            sampling=[row.sampling for row in rows],
            delivery=[row.delivery for row in rows],
        )
        for row, generation in zip(rows, made, strict=True):
            row.answer.fired, row.answer.delivered = generation.fired, generation.delivered
            # A classifier returns its label at once, and the context window may end a row.
            text = None if row.answer.tokens else generation.text
            row.answer.finish("stop" if text is not None else "length", text=text)

    def _watch(self, rows: Sequence[GenerationRow], step: Step) -> list[bool]:
        ended = []
        each = zip(rows, step.tokens, step.fired, step.delivered, strict=True)
        for row, token, fired, delivered in each:
            if self._is_cut and row.answer.ending is None:
                row.end(closing())
            elif row.answer.ending is None and not row.is_abandoned and not row.is_late():
                row.answer.fired = () if fired is None else (fired,)
                row.answer.delivered = delivered
                if row.answer.take(token):
                    row.end()
            ended.append(row._is_told or row.is_abandoned)
        return ended


def _is_of_memory(error: Exception) -> bool:
    import torch

    # On a CPU, the allocator raises a plain RuntimeError.
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
