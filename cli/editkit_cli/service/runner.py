"""The running model: one kit with its generation pool, its writer and its events."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from editkit_cli.service.decoding import Decoder
from editkit_cli.service.errors import Refused, too_busy, too_late
from editkit_cli.service.events import Events
from editkit_cli.service.generation_job import GenerationJob, GenerationRequest
from editkit_cli.service.generation_pool import GenerationPool, GenerationRow
from editkit_cli.service.limits import Limits
from editkit_cli.service.metrics import Metrics
from editkit_cli.service.writer import ChangeWriter, QueuedChange
from editkit_store.history.versions import format_version
from editkit_store.records import Status

if TYPE_CHECKING:
    from editkit import Kit

__all__ = ["Deadline", "Runner", "served_name"]

_PATIENCE = 2.0
"""Seconds that a comparison or an explanation may wait for the model."""


class Deadline:
    """A progress callback that stops work which takes too long, when it next reports."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def pass_now(self) -> None:
        """Stops the work when it next reports, because nobody waits for it any more."""
        self._end = 0.0

    def start(self, task: str, total: int | None = None, unit: str = "steps") -> None:
        """Begins a stage.

        Raises:
            Refused: The time is up.
        """
        self.advance()

    def advance(self, amount: int = 1) -> None:
        """Advances the stage.

        Raises:
            Refused: The time is up.
        """
        if time.monotonic() >= self._end:
            raise too_late()

    def done(self) -> None:
        """Ends a stage."""


