"""``editkit serve``: the socket, the owner's file, and an orderly end."""

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
"""Seconds, beyond those for work, for connections to take their answers."""

_KNOCKING = 256
"""Connections that the system keeps until the server has time for them."""

_LOCAL = ("127.0.0.1", "localhost", "::1")


class AddressTaken(EditkitError):
    """The server cannot listen there."""

    code = "address_taken"


class ServerStarted(Record):
    """What `serve` says when it is ready."""

    url: str
    model: str
    version: str
    store: str
    pid: int
    # Not in the JSON, which programs write into logs.
    link: str = Field(exclude=True, repr=False, description="Opens the page, signed in, once")


def is_local(host: str) -> bool:
    """Returns whether only this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> list[socket.socket]:
    """Returns sockets that listen at an address; port 0 is any that is free.

    Besides another address, the same port of loopback: the owner comes in there.

    Raises:
        AddressTaken: Somebody listens there already, or it is not an address of this machine.
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
        limits: How much is taken.
        hosts: Names that the server answers to, beside those of loopback and its own address.
        origins: Origins of other sites that may send requests.
        mounts: Applications to serve beside the routes.
        ready: Told once it answers.

    Returns:
        How many changes were given up; everything else that was taken is on the disk.

    Raises:
        StoreUnwritable: The owner's file cannot be written.
        StoreError: The store could not be closed as it should.
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
        # Only now, for whoever finds the file expects an answer.
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
            given_up = runner.close()  # still open only where a second Ctrl-C left it so
        kit.close()
    if server.failure is not None:
        raise server.failure
    return given_up


class Server(uvicorn.Server):
    """uvicorn's server, which ends with its work done and without raising its signal anew.

    Attributes:
        failure: Why it did not start, where it did not.
    """

    def __init__(self, app: FastAPI, limits: Limits, started: Callable[[], None]) -> None:
        self._door = ConnectionLimiter(limits)
        super().__init__(
            ConnectionConfig(
                app,
                self._door,
                log_config=None,
                access_log=False,  # paths and queries are nobody's business
                proxy_headers=False,  # a header must not make somebody else local
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=round(limits.grace) + _SLACK,
            )
        )
        self._application = app
        self._started = started
        self.failure: EditkitError | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and says so."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_KNOCKING)  # more than are taken in one go, which uvicorn has set here too
        if not self.should_exit:
            metrics = self._application.state.runner.metrics
            metrics.gauge("connections", "Connections that are open", lambda: len(self._door))
            try:
                self._started()
            except EditkitError as error:
                self.failure, self.should_exit = error, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams that have no end of their own, and lets the rest finish."""
        runner = self._application.state.runner
        runner.events.close()
        self._door.close()
        # Beside the connections, which wait for what it finishes or gives up.
        closing = asyncio.ensure_future(asyncio.to_thread(runner.close))
        await super().shutdown(sockets)
        await closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the server; asked a second time, it gives up what waits."""
        if self.should_exit:
            self._application.state.runner.hurry()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM for the wish to end, which is then fulfilled: exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wishes = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(wish, self.handle_exit) for wish in wishes]
        try:
            yield
        finally:
            for wish, handler in zip(wishes, before, strict=True):
                signal.signal(wish, handler)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_KNOCKING)


def _near(bound: str) -> str:
    """Returns where the owner comes in, on loopback, at a server that listens at an address."""
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
