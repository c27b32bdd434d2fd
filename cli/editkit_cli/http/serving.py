"""``editkit serve``: the sockets, the owner file, and an orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import Field

from editkit.kit import Kit
from editkit_cli import __version__
from editkit_cli.http.app import create_app
from editkit_cli.http.connections import ConnectionConfig, ConnectionLimiter
from editkit_cli.service.guard import Locks
from editkit_cli.service.limits import Limits
from editkit_cli.service.mounts import Mount
from editkit_cli.service.owner import new_owner
from editkit_cli.service.runner import served_name
from editkit_cli.service.tokens import TokenFile
from editkit_store.errors import EditkitError
from editkit_store.records import Record

__all__ = ["AddressTaken", "ServerStarted", "is_local", "listen", "serve"]

_SLACK = 5
"""Seconds for clients to read their responses, after the time for running work."""

_KNOCKING = 256
"""Connections that the system queues until the server accepts them."""

_LOCAL = ("127.0.0.1", "localhost", "::1")


class AddressTaken(EditkitError):
    """The server cannot listen there."""

    code = "address_taken"


class ServerStarted(Record):
    """What `serve` prints when it is ready."""

    url: str
    model: str
    version: str
    store: str
    pid: int
    # Left out of the JSON, which may end up in logs.
    link: str = Field(exclude=True, repr=False, description="Opens the page, signed in, once")


def is_local(host: str) -> bool:
    """Returns whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> list[socket.socket]:
    """Returns sockets that listen at an address; port 0 is any free port.

    For an address other than loopback, also the same port of loopback, which the owner uses.

    Raises:
        AddressTaken: The port is in use, or this machine does not have that address.
    """
    opened: list[socket.socket] = []
    try:
        opened.append(_listening(host, port))
        if not is_local(host) and not _is_every(host):
            opened.append(_listening("127.0.0.1", opened[0].getsockname()[1]))
    except OSError as error:
        for one in opened:
            one.close()
        raise AddressTaken(
            f"cannot listen at {host}, port {port}: {error.strerror or error}",
            hint="choose another with --port; 0 takes any that is free",
        ) from error
    return opened


def serve(
    kit: Kit,
    sockets: list[socket.socket],
    *,
    limits: Limits,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    mounts: Sequence[Mount] = (),
    ready: Callable[[ServerStarted], None],
) -> int:
    """Serves a kit until SIGINT or SIGTERM, and closes it.

    Args:
        kit: The running model.
        sockets: Of ``listen``.
        limits: How much the server accepts.
        hosts: Names that the server responds to, besides loopback and its own address.
        origins: Origins of other sites that may send requests.
        mounts: Applications to serve beside the routes.
        ready: Called once the server responds.

    Returns:
        How many changes were given up; all other accepted changes are on disk.

    Raises:
        StoreUnwritable: The owner's file cannot be written.
        StoreError: The store could not be closed.
    """
    bound, port = sockets[0].getsockname()[:2]
    names = {*_LOCAL, *hosts, *([] if _is_every(bound) else [bound])}
    near = _near(bound)
    owner = new_owner(kit.store.path, host=near, port=port, tool=f"editkit {__version__}")
    locks = Locks(
        owner=owner.token,
        tokens=TokenFile(Path(owner.store)),
        hosts=frozenset(name.lower() for name in names),
        origins=frozenset(origin.lower().rstrip("/") for origin in origins),
        body_bytes=limits.body_bytes,
    )
    app = create_app(kit, locks, limits, mounts)

    def started() -> None:
        # Only now, because whoever finds the file expects a response.
        owner.write()
        ready(
            ServerStarted(
                url=owner.url,
                model=served_name(kit.name),
                version=kit.version,
                store=owner.store,
                pid=owner.pid,
                link=f"{owner.url}{app.state.page_keys.link()}",
            )
        )

    server = Server(app, limits, started)
    given_up = 0
    try:
        with _logging_to_stderr():
            server.run(sockets)
    finally:
        owner.remove()
        if (runner := getattr(app.state, "runner", None)) is not None:
            given_up = runner.close()  # still open only after a second Ctrl-C
        kit.close()
    if server.failure is not None:
        raise server.failure
    return given_up


class Server(uvicorn.Server):
    """uvicorn's server, but it finishes its work and does not raise the signal again.

    Attributes:
        failure: Why it did not start, if it did not.
    """

    def __init__(self, app: FastAPI, limits: Limits, started: Callable[[], None]) -> None:
        self._limiter = ConnectionLimiter(limits)
        super().__init__(
            ConnectionConfig(
                app,
                self._limiter,
                log_config=None,
                access_log=False,  # paths and queries are private
                proxy_headers=False,  # a header must not make a client local
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=round(limits.grace) + _SLACK,
            )
        )
        self._application = app
        self._started = started
        self.failure: EditkitError | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and reports it."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_KNOCKING)  # uvicorn sets this to the number that it accepts at once
        if not self.should_exit:
            metrics = self._application.state.runner.metrics
            metrics.gauge("connections", "Connections that are open", lambda: len(self._limiter))
            try:
                self._started()
            except EditkitError as error:
                self.failure, self.should_exit = error, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends endless streams, and lets other requests finish."""
        runner = self._application.state.runner
        runner.events.close()
        self._limiter.close()
        # In parallel, because connections wait for what it finishes or gives up.
        closing = asyncio.ensure_future(asyncio.to_thread(runner.close))
        await super().shutdown(sockets)
        await closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops the server; a second signal gives up waiting changes."""
        if self.should_exit:
            self._application.state.runner.hurry()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM as requests to stop, with exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in signals]
        try:
            yield
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_KNOCKING)


def _near(bound: str) -> str:
    """Returns the loopback address of a server that listens at an address."""
    if is_local(bound):
        return bound
    return "::1" if bound == "::" else "127.0.0.1"


def _is_every(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Logs bugs to stderr with their tracebacks, and nothing else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("uvicorn", "editkit.server")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