class Runner:
    """What routes and tools call. Created and started within the event loop of the server.

    Attributes:
        kit: The running model with its history.
        limits: How much the server accepts.
        name: Name of the model, for clients.
        created: When it was created, Unix time in seconds.
        provenance: Of the server; the fields of a change replace its fields.
        events: What happens, for clients that listen.
        metrics: Counters.
        writer: Makes changes.
    """

    def __init__(self, kit: Kit, limits: Limits) -> None:
        self.kit = kit
        self.limits = limits
        self.name = served_name(kit.name)
        self.created = int(time.time())
        self.provenance = kit.provenance  # the writer replaces it with that of each change
        self.events = Events(asyncio.get_running_loop(), limits.listeners)
        self.metrics = Metrics()
        self.writer = ChangeWriter(kit, limits, self.events, self._count_change)
        self._readers = GenerationPool(kit, limits, self._count_row)
        self._decoder = Decoder(kit.tokenizer)
        self._beside = threading.BoundedSemaphore(limits.readers)
        self._patient = threading.BoundedSemaphore(2 * limits.readers)
        self._closing = threading.Lock()
        self._given_up: int | None = None
        self._stops: set[Callable[[], None]] | None = set()  # None once it is closing
        self._turn = threading.Lock()
        for name, about, value in (
            ("waiting_rows", "Queued continuations", lambda: self._readers.waiting),
            ("running_rows", "Continuations being generated", lambda: self._readers.running),
            ("waiting_writes", "Queued changes", lambda: self.writer.waiting),
            ("listeners", "Clients that follow the events", lambda: self.events.listeners),
            ("version", "Number of the current version", lambda: int(kit.version[1:])),
        ):
            self.metrics.gauge(name, about, value)

    def start(self) -> None:
        """Starts the threads."""
        self._readers.start()
        self.writer.start()

    def close(self) -> int:
        """Accepts no more work, lets running work finish in time, and joins the threads.

        A second call waits for the first. The caller closes the kit.

        Returns:
            How many changes were given up, see ``ChangeWriter.close``.
        """
        with self._turn:
            stops, self._stops = self._stops, None
        for stop in stops or ():
            stop()
        with self._closing:
            if self._given_up is None:
                deadline = time.monotonic() + self.limits.grace
                self._given_up = self.writer.close(self.limits.grace)
                self._readers.close(max(0.0, deadline - time.monotonic()))
            return self._given_up

    def hurry(self) -> None:
        """Makes a running ``close`` wait for nothing but the change that is being made.

        Called from a signal handler, so it takes no lock.
        """
        self.writer.cut()
        self._readers.cut()

    def generate(
        self, request: GenerationRequest, caller: str | None, *, is_streamed: bool = False
    ) -> GenerationJob:
        """Starts a generation job.

        Args:
            request: What to generate.
            caller: Name of the caller's token; ``None`` is the owner.
            is_streamed: Whether text is reported as it is generated.

        Raises:
            Refused: Too many are waiting already.
        """
        return GenerationJob(
            request,
            kit=self.kit,
            readers=self._readers,
            decoder=self._decoder,
            seconds=self.limits.seconds,
            caller=caller,
            is_streamed=is_streamed,
        )

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Lets the body run the model outside the pool; as many may as the pool has threads.

        Raises:
            Refused: Too many do already.
        """
        # Waiting occupies a thread, of which there are few for all requests.
        with _taken(self._patient, 0), _taken(self._beside, _PATIENCE):
            yield

    @property
    def is_closing(self) -> bool:
        """Whether no more work is accepted."""
        return self._stops is None

    @contextlib.contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """Stops the body when the server closes, because it might never end by itself.

        Args:
            stop: Stops it, from another thread.
        """
        with self._turn:
            if self._stops is not None:
                self._stops.add(stop)
            else:
                stop()
        try:
            yield
        finally:
            with self._turn:
                if self._stops is not None:
                    self._stops.discard(stop)

    def version(self, text: str | None) -> str:
        """Returns the canonical name of a version, `v12`; ``None`` is the current one.

        Raises:
            UnknownVersion: No such version.
        """
        if text is None:
            return self.kit.version
        return format_version(self.kit.store.history.resolve(text))

    def status(self, *, redacted: bool) -> Status:
        """Returns the state of the store.

        Args:
            redacted: Leave out its folder.
        """
        found = self.kit.status()
        return found.model_copy(update={"store": Path(found.store).name}) if redacted else found

    def model_version(self, model: str) -> str:
        """Returns the version that a model name stands for.

        Raises:
            Refused: It is not the name of the running model.
            UnknownVersion: No such version.
        """
        if model == self.name:
            return self.kit.version
        if not model.startswith(self.name + "@"):
            raise Refused(
                f"the model '{model}' does not run here", status=404, code="model_not_found",
                param="model",
                hint=f"this server runs '{self.name}'; '{self.name}@v1' pins a version",
            )  # fmt: skip
        version = model[len(self.name) + 1 :]
        # `NAME@-` is the version before the current one, as `@-` is on the command line.
        return self.version("@" + version if version[:1] in ("-", "~", "") else version)

    def _count_row(self, row: GenerationRow) -> None:
        self.metrics.prompt_tokens.inc(len(row.prompt))
        self.metrics.generated_tokens.inc(row.answer.tokens)
        self.metrics.fired.inc(bool(row.answer.fired))
        if row.answer.delivered is not None:
            self.metrics.delivered.labels(row.answer.delivered).inc()

    def _count_change(self, change: QueuedChange, _: float) -> None:
        done = change.operation
        self.metrics.writes.labels(done.kind, done.state).inc()
        results = done.result if isinstance(done.result, tuple) else (done.result,)
        for result in results:
            seconds = getattr(result, "seconds", 0.0)
            if seconds:
                self.metrics.learning_seconds.observe(seconds)


@contextlib.contextmanager
def _taken(places: threading.Semaphore, patience: float) -> Iterator[None]:
    if not places.acquire(timeout=patience):
        raise too_busy("comparisons", _PATIENCE)
    try:
        yield
    finally:
        places.release()


def served_name(name: str) -> str:
    """Returns the name of a model for clients, who must not see paths of this machine."""
    return Path(name).name if Path(name).is_absolute() or Path(name).exists() else name
